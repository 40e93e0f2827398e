package api

import (
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

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
