package api

import (
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// A volume that nobody claims shows while it is bound to a place, and so does what
// is reserved somewhere without anybody's running on it.
func TestWhatNobodyClaimsIsListed(t *testing.T) {
	w := start(t, everything())
	w.core.bound = []core.BoundView{{Key: scheduler.VolumeKey{Driver: "d", Name: "v"}, App: "/a", AgentID: "S1", Hostname: "h1", Epoch: 3, Text: "it is there"}}
	w.core.leftovers = []core.LeftoverView{
		{AgentID: "S2", Hostname: "h2", InstanceID: "x", PersistenceIDs: []string{"x#data"}, Bytes: 1 << 20, Text: "left alone"}, {AgentID: "S2", InstanceID: "y"}}
	a := w.ok(200, "GET", "/v2/volumes", "")
	a.wants("bound", "volumes", 0, "state")
	a.wants("v", "volumes", 0, "name")
	a.wants("/a", "volumes", 0, "apps", 0)
	a.wants("h1", "volumes", 0, "hostname")
	a.wants("it is there", "volumes", 0, "text")
	a.wants("h2", "leftovers", 0, "hostname")
	a.wants("x", "leftovers", 0, "instance")
	a.wants("x#data", "leftovers", 0, "persistenceIds", 0)
	a.wants("left alone", "leftovers", 0, "text")
	a.wants(float64(1<<20), "leftovers", 0, "bytes")
	if ids := a.at("leftovers", 1, "persistenceIds"); len(ids.([]any)) != 0 {
		t.Errorf("volumes %v of a leftover without any", ids)
	}
}

func TestVolumeClassesAreListed(t *testing.T) {
	cfg := everything()
	class, err := app.VolumeClass{Driver: "d", Options: map[string]string{"a": "b"}, ExplicitCreate: true}.Complete("fast")
	if err != nil {
		t.Fatal(err)
	}
	cfg.App.Classes = map[string]app.VolumeClass{"fast": class}
	w := start(t, cfg)
	a := w.ok(200, "GET", "/v2/volume-classes", "")
	a.wants("fast", "classes", 0, "name")
	a.wants("b", "classes", 0, "options", "a")
	body := strings.Replace(external("/x"), `"dvdi/driver":"d"`, `"dvdi/class":"fast"`, 1)
	w.ok(201, "POST", "/v2/apps", body).wants("d", "container", "volumes", 0, "external", "class", "driver")
	if got := w.ok(200, "GET", "/v2/apps/x", "").at("app", "container", "volumes", 0, "external", "options"); len(got.(map[string]any)) != 1 {
		t.Errorf("options %v", got)
	}
}
