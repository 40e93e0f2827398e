package app

import "testing"

const perInstance = `{"provider":"dvdi","name":"data-${instance}","options":{"dvdi/driver":"d"}}`

func TestVolumePerInstance(t *testing.T) {
	a := parsed(t, classed("RW", perInstance, `,"instances":3`), Options{})
	if !a.Ordered() || !a.HasExclusiveVolume() {
		t.Error("the app's instances are not told apart")
	}
	second := a.ForInstance(1)
	if name := second.Container.Volumes[0].External.Name; name != "data-1" {
		t.Errorf("the second instance mounts %s", name)
	}
	if second.Env["DVDI_INSTANCE_ORDINAL"].Value != "1" {
		t.Errorf("environment %v", second.Env)
	}
	if a.Container.Volumes[0].External.Name != "data-${instance}" || len(a.Env) != 0 {
		t.Error("the definition itself was changed")
	}
	own := parsed(t, classed("RW", perInstance, `,"env":{"DVDI_INSTANCE_ORDINAL":"mine"}`), Options{})
	if own.ForInstance(1).Env["DVDI_INSTANCE_ORDINAL"].Value != "mine" {
		t.Error("the app's own variable was lost")
	}
	if plain := parsed(t, []byte(`{"id":"/x","cmd":"x"}`), Options{}); plain.Ordered() || plain.ForInstance(1) != plain {
		t.Error("an app without such volumes has ordinals")
	}
}

func TestNamesThatCouldCollide(t *testing.T) {
	could := func(pattern, name string) bool {
		a := parsed(t, classed("RW", `{"provider":"dvdi","name":"`+pattern+`","options":{"dvdi/driver":"d"}}`, ""), Options{})
		return len(patternsInUse(map[ID]*App{"/a": a}).that(name)) > 0
	}
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"v", "v", false}, {"v", "w", false}, {"v-${instance}", "v-0", true}, {"v-12", "v-${instance}", true},
		{"v-${instance}", "v-x", false}, {"v-${instance}", "v-", false}, {"v${instance}0", "v10", true},
		{"v${instance}0", "v1", false}, {"${instance}", "7", true}, {"${instance}-${instance}", "1-1", true},
		{"${instance}-${instance}", "1-2", false},
	} {
		if got := could(tc.a, tc.b) || could(tc.b, tc.a); got != tc.want {
			t.Errorf("%s and %s: want %t", tc.a, tc.b, tc.want)
		}
	}
	named := func(id ID, name string) *App {
		a := parsed(t, classed("RW", `{"provider":"dvdi","name":"`+name+`","options":{"dvdi/driver":"d"}}`, ""), Options{})
		a.ID = id
		return a
	}
	apps := map[ID]*App{"/a": named("/a", "v-${instance}"), "/b": named("/b", "v-3"), "/c": named("/c", "w-3")}
	if err := ValidateAll(apps, []ID{"/b"}); !says(err, "/apps(1)/container", "can mean the same volume as 'v-${instance}' in /a") {
		t.Errorf("%v", err)
	}
	if err := ValidateAll(apps, []ID{"/a"}); !says(err, "/apps(0)/container", "can mean the same volume as 'v-3' in /b") {
		t.Errorf("%v", err)
	}
	if err := ValidateAll(apps, []ID{"/c"}); err != nil {
		t.Errorf("%v", err)
	}
}
