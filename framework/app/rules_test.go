package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// dvdi returns an app with one dvdi volume; extra are further members of the
// app, ext and opts of the volume's external section.
func dvdi(containerType, mode, path, external, extra string) string {
	docker := ""
	if containerType == Docker {
		docker = `"docker":{"image":"i"},`
	}
	return fmt.Sprintf(`{"id":"/x","cmd":"sleep 100"%s,"container":{"type":%q,%s"volumes":[{"containerPath":%q,"mode":%q,"external":%s}]}}`,
		extra, containerType, docker, path, mode, external)
}

func persistentApp(path, mode, info, extra string) string {
	return fmt.Sprintf(`{"id":"/x","cmd":"sleep 100"%s,"container":{"type":"MESOS","volumes":[{"containerPath":%q,"mode":%q,"persistent":%s}]}}`,
		extra, path, mode, info)
}

func simple(extra string) string { return `{"id":"/x","cmd":"sleep 100",` + extra + `}` }

// rule is a definition that breaks one rule, and the answer to it. Rows are
// those of the contract's section 10 that concern one definition, and what this
// project adds.
type rule struct {
	Row     string          `json:"row"`
	Body    json.RawMessage `json:"body"`
	Message string          `json:"message"` // of the whole answer
	Path    string          `json:"path"`
	Error   string          `json:"error"` // part of the text at Path
	Options *Options        `json:"options"`
}

