package app

import (
	"fmt"
	"maps"
	"slices"
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
			if err := NewServicePorts(maps.Values(all), DefaultPortRange).Assign(one, nil); err != nil || one.Ports[0].Port != DefaultPortRange.Min+apps {
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

// A change of many apps looks at those that are there once, not once per app, and
// gives none a port that another of them names.
func TestServicePortsOfManyApps(t *testing.T) {
	const apps = 100
	var all []*App
	for n := range apps {
		all = append(all, &App{ID: ID(fmt.Sprintf("/app-%d", n)), Ports: []PortDefinition{{}}})
	}
	all[apps-1].Ports[0].Port = DefaultPortRange.Min // named by the last
	looks := 0
	ports := NewServicePorts(func(yield func(*App) bool) {
		looks++
		for _, a := range all {
			if !yield(a) {
				return
			}
		}
	}, DefaultPortRange)
	seen := map[int]ID{}
	for _, a := range all {
		if err := ports.Assign(a, nil); err != nil {
			t.Fatal(err)
		}
		port := a.Ports[0].Port
		if other, taken := seen[port]; taken {
			t.Errorf("%s and %s both have port %d", a.ID, other, port)
		}
		seen[port] = a.ID
	}
	if looks != 1 {
		t.Errorf("all apps were looked at %d times", looks)
	}
}

// What an app gives up is not another's by the same change, nor what it keeps.
func TestServicePortsOfAnAppThatChanges(t *testing.T) {
	stored := &App{ID: "/a", Ports: []PortDefinition{{Port: 10000}, {Port: 10001}}}
	one := &App{ID: "/one", Ports: []PortDefinition{{}}}
	a := &App{ID: "/a", Ports: []PortDefinition{{}}}
	two := &App{ID: "/two", Ports: []PortDefinition{{}}}
	ports := NewServicePorts(slices.Values([]*App{stored, one, a, two}), DefaultPortRange)
	for _, c := range []struct {
		a, stored *App
		want      int
	}{{one, nil, 10002}, {a, stored, 10000}, {two, nil, 10003}} {
		if err := ports.Assign(c.a, c.stored); err != nil || c.a.Ports[0].Port != c.want {
			t.Errorf("%s: %v, %v, want %d", c.a.ID, c.a.Ports, err, c.want)
		}
	}
}

// A range that goes beyond the last port there is ends with it.
func TestRangeBeyondTheLastPort(t *testing.T) {
	a := &App{ID: "/a", Ports: []PortDefinition{{}, {}}}
	err := assignPorts(a, nil, PortRange{Min: 65535, Max: 70000})
	if err == nil || !strings.Contains(err.Error(), "are already in use") || a.Ports[0].Port != 65535 {
		t.Errorf("%v, ports %v", err, a.Ports)
	}
}
