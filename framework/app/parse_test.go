package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// everything switches all features on, and has a volume class.
var everything = Options{Role: "prod", Secrets: true, GPUs: true, Classes: map[string]VolumeClass{
	"gold": {Name: "gold", Driver: "d", Options: map[string]string{"size": "5"}, Access: AccessOneAgent, Reclaim: ReclaimRetain, Fence: FenceNone},
}}

// withCSI also has volumes of provider csi.
var withCSI = Options{Role: "prod", Secrets: true, GPUs: true, CSI: true}

func mustParse(t *testing.T, body string) *App {
	t.Helper()
	a, err := Parse([]byte(body), everything)
	if err != nil {
		t.Fatalf("Parse(%s): %v", body, err)
	}
	return a
}

const dvdiApp = `{"id":"db","cmd":"run","container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
	"external":{"provider":"dvdi","name":"vol","size":5,"options":{"dvdi/driver":"local","dvdi/size":"3","other/x":"y","dvdi/fs":" ext4 "}}}]}}`

func TestParseFillsDefaults(t *testing.T) {
	a := mustParse(t, `{"id":"sleep","cmd":"sleep 1","ports":null,"dependencies":null,"unknown":{"x":1}}`)
	got, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"id":"/sleep","cmd":"sleep 1","instances":1,"cpus":1,"mem":128,"disk":0,"gpus":0,"executor":"",` +
		`"networks":[{"mode":"host"}],"portDefinitions":[{"port":0,"protocol":"tcp","name":"default","labels":{}}],"requirePorts":false,` +
		`"backoffSeconds":1,"backoffFactor":1.15,"maxLaunchDelaySeconds":300,` +
		`"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"labels":{},"role":"prod","killSelection":"YOUNGEST_FIRST",` +
		`"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}}`
	if !sameJSON(t, got, []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestDVDIVolume(t *testing.T) {
	a := mustParse(t, dvdiApp)
	vols := a.ExternalVolumes()
	if len(vols) != 1 {
		t.Fatalf("external volumes: %v", vols)
	}
	e := a.Container.Volumes[vols[0]].External
	if e.Driver() != "local" || !e.Exclusive() {
		t.Errorf("driver %q exclusive %v", e.Driver(), e.Exclusive())
	}
	if want := map[string]string{"size": "5", "fs": "ext4"}; !reflect.DeepEqual(e.DriverOptions(), want) {
		t.Errorf("driver options %v, want %v", e.DriverOptions(), want)
	}
	if a.Upgrade != managedUpgrade {
		t.Errorf("upgrade strategy %v", a.Upgrade)
	}
	if !a.Unreachable.Disabled {
		t.Error("an unreachable holder of an exclusive volume would be replaced by default")
	}
}

func TestSharedVolumeIsNotHeld(t *testing.T) {
	body := strings.Replace(dvdiApp, `"name":"vol"`, `"name":"vol","shared":true`, 1)
	if a := mustParse(t, body); a.Unreachable.Disabled || a.HasExclusiveVolume() {
		t.Errorf("shared volume is treated as exclusive: %+v", a.Unreachable)
	}
}

// corpus are definitions of many kinds; each must survive the ways through JSON.
var corpus = []string{
	`{"id":"/a","cmd":"x"}`,
	`{"id":"/g/a","args":["a","b"],"container":{"type":"MESOS","docker":{"image":"alpine"}},"networks":[{"mode":"container","name":"n","labels":{"a":"b"}}]}`,
	`{"id":"/a","cmd":"x","portDefinitions":[]}`,
	`{"id":"/a","cmd":"x","env":{"A":"b","S":{"secret":"s"}},"secrets":{"s":{"source":"/x"}},"resourceLimits":{"cpus":"unlimited","mem":512}}`,
	`{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":10}}]}}`,
	`{"id":"/a","container":{"type":"DOCKER","docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":80}]}},"healthChecks":[{},{"protocol":"COMMAND","command":{"value":"true"}}]}`,
	`{"id":"/a","cmd":"x","uris":["http://h/a.tgz","http://h/b"],"ports":[0,8080],"constraints":[["hostname","unique"]],"tty":true,"taskKillGracePeriodSeconds":0}`,
	`{"id":"/a","cmd":"x","ipAddress":{"networkName":"n","discovery":{"ports":[{"number":80,"name":"http","protocol":"tcp"}]}}}`,
	`{"id":"/a","cmd":"x","check":{"exec":{"command":{"argv":["a","b"]}}},"readinessChecks":[{"portName":"default"}],"unreachableStrategy":"disabled"}`,
	`{"id":"/a","cmd":"x","fetch":[{"uri":"file:///x","destPath":"y"}],"executorResources":{},"acceptedResourceRoles":["*","prod"],"dependencies":["b","/x/../c"]}`,
}

func TestOutputIsAcceptedAsInput(t *testing.T) {
	for _, body := range corpus {
		a := mustParse(t, body)
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(out, everything)
		if err != nil {
			t.Errorf("own output of %s refused: %v", body, err)
			continue
		}
		if !a.SameConfig(b) || a.Instances != b.Instances {
			again, _ := json.Marshal(b)
			t.Errorf("changed by a round trip:\n%s\n%s", out, again)
		}
	}
}

func TestStoredFormIsLossless(t *testing.T) {
	for _, body := range corpus {
		a := mustParse(t, body)
		a.Version = NewTimestamp(time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC))
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var b App
		if err := json.Unmarshal(out, &b); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if b.Version != a.Version || !a.SameConfig(&b) {
			t.Errorf("%s: read back as %+v", out, b)
		}
	}
}

func TestLegacyTranslation(t *testing.T) {
	a := mustParse(t, corpus[5])
	if a.Networks[0].Mode != BridgeNetwork || len(a.Container.PortMappings) != 1 || *a.Container.PortMappings[0].HostPort != 0 {
		t.Errorf("bridge: %+v %+v", a.Networks, a.Container.PortMappings)
	}
	if a.Health[0].PortIndex == nil || a.Health[1].PortIndex != nil {
		t.Errorf("health check ports: %+v", a.Health)
	}
	a = mustParse(t, corpus[6])
	if !a.Fetch[0].Extract || a.Fetch[1].Extract {
		t.Errorf("fetch: %+v", a.Fetch)
	}
	if len(a.Ports) != 2 || a.Ports[1].Port != 8080 {
		t.Errorf("ports: %+v", a.Ports)
	}
	a = mustParse(t, corpus[7])
	if a.Networks[0].Name != "n" || a.Container.PortMappings[0].ContainerPort != 80 || a.Container.PortMappings[0].HostPort != nil {
		t.Errorf("ip per container: %+v %+v", a.Networks, a.Container)
	}
	a = mustParse(t, corpus[9])
	if want := []ID{"/b", "/c"}; !reflect.DeepEqual(a.Dependencies, []ID{"/b", "/c"}) {
		t.Errorf("dependencies %v, want %v", a.Dependencies, want)
	}
}

func TestSyntaxErrors(t *testing.T) {
	cases := map[string]struct{ body, message, details string }{
		"cut off":       {`{"id":`, "Invalid JSON", "unexpected end"},
		"empty":         {"  \n", "Please specify data in JSON format", "No content"},
		"garbage":       {`{"id" 1}`, "Invalid JSON", "byte"},
		"trailing":      {`{} {}`, "Invalid JSON", "unexpected content"},
		"duplicate key": {`{"id":"/a","id":"/b"}`, "Invalid JSON", `duplicate property "id"`},
		"deep":          {strings.Repeat("[", 10000) + strings.Repeat("]", 10000), "Invalid JSON", "nested deeper"},
		"deep objects":  {strings.Repeat(`{"a":`, 10000), "Invalid JSON", "nested deeper"},
		"bad UTF-8":     {"{\"id\":\"/a\xff\"}", "Invalid JSON", "not valid UTF-8 at byte 9"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.body), everything)
			var se *SyntaxError
			if !errors.As(err, &se) {
				t.Fatalf("got %v", err)
			}
			if se.Message != c.message || !strings.Contains(se.Details, c.details) {
				t.Errorf("got %q / %q", se.Message, se.Details)
			}
		})
	}
}