func rules(t *testing.T) []rule {
	t.Helper()
	data, err := os.ReadFile("testdata/rules.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []rule
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	if len(out) < 100 {
		t.Fatalf("only %d rules", len(out))
	}
	return out
}

func TestRules(t *testing.T) {
	for _, c := range rules(t) {
		t.Run(c.Row, func(t *testing.T) {
			opts := everything
			if c.Options != nil {
				opts = *c.Options
			}
			_, err := Parse(c.Body, opts)
			var ve *ValidationError
			if !errors.As(err, &ve) {
				t.Fatalf("%s: got %v", c.Body, err)
			}
			if ve.Message != c.Message {
				t.Errorf("message %q, want %q: %v", ve.Message, c.Message, err)
			}
			if !hasDetail(err, c.Path, c.Error) {
				t.Errorf("want %s: %s\ngot  %v", c.Path, c.Error, err)
			}
		})
	}
}

// TestSanerThanMarathon has the quirks of Marathon that are not copied.
func TestSanerThanMarathon(t *testing.T) {
	for name, body := range map[string]string{
		"one character of cmd":      `{"id":"/a","cmd":"x"}`,
		"overwritefs false":         dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/overwritefs":"false"}}`, ""),
		"overwritefs true":          dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/overwritefs":"true"}}`, ""),
		"operator in lower case":    simple(`"constraints":[["hostname","unique"]]`),
		"UNLIKE for paths":          persistentApp("data", "RW", `{"type":"path","size":1,"constraints":[["path","UNLIKE","x"]]}`, ""),
		"apart from other apps":     persistentApp("data", "RW", `{"size":1,"shared":true}`, `,"instances":2,"constraints":[["rack","LIKE","a"],["hostname","MAX_PER","2"]]`),
		"shared by one":             persistentApp("data", "RW", `{"size":1,"shared":true}`, `,"constraints":[["hostname","UNIQUE"]]`),
		"GROUP_BY without value":    simple(`"constraints":[["zone","GROUP_BY"]]`),
		"shared in DOCKER":          dvdi(Docker, "RO", "/p", `{"provider":"dvdi","name":"n","shared":true,"options":{"dvdi/driver":"d"}}`, ""),
		"name with driver's syntax": dvdi(Mesos, "RW", "/p", `{"provider":"dvdi","name":"name=x,size=10","options":{"dvdi/driver":"pxd"}}`, ""),
		"whole number as a double":  simple(`"instances":1.0`),
		"enum in lower case":        simple(`"killSelection":"oldest_first"`),
	} {
		if _, err := Parse([]byte(body), everything); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllBreachesOfAStageAreReported(t *testing.T) {
	_, err := Parse([]byte(simple(`"instances":-1,"cpus":"x","mem":-1`)), everything)
	for _, path := range []string{"/instances", "/cpus", "/mem"} {
		if !hasDetail(err, path, "error.") {
			t.Errorf("%s is not reported: %v", path, err)
		}
	}
	_, err = Parse([]byte(dvdi(Mesos, "RO", ".", `{"provider":"dvdi","options":{}}`, `,"instances":2`)), everything)
	for _, path := range []string{"/", "/container/volumes(0)/mode", "/container/volumes(0)/containerPath", "/container/volumes(0)/external/name"} {
		if !hasDetail(err, path, "") {
			t.Errorf("%s is not reported: %v", path, err)
		}
	}
}

func TestResidentAppsKeepTheirResources(t *testing.T) {
	stored := mustParse(t, persistentApp("data", "RW", `{"size":10}`, ""))
	for _, c := range []struct{ body, path, message string }{
		{`{"cpus":2}`, "/cpus", "may not change resource requirements"},
		{`{"mem":2}`, "/mem", "may not change resource requirements"},
		{`{"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":11}}]}}`, "/", "Persistent volumes can not be changed!"},
		{`{"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":10,"shared":true}}]}}`, "/", "Persistent volumes can not be changed!"},
		{`{"container":{"type":"MESOS","volumes":[]}}`, "/", "Persistent volumes can not be changed!"},
		{`{"requirePorts":true,"portDefinitions":[{"port":80}]}`, "/", "may not change host ports"},
	} {
		u, err := ParseUpdate([]byte(c.body), everything)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = u.Apply("/x", stored, true); !hasDetail(err, c.path, c.message) {
			t.Errorf("%s: got %v", c.body, err)
		}
	}
	u, err := ParseUpdate([]byte(`{"cmd":"other","instances":3}`), everything)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Apply("/x", stored, true); err != nil {
		t.Errorf("an allowed change is refused: %v", err)
	}
}

func TestRolesOfGroups(t *testing.T) {
	group := Options{Role: "ops", GroupRole: true}
	for _, c := range []struct {
		body, role string
		opts       Options
	}{
		{`{"id":"/dev/a","cmd":"x"}`, "ops", Options{Role: "ops"}},
		{`{"id":"/dev/a","cmd":"x","role":"dev"}`, "dev", Options{Role: "ops"}},
		{`{"id":"/dev/a","cmd":"x"}`, "dev", group},
		{`{"id":"/a","cmd":"x"}`, "ops", group},
	} {
		a, err := Parse([]byte(c.body), c.opts)
		if err != nil || a.Role != c.role {
			t.Errorf("%s: got %+v, %v", c.body, a, err)
		}
	}
	if _, err := Parse([]byte(`{"id":"/dev/a","cmd":"x","role":"ops"}`), group); !hasDetail(err, "/role", "got ops, expected one of: [dev]") {
		t.Errorf("got %v", err)
	}
}

func set(apps ...*App) (map[ID]*App, []ID) {
	m := map[ID]*App{}
	var ids []ID
	for _, a := range apps {
		m[a.ID] = a
		ids = append(ids, a.ID)
	}
	return m, ids
}

func named(t *testing.T, id, volume string, shared bool) *App {
	t.Helper()
	return mustParse(t, fmt.Sprintf(`{"id":%q,"cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"p","mode":"RW",
		"external":{"provider":"dvdi","name":%q,"shared":%v,"options":{"dvdi/driver":"d"}}}]}}`, id, volume, shared))
}

func TestVolumeNamesAcrossApps(t *testing.T) {
	apps, ids := set(named(t, "/a", "vol", false), named(t, "/b", "vol", false), named(t, "/g/c", "other", false))
	err := ValidateAll(apps, ids)
	if !hasDetail(err, "/apps(1)/container", "Volume name 'vol' in /b conflicts with volume(s) of same name in app(s): /a") ||
		!hasDetail(err, "/apps(0)/container", "in /a conflicts") {
		t.Errorf("got %v", err)
	}
	if err := ValidateAll(apps, []ID{"/g/c"}); err != nil {
		t.Errorf("an old breach blocks another app: %v", err)
	}
	apps, ids = set(named(t, "/a", "vol", true), named(t, "/b", "vol", true))
	if err := ValidateAll(apps, ids); err != nil {
		t.Errorf("both share: %v", err)
	}
	apps, ids = set(named(t, "/x/y/a", "vol", true), named(t, "/b", "vol", false))
	if err := ValidateAll(apps, ids); !hasDetail(err, "/groups(0)/groups(0)/apps(0)/container", "in app(s): /b") {
		t.Errorf("one shares: %v", err)
	}
	if err := ValidateAll(apps, []ID{"/b"}); err == nil {
		t.Error("one shares, the other changes: accepted")
	}
}

func TestCSIVolumeNamesAcrossApps(t *testing.T) {
	for _, c := range []struct {
		access, mode string
		conflict     bool
	}{
		{SingleNodeWriter, "RW", true}, {MultiNodeSingleWriter, "RW", true}, {MultiNodeSingleWriter, "RO", false}, {MultiNodeMultiWriter, "RW", false},
	} {
		apps := map[ID]*App{}
		for _, id := range []string{"/a", "/b"} {
			a, err := Parse(fmt.Appendf(nil, `{"id":%q,"cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"/x","mode":%q,"external":{"provider":"csi","name":"v",
				"options":{"pluginName":"org.x","capability":{"accessMode":%q,"accessType":"block"}}}}]}}`, id, c.mode, c.access), withCSI)
			if err != nil {
				t.Fatal(err)
			}
			apps[a.ID] = a
		}
		if err := ValidateAll(apps, []ID{"/b"}); (err != nil) != c.conflict {
			t.Errorf("%s %s: got %v", c.access, c.mode, err)
		}
	}
}

func TestDependencyCycles(t *testing.T) {
	dep := func(id, on string) *App {
		return mustParse(t, fmt.Sprintf(`{"id":%q,"cmd":"x","dependencies":[%q]}`, id, on))
	}
	apps, ids := set(dep("/a", "/b"), dep("/b", "/g"), dep("/g/c", "/a"))
	if err := ValidateAll(apps, ids); !hasDetail(err, "/dependencies", "Dependency graph has cyclic dependencies.") {
		t.Errorf("got %v", err)
	}
	apps, ids = set(dep("/a", "/b"), dep("/b", "/g"), dep("/g/c", "/unknown"))
	if err := ValidateAll(apps, ids); err != nil {
		t.Errorf("got %v", err)
	}
	apps, ids = set(dep("/a", "/a"))
	if err := ValidateAll(apps, ids); err == nil {
		t.Error("an app may depend on itself")
	}
}

func TestAppAndGroupOfOneName(t *testing.T) {
	apps, _ := set(mustParse(t, `{"id":"/a","cmd":"x"}`), mustParse(t, `{"id":"/a/b/c","cmd":"x"}`))
	for id := range apps {
		if err := ValidateAll(apps, []ID{id}); !hasDetail(err, "/", "Groups and Applications may not have the same identifier.") {
			t.Errorf("%s: got %v", id, err)
		}
	}
}

// assignPorts does what posting one app does, where apps are all that are there.
func assignPorts(a *App, apps map[ID]*App, r PortRange) error {
	all := slices.AppendSeq([]*App{a}, maps.Values(apps))
	return NewServicePorts(slices.Values(all), r).Assign(a, apps[a.ID])
}

func TestAssignServicePorts(t *testing.T) {
	r := PortRange{Min: 10000, Max: 10004}
	a := mustParse(t, `{"id":"/a","cmd":"x","portDefinitions":[{"port":0},{"port":10001}]}`)
	if err := assignPorts(a, nil, r); err != nil {
		t.Fatal(err)
	}
	if p := a.ServicePorts(); p[0] != 10000 || p[1] != 10001 {
		t.Errorf("got %v", p)
	}
	b := mustParse(t, `{"id":"/b","cmd":"x","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{},{}]}}`)
	apps := map[ID]*App{"/a": a}
	if err := assignPorts(b, apps, r); err != nil {
		t.Fatal(err)
	}
	if p := b.ServicePorts(); p[0] != 10002 || p[1] != 10003 {
		t.Errorf("got %v", p)
	}
	apps["/b"] = b
	again := mustParse(t, `{"id":"/b","cmd":"y","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{},{"servicePort":10002}]}}`)
	if err := assignPorts(again, apps, r); err != nil {
		t.Fatal(err)
	}
	if p := again.ServicePorts(); p[0] != 10003 || p[1] != 10002 {
		t.Errorf("previous ports are not used again: %v", p)
	}
	c := mustParse(t, `{"id":"/c","cmd":"x"}`)
	err := assignPorts(c, apps, r)
	if err == nil || err.Error() != "All ports in the range [10000-10004) are already in use" {
		t.Errorf("got %v", err)
	}
}

// A persistent volume's id is made of the app's id and the container path, and
// Mesos allows it 255 bytes without slashes and control characters.
func TestContainerPathsThatMakeNoPersistenceID(t *testing.T) {
	body := func(id, path string) []byte {
		return fmt.Appendf(nil, `{"id":%q,"cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":%q,"mode":"RW","persistent":{"size":1}}]}}`, id, path)
	}
	long := "/" + strings.Repeat("a", 150)
	for _, c := range []struct {
		id, path, want string
	}{
		{"/x", `a\b`, "must not contain backslashes"},
		{"/x", "a\nb", "must not contain backslashes"},
		{long, strings.Repeat("p", 68), "must be shorter"},
		{long, strings.Repeat("p", 67), ""},
	} {
		_, err := Parse(body(c.id, c.path), everything)
		if c.want == "" {
			if err != nil {
				t.Errorf("%q: %v", c.path, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.path, err, c.want)
		}
	}
}

// Mesos passes one volume driver to Docker, and the container's name.
func TestWhatMesosDoesNotPassToDocker(t *testing.T) {
	body := func(kind, second string) []byte {
		return fmt.Appendf(nil, `{"id":"/x","cmd":"x","container":{"type":%q,"docker":{"image":"i"},"volumes":[
			{"containerPath":"/a","mode":"RW","external":{"provider":"dvdi","name":"a","shared":true,"options":{"dvdi/driver":"one"}}},
			{"containerPath":"/b","mode":"RW","external":{"provider":"dvdi","name":"b","shared":true,"options":{"dvdi/driver":%q}}}]}}`, kind, second)
	}
	_, err := Parse(body(Docker, "two"), everything)
	if err == nil || !strings.Contains(err.Error(), "must be of one driver in a DOCKER container") {
		t.Errorf("two drivers: %v", err)
	}
	_, err = Parse([]byte(`{"id":"/x","container":{"type":"DOCKER","docker":{"image":"i","parameters":[{"key":"hostname","value":"a"},{"key":"name","value":"n"}]}}}`), everything)
	if !hasDetail(err, "/container/docker/parameters(1)/key", "must not be name") {
		t.Errorf("a container's name: %v", err)
	}
	for _, fine := range [][]byte{body(Docker, "one"), body(Mesos, "two")} {
		if _, err := Parse(fine, everything); err != nil && strings.Contains(err.Error(), "one driver") {
			t.Errorf("%s: %v", fine, err)
		}
	}
}
