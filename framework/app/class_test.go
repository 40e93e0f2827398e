package app

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
)

// classes are what the tests' operator offers.
func classes(t *testing.T) Options {
	t.Helper()
	out := map[string]VolumeClass{}
	for name, c := range map[string]VolumeClass{
		"fast":   {Driver: "rexray", Options: map[string]string{"iops": "100", "volumetype": "io1"}},
		"agent":  {Driver: "d", Access: AccessOneAgent, BackendExclusive: true},
		"nfs":    {Driver: "netshare", Access: AccessManyWriters},
		"images": {Driver: "netshare", Access: AccessManyReaders},
	} {
		c, err := c.Complete(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = c
	}
	return Options{Classes: out}
}

func classed(mode, external, extra string) []byte {
	return []byte(dvdi(Mesos, mode, "data", external, extra))
}

func parsed(t *testing.T, data []byte, opts Options) *App {
	t.Helper()
	a, err := Parse(data, opts)
	if err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return a
}

const fast = `{"provider":"dvdi","name":"v","options":{"dvdi/class":"fast","dvdi/newfstype":"xfs"}}`

func TestClassStandsForDriverAndOptions(t *testing.T) {
	a := parsed(t, classed("RW", fast, ""), classes(t))
	e := a.Container.Volumes[0].External
	want := map[string]string{"iops": "100", "volumetype": "io1", "newfstype": "xfs"}
	if e.Driver() != "rexray" || !maps.Equal(e.DriverOptions(), want) || e.Access() != AccessOneTask || !a.HasExclusiveVolume() {
		t.Errorf("driver %s, options %v, access %s", e.Driver(), e.DriverOptions(), e.Access())
	}
	plain := a.ForInstance(0).Container.Volumes[0].External
	if plain.Options["dvdi/driver"] != "rexray" || plain.Options["dvdi/iops"] != "100" || plain.Options["dvdi/class"] != "" {
		t.Errorf("for a task: %v", plain.Options)
	}
	if e.Options["dvdi/driver"] != "" {
		t.Error("the definition itself was changed")
	}
}

func TestClassAsItWasWhenFirstNamed(t *testing.T) {
	opts := classes(t)
	stored := parsed(t, classed("RW", fast, ""), opts)
	data, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	var reread App
	if err := json.Unmarshal(data, &reread); err != nil {
		t.Fatal(err)
	}
	opts.Classes["fast"] = VolumeClass{Name: "fast", Driver: "other", Access: AccessManyWriters}
	for what, body := range map[string]string{
		"scaled": `{"instances":0}`, "written back": string(data), "whole again": string(classed("RW", fast, "")),
	} {
		u, err := ParseUpdate([]byte(body), opts)
		if err != nil {
			t.Fatal(err)
		}
		next, err := u.Apply("/x", &reread, what == "scaled")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if e := next.Container.Volumes[0].External; e.Driver() != "rexray" || e.Access() != AccessOneTask {
			t.Errorf("%s: driver %s, access %s", what, e.Driver(), e.Access())
		}
	}
	delete(opts.Classes, "fast")
	u, err := ParseUpdate([]byte(`{"instances":0}`), opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Apply("/x", &reread, true); err != nil {
		t.Errorf("the class was removed: %v", err)
	}
	// Another volume is not the same one.
	if _, err := Parse(classed("RW", strings.Replace(fast, `"v"`, `"w"`, 1), ""), opts); err == nil {
		t.Error("a class that is not there any more was given to a new volume")
	}
}

func TestClientsCannotMakeAClass(t *testing.T) {
	forged := `{"provider":"dvdi","name":"v","options":{"dvdi/class":"fast"},"class":{"name":"fast","driver":"d","access":"many-writers","backendExclusive":true}}`
	e := parsed(t, classed("RW", forged, ""), classes(t)).Container.Volumes[0].External
	if e.Access() != AccessOneTask || e.Class.BackendExclusive || e.Driver() != "rexray" {
		t.Errorf("%+v", e.Class)
	}
	forged = `{"provider":"dvdi","name":"v","options":{"dvdi/driver":"d"},"class":{"name":"fast","driver":"d","access":"many-writers"}}`
	if e := parsed(t, classed("RW", forged, ""), classes(t)).Container.Volumes[0].External; e.Class != nil {
		t.Errorf("%+v", e.Class)
	}
}

func TestAccessOfClasses(t *testing.T) {
	volume := func(class, more string) string {
		return `{"provider":"dvdi","name":"v","options":{"dvdi/class":"` + class + `"}` + more + `}`
	}
	for _, tc := range []struct {
		mode, external, extra string
		access                string
		exclusive             bool
	}{
		{"RW", volume("agent", ""), "", AccessOneTask, true},
		{"RW", volume("agent", `,"shared":true`), "", AccessOneAgent, false},
		{"RW", volume("nfs", ""), `,"instances":5`, AccessManyWriters, false},
		{"RO", volume("images", ""), `,"instances":5`, AccessManyReaders, false},
	} {
		a := parsed(t, classed(tc.mode, tc.external, tc.extra), classes(t))
		if e := a.Container.Volumes[0].External; e.Access() != tc.access || a.HasExclusiveVolume() != tc.exclusive {
			t.Errorf("%s: access %s, exclusive %t", tc.external, e.Access(), a.HasExclusiveVolume())
		}
		// An unreachable instance is waited for only where nothing else keeps
		// it from writing on.
		backend := a.Container.Volumes[0].External.Class.BackendExclusive
		if a.Unreachable.Disabled != (tc.exclusive && !backend) {
			t.Errorf("%s: unreachable strategy %+v", tc.external, a.Unreachable)
		}
	}
	many := map[ID]*App{}
	for _, id := range []ID{"/a", "/b"} {
		a := parsed(t, classed("RW", volume("nfs", ""), ""), classes(t))
		a.ID = id
		many[id] = a
	}
	if err := ValidateAll(many, []ID{"/a", "/b"}); err != nil {
		t.Errorf("a volume for many: %v", err)
	}
}

func TestMisusedClasses(t *testing.T) {
	docker := dvdi(Docker, "RW", "/p", `{"provider":"dvdi","name":"v","options":{"dvdi/class":"fast"}}`, "")
	if _, err := Parse([]byte(docker), classes(t)); !says(err, `/container/volumes(0)/external/options("dvdi/class")`, "DOCKER") {
		t.Errorf("options that Docker would not get: %v", err)
	}
	docker = dvdi(Docker, "RW", "/p", `{"provider":"dvdi","name":"v","options":{"dvdi/class":"nfs"}}`, "")
	if _, err := Parse([]byte(docker), classes(t)); err != nil {
		t.Errorf("a class without options in a DOCKER container: %v", err)
	}
	for _, tc := range []struct{ mode, external, extra, path, text string }{
		{"RW", `{"provider":"dvdi","name":"v","options":{"dvdi/class":"none"}}`, "", `/container/volumes(0)/external/options("dvdi/class")`, "is no volume class; there are: [agent,fast,images,nfs]"},
		{"RW", `{"provider":"dvdi","name":"v","options":{"dvdi/class":"fast","dvdi/driver":"d"}}`, "", `/container/volumes(0)/external/options("dvdi/driver")`, "remove the option"},
		{"RW", `{"provider":"dvdi","name":"v","options":{"dvdi/class":"fast","dvdi/iops":"5"}}`, "", `/container/volumes(0)/external/options("dvdi/iops")`, "is set by the volume class fast"},
		{"RW", `{"provider":"dvdi","name":"v","shared":true,"options":{"dvdi/class":"fast"}}`, "", `/container/volumes(0)/external/shared`, "one task at a time"},
		{"RW", `{"provider":"dvdi","name":"v","options":{"dvdi/class":"images"}}`, "", `/container/volumes(0)/mode`, "must be RO"},
		{"RW", fast, `,"instances":2`, "/", "limited to 1"},
	} {
		_, err := Parse(classed(tc.mode, tc.external, tc.extra), classes(t))
		if !says(err, tc.path, tc.text) {
			t.Errorf("%s: %v", tc.external, err)
		}
	}
}

// says tells whether a *ValidationError has the text at the path.
func says(err error, path, text string) bool {
	var invalid *ValidationError
	if !errors.As(err, &invalid) {
		return false
	}
	for _, d := range invalid.Details {
		if d.Path == path && strings.Contains(strings.Join(d.Errors, "\n"), text) {
			return true
		}
	}
	return false
}

func TestMistakesInClasses(t *testing.T) {
	for text, c := range map[string]VolumeClass{
		"driver":    {},
		"access":    {Driver: "d", Access: "any"},
		"neither":   {Driver: "d", Reclaim: "recycle"},
		"exclude":   {Driver: "d", Reclaim: "delete", Access: AccessManyWriters},
		"fence":     {Driver: "d", Fence: "lease"},
		"dvdi/size": {Driver: "d", Options: map[string]string{"dvdi/size": "1"}},
		"dvdi.x":    {Driver: "d", Options: map[string]string{"dvdi.x": "1"}},
	} {
		if _, err := c.Complete("c"); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := (VolumeClass{Driver: "d"}).Complete("No Name"); err == nil {
		t.Error("a bad name was taken")
	}
}