func TestPartialUpdateKeepsWhatIsAbsent(t *testing.T) {
	stored := mustParse(t, `{"id":"/a","cmd":"x","labels":{"a":"1","b":"2"},"resourceLimits":{"mem":512},"executorResources":{"cpus":1},"portDefinitions":[]}`)
	u, err := ParseUpdate([]byte(`{"id":"a","instances":4,"ports":null,"dependencies":null,"labels":{"c":"3"}}`), everything)
	if err != nil {
		t.Fatal(err)
	}
	got, err := u.Apply("/a", stored, true)
	if err != nil {
		t.Fatal(err)
	}
	if got.Instances != 4 || got.Cmd != "x" || len(got.Ports) != 0 || got.Limits == nil || got.ExecutorRes == nil {
		t.Errorf("got %+v", got)
	}
	if !reflect.DeepEqual(got.Labels, map[string]string{"c": "3"}) {
		t.Errorf("labels are merged: %v", got.Labels)
	}
	full, err := ParseUpdate([]byte(`{"cmd":"y"}`), everything)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = full.Apply("/a", stored, false); err != nil {
		t.Fatal(err)
	}
	if got.Limits != nil || len(got.Labels) != 0 || len(got.Ports) != 1 {
		t.Errorf("full update keeps stored fields: %+v", got)
	}
}

