package app

import (
	"fmt"
	"strings"
	"testing"
)

func TestParentOfIDs(t *testing.T) {
	for id, want := range map[ID]ID{
		"": Root, "/": Root, "/a": Root, "a": Root, "/a/": Root, "//a": Root,
		"/a/b": "/a", "a/b": "/a", "/a/b/": "/a", "/a//b": "/a", "//a/b": "/a", "/a/b/c": "/a/b", "/a.b/c-d": "/a.b",
	} {
		if got := id.Parent(); got != want {
			t.Errorf("the parent of %q is %q, want %q", id, got, want)
		}
	}
}

// What posting one app costs for each app that is there: nothing that has to be
// collected as garbage.
func TestManyAppsCostOneLittle(t *testing.T) {
	cost := func(apps int) (ports, rules float64) {
		all := map[ID]*App{}
		for n := range apps {
			id := ID(fmt.Sprintf("/group-%d/app-%d", n%10, n))
			all[id] = &App{ID: id, Ports: []PortDefinition{{Port: DefaultPortRange.Min + n}}}
		}
		one := &App{ID: "/group-1/one", Ports: []PortDefinition{{}}}
		all[one.ID] = one
		ports = testing.AllocsPerRun(3, func() {
			one.Ports[0].Port = 0
			if err := AssignServicePorts(one, all, DefaultPortRange); err != nil || one.Ports[0].Port != DefaultPortRange.Min+apps {
				t.Errorf("port %d, %v", one.Ports[0].Port, err)
			}
		})
		rules = testing.AllocsPerRun(3, func() {
			if err := ValidateAll(all, []ID{one.ID}); err != nil {
				t.Error(err)
			}
		})
		return ports, rules
	}
	fewPorts, fewRules := cost(10)
	manyPorts, manyRules := cost(5000)
	if manyPorts > fewPorts || manyRules > fewRules {
		t.Errorf("with 5,000 apps in place of 10: %v allocations in place of %v for service ports, %v in place of %v for the rules",
			manyPorts, fewPorts, manyRules, fewRules)
	}
}

// A range that goes beyond the last port there is ends with it.
func TestRangeBeyondTheLastPort(t *testing.T) {
	a := &App{ID: "/a", Ports: []PortDefinition{{}, {}}}
	err := AssignServicePorts(a, map[ID]*App{}, PortRange{Min: 65535, Max: 70000})
	if err == nil || !strings.Contains(err.Error(), "are already in use") || a.Ports[0].Port != 65535 {
		t.Errorf("%v, ports %v", err, a.Ports)
	}
}
