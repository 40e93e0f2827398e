package app

import (
	"fmt"
	"math/rand"
	"testing"
)

// withNames is an app whose instances have volumes of that name.
func withNames(t *testing.T, id ID, name string, instances int) *App {
	t.Helper()
	a := parsed(t, classed("RW", `{"provider":"dvdi","name":"`+name+`","options":{"dvdi/driver":"d"}}`, ""), Options{})
	a.ID, a.Instances = id, instances
	return a
}

func TestPatternsThatMeet(t *testing.T) {
	const v = instanceVariable
	for _, c := range []struct {
		a, b      string
		instances int
		want      bool
	}{
		{"x-" + v + "-1", "x-1-" + v, 3, true},
		{"x-" + v + "-1", "x-1-" + v, 0, true}, // volumes outlive the instances
		{"x-" + v, "x-" + v, 3, false},         // another rule's
		{"x-" + v, "y-" + v, 3, false},
		{"x-" + v, "x-1-" + v, 3, false},
		{"x-" + v + "-a", "x-1-" + v, 3, false},
		{"x-" + v + "-a", "x-1-a" + v, 3, false},
		{"x-" + v + "-a5", "x-1-a" + v, 3, true},
		{"x-" + v + "-1", "x-2024-" + v, 3, false},
		{"x" + v, "x2" + v, 3, false}, // not before instance 20
		{"x" + v, "x2" + v, 21, true},
		{"x" + v + "0", "x" + v, 3, false}, // not before instance 10
		{"x" + v + "0", "x" + v, 11, true},
		{"x0" + v, "x" + v, 100, false}, // no ordinal begins with 0
	} {
		apps := map[ID]*App{"/a": withNames(t, "/a", c.a, c.instances), "/b": withNames(t, "/b", c.b, c.instances)}
		for n, changed := range []ID{"/a", "/b"} {
			err := ValidateAll(apps, []ID{changed})
			if got := says(err, fmt.Sprintf("/apps(%d)/container", n), "can mean the same volume as"); got != c.want {
				t.Errorf("%s and %s, %s changed: %v", c.a, c.b, changed, err)
			}
		}
		if err := ValidateAll(apps, []ID{"/c"}); err != nil {
			t.Errorf("%s and %s, none changed: %v", c.a, c.b, err)
		}
	}
}

// Patterns that both say shared may meet, as those of different drivers may.
func TestPatternsThatMayMeet(t *testing.T) {
	apps := map[ID]*App{"/a": withNames(t, "/a", "x-${instance}-1", 3), "/b": withNames(t, "/b", "x-1-${instance}", 3)}
	a, b := apps["/a"].Container.Volumes[0].External, apps["/b"].Container.Volumes[0].External
	a.Shared = true
	if err := ValidateAll(apps, []ID{"/a"}); err == nil {
		t.Error("one is not shared")
	}
	b.Shared = true
	if err := ValidateAll(apps, []ID{"/a"}); err != nil {
		t.Errorf("both are shared: %v", err)
	}
	a.Shared, b.Shared, b.Options = false, false, map[string]string{"dvdi/driver": "other"}
	if err := ValidateAll(apps, []ID{"/a"}); err != nil {
		t.Errorf("another driver: %v", err)
	}
}

// TestMeetingIsExact compares with the names that all ordinals make.
func TestMeetingIsExact(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	text := func() string {
		b := make([]byte, r.Intn(4))
		for i := range b {
			b[i] = "x-0012"[r.Intn(6)]
		}
		return string(b)
	}
	const instances = 130
	met := 0
	for range 5_000 {
		a, b := text()+instanceVariable+text(), text()+instanceVariable+text()
		if a == b {
			continue
		}
		names := map[string]bool{}
		for n := range instances {
			names[(&External{Name: a}).NameFor(n)] = true
		}
		want := false
		for n := range instances {
			want = want || names[(&External{Name: b}).NameFor(n)]
		}
		volume := func(name string) *App {
			return &App{Instances: instances, Container: &Container{Type: Mesos, Volumes: []Volume{{External: &External{Name: name}}}}}
		}
		if got := len(meeting(map[ID]*App{"/a": volume(a), "/b": volume(b)}, map[ID]bool{"/b": true})) > 0; got != want {
			t.Fatalf("%s and %s meet: %t, found: %t", a, b, want, got)
		}
		if want {
			met++
		}
	}
	if met < 50 {
		t.Errorf("only %d met", met)
	}
}