func TestScaleOnlyIsSameConfig(t *testing.T) {
	for _, body := range corpus {
		stored := mustParse(t, body)
		u, err := ParseUpdate([]byte(`{"instances":3}`), everything)
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Apply(stored.ID, stored, true)
		if err != nil {
			t.Fatal(err)
		}
		if !got.SameConfig(stored) || got.Instances != 3 {
			t.Errorf("scaling changes the configuration of %s", body)
		}
		got.Labels = map[string]string{"new": "label"}
		if got.SameConfig(stored) {
			t.Error("a new label goes unnoticed")
		}
	}
}

func TestDefaultsFollowTheVolumes(t *testing.T) {
	volume := func(more string) string {
		return `{"container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW","external":{"provider":"dvdi","name":"v"` + more + `,"options":{"dvdi/driver":"d"}}}]}}`
	}
	a := mustParse(t, `{"id":"/db","cmd":"x"}`)
	for _, step := range []struct {
		update      string
		upgrade     UpgradeStrategy
		unreachable UnreachableStrategy
	}{
		{volume(`,"shared":true`), managedUpgrade, UnreachableStrategy{}},
		{volume(""), managedUpgrade, UnreachableStrategy{Disabled: true}},
		{`{"instances":0}`, managedUpgrade, UnreachableStrategy{Disabled: true}},
		{`{"container":{"type":"MESOS","volumes":[]}}`, defaultUpgrade, UnreachableStrategy{}},
		// What a user chose stays.
		{`{"unreachableStrategy":{"inactiveAfterSeconds":5,"expungeAfterSeconds":6},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`,
			UpgradeStrategy{}, UnreachableStrategy{InactiveAfterSeconds: 5, ExpungeAfterSeconds: 6}},
		{volume(""), UpgradeStrategy{}, UnreachableStrategy{InactiveAfterSeconds: 5, ExpungeAfterSeconds: 6}},
	} {
		u, err := ParseUpdate([]byte(step.update), everything)
		if err != nil {
			t.Fatal(err)
		}
		if a, err = u.Apply("/db", a, true); err != nil {
			t.Fatalf("%s: %v", step.update, err)
		}
		if a.Upgrade != step.upgrade || a.Unreachable != step.unreachable {
			t.Errorf("%s: got %+v %+v", step.update, a.Upgrade, a.Unreachable)
		}
	}
}

