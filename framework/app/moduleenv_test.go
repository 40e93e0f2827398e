package app

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
)

func TestVariablesOfTheOldModule(t *testing.T) {
	a := parsed(t, []byte(`{"id":"/x","cmd":"x","env":{
		"DVDI_VOLUME_NAME":"testing","DVDI_VOLUME_DRIVER":"platform1","DVDI_VOLUME_OPTS":"size=5, iops=150,newfstype=ext4",
		"DVDI_VOLUME_NAME1":"a/b","DVDI_VOLUME_NAME9":"last","DVDI_VOLUME_CONTAINERPATH9":"/srv/data","OTHER":"1"}}`), Options{})
	type volume struct {
		path, name, driver string
		options            map[string]string
	}
	want := []volume{
		{"testing", "testing", "platform1", map[string]string{"size": "5", "iops": "150", "newfstype": "ext4"}},
		{"dvdi-volume1", "a/b", "rexray", nil},
		{"/srv/data", "last", "rexray", nil},
	}
	if a.Container == nil || a.Container.Type != Mesos || len(a.Container.Volumes) != len(want) {
		t.Fatalf("container %+v", a.Container)
	}
	for i, w := range want {
		v := a.Container.Volumes[i]
		if v.ContainerPath != w.path || v.External.Name != w.name || v.External.Driver() != w.driver ||
			!maps.Equal(v.External.DriverOptions(), w.options) || v.Mode != "RW" {
			t.Errorf("volume %d: %+v %+v", i, v, v.External)
		}
	}
	if !a.Unreachable.Disabled || a.Upgrade != managedUpgrade {
		t.Error("the strategies are not those of an app with volumes")
	}
	if d := a.Deprecations(); len(d) != 3 || !strings.Contains(d[0], "DVDI_VOLUME_NAME is deprecated") || !strings.Contains(d[0], "testing") {
		t.Errorf("deprecations %v", d)
	}
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	again := parsed(t, data, Options{})
	if !again.SameConfig(a) {
		t.Errorf("written back it is %+v", again.Container)
	}
}

func TestVariablesOfTheOldModuleInAnUpdate(t *testing.T) {
	stored := parsed(t, []byte(`{"id":"/x","cmd":"x"}`), Options{})
	u, err := ParseUpdate([]byte(`{"env":{"DVDI_VOLUME_NAME":"v"}}`), Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := u.Apply("/x", stored, true)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Unreachable.Disabled || a.Upgrade != managedUpgrade || !a.HasExclusiveVolume() {
		t.Errorf("the app got a volume but is not held: %+v %+v", a.Unreachable, a.Upgrade)
	}
}

func TestVariablesOfTheOldModuleInDocker(t *testing.T) {
	a := parsed(t, []byte(`{"id":"/x","container":{"type":"DOCKER","docker":{"image":"i"}},"env":{"DVDI_VOLUME_NAME":"v"}}`), Options{})
	if len(a.Container.Volumes) != 0 {
		t.Errorf("volumes %+v", a.Container.Volumes)
	}
	if d := a.Deprecations(); len(d) != 1 || !strings.Contains(d[0], "no effect") {
		t.Errorf("deprecations %v", d)
	}
}

func TestMistakesInVariablesOfTheOldModule(t *testing.T) {
	for body, at := range map[string][2]string{
		`{"id":"/x","cmd":"x","env":{"DVDI_VOLUME_NAME":""}}`:                                             {"/env/DVDI_VOLUME_NAME", "must not be empty"},
		`{"id":"/x","cmd":"x","env":{"DVDI_VOLUME_NAME":"v","DVDI_VOLUME_OPTS":"size"}}`:                  {"/env/DVDI_VOLUME_OPTS", "name=value"},
		`{"id":"/x","cmd":"x","instances":2,"env":{"DVDI_VOLUME_NAME":"v"}}`:                              {"/", "limited to 1"},
		`{"id":"/x","cmd":"x","env":{"DVDI_VOLUME_NAME2":{"secret":"s"}},"secrets":{"s":{"source":"x"}}}`: {"/env/DVDI_VOLUME_NAME2", "must be text"},
		`{"id":"/x","cmd":"x","env":{"DVDI_VOLUME_NAME":"v","DVDI_VOLUME_OPTS":"dvdi.epoch=1"}}`:          {`/container/volumes(0)/external/options("dvdi/dvdi.epoch")`, "reserved"},
	} {
		if _, err := Parse([]byte(body), Options{Secrets: true}); !says(err, at[0], at[1]) {
			t.Errorf("%s: %v", body, err)
		}
	}
}