func TestUpdateOfNetworkDropsOtherKindOfPorts(t *testing.T) {
	stored := mustParse(t, `{"id":"/a","cmd":"x"}`)
	for _, body := range []string{`{"networks":[{"mode":"container/bridge"}]}`, `{"networks":[{"mode":"host"}]}`} {
		u, err := ParseUpdate([]byte(body), everything)
		if err != nil {
			t.Fatal(err)
		}
		if stored, err = u.Apply("/a", stored, true); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	}
	if len(stored.Ports) != 1 || len(stored.Container.PortMappings) != 0 {
		t.Errorf("ports %+v, mappings %+v", stored.Ports, stored.Container.PortMappings)
	}
}

func TestRollbackForm(t *testing.T) {
	u, err := ParseUpdate([]byte(`{"id":"/a","version":"2026-01-02T03:04:05.006Z"}`), everything)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := u.Rollback(); !ok || v.String() != "2026-01-02T03:04:05.006Z" {
		t.Errorf("got %v %v", v, ok)
	}
	if _, err = ParseUpdate([]byte(`{"version":"2026-01-02T03:04:05.006Z","cpus":1}`), everything); !hasDetail(err, "/", "may only be combined with the 'id' field") {
		t.Errorf("got %v", err)
	}
}

func hasDetail(err error, path, message string) bool {
	var ve *ValidationError
	if !errors.As(err, &ve) {
		return false
	}
	for _, d := range ve.Details {
		if d.Path == path && strings.Contains(strings.Join(d.Errors, "\n"), message) {
			return true
		}
	}
	return false
}

func TestCSIVolumes(t *testing.T) {
	body := func(mode string) []byte {
		return []byte(`{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"/x","mode":"RW","external":{"provider":"csi","name":"v",
			"options":{"pluginName":"org.x","capability":{"accessMode":"` + mode + `","accessType":"mount","fsType":"xfs","mountFlags":["a"]},"volumeContext":{"k":"v"}}}}]}}`)
	}
	for mode, exclusive := range map[string]bool{SingleNodeWriter: true, MultiNodeMultiWriter: false} {
		a, err := Parse(body(mode), withCSI)
		if err != nil {
			t.Fatal(err)
		}
		if a.HasExclusiveVolume() != exclusive || a.Upgrade != managedUpgrade {
			t.Errorf("%s: %+v", mode, a)
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var stored App
		if err := json.Unmarshal(out, &stored); err != nil || !stored.SameConfig(a) {
			t.Errorf("%s is read back as %+v, %v", out, stored, err)
		}
		if again, err := Parse(out, withCSI); err != nil || !again.SameConfig(a) {
			t.Errorf("%s: own output is refused or changed: %v", out, err)
		}
	}
}

func TestTimestamp(t *testing.T) {
	a, err := ParseTimestamp("2026-01-02T04:04:05.0061+01:00")
	if err != nil {
		t.Fatal(err)
	}
	if a.String() != "2026-01-02T03:04:05.006Z" {
		t.Errorf("got %s", a)
	}
	if b := NewTimestamp(time.Date(2026, 1, 2, 3, 4, 5, 6e6+1, time.UTC)); a != b {
		t.Errorf("%v != %v", a, b)
	}
	if _, err := ParseTimestamp("notatime"); err == nil || err.Error() != "Invalid timestamp provided 'notatime'. Expecting ISO-8601 datetime string." {
		t.Errorf("got %v", err)
	}
}

func TestIDs(t *testing.T) {
	for _, c := range []struct {
		in   string
		base ID
		want ID
	}{
		{"sleep", "", "/sleep"}, {"/a/b", "/x", "/a/b"}, {"b", "/x", "/x/b"}, {"../b", "/x/y", "/x/b"},
		{"/a//b/", "", "/a/b"}, {"a.b-c", "", "/a.b-c"}, {"/", "", "/"},
	} {
		if got, err := ResolveID(c.in, c.base); err != nil || got != c.want {
			t.Errorf("ResolveID(%q, %q) = %q, %v; want %q", c.in, c.base, got, err, c.want)
		}
	}
	for _, bad := range []string{"/App", "a_b", "-a", "a-", "/a/../../b", "a b"} {
		if got, err := ResolveID(bad, ""); err == nil {
			t.Errorf("ResolveID(%q) = %q", bad, got)
		}
	}
	id := ID("/a/b/c")
	if id.SafePath() != "a_b_c" || id.TaskName() != "c.b.a" || id.Parent() != "/a/b" || ID("/a").Parent() != Root {
		t.Errorf("%s %s %s", id.SafePath(), id.TaskName(), id.Parent())
	}
	if !id.Within("/a") || ID("/ab").Within("/a") || !id.Within(Root) || !id.Within(id) {
		t.Error("Within is wrong")
	}
}

// A dependency that is told in several ways is one, as are those of a group and of
// the app in it.
func TestDependenciesAreASet(t *testing.T) {
	if got := mustParse(t, `{"id":"/x","cmd":"x","dependencies":["/a","a","/b/../a","b"]}`).Dependencies; !slices.Equal(got, []ID{"/a", "/b"}) {
		t.Errorf("of an app: %v", got)
	}
	g, err := ParseGroup([]byte(`{"id":"g","dependencies":["/a"],"apps":[{"id":"x","cmd":"x","dependencies":["../a"]}]}`), Root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	apps, _, err := g.Apply(nil)
	if err != nil || !slices.Equal(apps[0].Dependencies, []ID{"/a"}) {
		t.Errorf("of a group: %v, %v", apps, err)
	}
}

// Marathon told the ports of an app twice before it had networks, and those of one
// off the host's network once more as port mappings.
func TestPortsThatAreToldTwice(t *testing.T) {
	const docker = `"container":{"type":"DOCKER","docker":{"image":"i","network":%q,"portMappings":%s}},`
	for _, c := range []struct {
		body string
		want []int
	}{
		{`{"id":"/x","cmd":"x","ports":[10100,0],"portDefinitions":[{"port":10100,"name":"a"},{"port":0}]}`, []int{10100, 0}},
		{`{"id":"/x","cmd":"x","ports":[],"portDefinitions":[{"port":10100}]}`, []int{10100}},
		{`{"id":"/x",` + fmt.Sprintf(docker, "BRIDGE", `[{"containerPort":80,"servicePort":10200}]`) + `"ports":[10200],"portDefinitions":[{"port":10200}]}`, []int{10200}},
		{`{"id":"/x",` + fmt.Sprintf(docker, "BRIDGE", `[{"containerPort":80}]`) + `"portDefinitions":[{"port":10200}]}`, []int{10200}},
		{`{"id":"/x",` + fmt.Sprintf(docker, "USER", `[{"containerPort":80,"servicePort":10200}]`) + `"ipAddress":{"networkName":"n"},"portDefinitions":[{"port":10300}]}`, []int{10200}},
		{`{"id":"/x",` + fmt.Sprintf(docker, "HOST", `[]`) + `"ports":[80],"portDefinitions":[{"port":80}]}`, []int{80}},
	} {
		if got := mustParse(t, c.body).ServicePorts(); !slices.Equal(got, c.want) {
			t.Errorf("%s: service ports %v, want %v", c.body, got, c.want)
		}
	}
	for _, body := range []string{
		`{"id":"/x","cmd":"x","ports":[1],"portDefinitions":[{"port":2}]}`,
		`{"id":"/x",` + fmt.Sprintf(docker, "BRIDGE", `[]`) + `"ports":[1],"portDefinitions":[{"port":2}]}`,
	} {
		if _, err := Parse([]byte(body), Options{}); !says(err, "/", "cannot specify both ports and port definitions") {
			t.Errorf("%s: %v", body, err)
		}
	}
}
