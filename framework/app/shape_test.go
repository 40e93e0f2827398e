package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// full are definitions that together use every field.
var full = []string{
	`{"id":"/a","cmd":"x","user":"u","env":{"A":"b"},"instances":1,"cpus":1,"mem":2,"disk":3,"gpus":0,
		"resourceLimits":{"cpus":2},"executor":"//cmd","executorResources":{"cpus":1,"mem":64,"disk":20},
		"constraints":[["hostname","UNIQUE"]],"fetch":[{"uri":"u","extract":true,"executable":true,"cache":true,"destPath":"p"}],
		"portDefinitions":[{"port":1,"protocol":"tcp","name":"n","labels":{"a":"b"}}],"requirePorts":true,
		"healthChecks":[{"protocol":"COMMAND","command":{"value":"x"},"gracePeriodSeconds":1,"intervalSeconds":2,"timeoutSeconds":1,"maxConsecutiveFailures":1,"delaySeconds":1},
			{"protocol":"HTTP","path":"/","portIndex":0,"port":1,"ignoreHttp1xx":true,"ipProtocol":"IPv4"}],
		"check":{"http":{"portIndex":0,"port":1,"path":"/","scheme":"HTTP"},"intervalSeconds":1,"timeoutSeconds":1,"delaySeconds":1},
		"readinessChecks":[{"name":"r","protocol":"HTTP","path":"/","portName":"n","intervalSeconds":2,"timeoutSeconds":1,"httpStatusCodesForReady":[200],"preserveLastResponse":true}],
		"dependencies":["/b"],"backoffSeconds":1,"backoffFactor":2,"maxLaunchDelaySeconds":3,
		"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"labels":{"a":"b"},"acceptedResourceRoles":["*"],"role":"prod",
		"secrets":{"s":{"source":"x"}},"taskKillGracePeriodSeconds":1,"killSelection":"YOUNGEST_FIRST",
		"unreachableStrategy":{"inactiveAfterSeconds":1,"expungeAfterSeconds":2},"tty":true,"networks":[{"mode":"host"}]}`,
	`{"id":"/a","args":["x"],"networks":[{"mode":"container","name":"n","labels":{"a":"b"}}],
		"container":{"type":"MESOS","docker":{"image":"i","forcePullImage":true,"privileged":false,"parameters":[]},
			"linuxInfo":{"seccomp":{"profileName":"p","unconfined":false},"ipcInfo":{"mode":"PRIVATE","shmSize":1}},
			"portMappings":[{"containerPort":1,"hostPort":2,"servicePort":3,"protocol":"udp,tcp","name":"n","labels":{"a":"b"},"networkNames":["n"]}],
			"volumes":[{"containerPath":"a","mode":"RO","hostPath":"/h"},
				{"containerPath":"e","mode":"RW","external":{"provider":"dvdi","name":"n","size":1,"shared":true,"options":{"dvdi/driver":"d"}}}]},
		"check":{"tcp":{"portIndex":0,"port":1}}}`,
	`{"id":"/a","cmd":"x","check":{"exec":{"command":{"shell":"x"}}},"residency":{"relaunchEscalationTimeoutSeconds":1,"taskLostBehavior":"WAIT_FOREVER"},
		"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"type":"mount","size":1,"maxSize":2,"profileName":"p","constraints":[["path","LIKE","x"]]}}]}}`,
	`{"id":"/a","uris":["u"],"ports":[1],"container":{"type":"DOCKER","docker":{"image":"i","network":"BRIDGE","portMappings":[{"containerPort":1}],"parameters":[{"key":"k","value":"v"}]}}}`,
	`{"id":"/a","cmd":"x","ipAddress":{"groups":["g"],"labels":{"a":"b"},"networkName":"n","discovery":{"ports":[{"number":1,"name":"n","protocol":"tcp","labels":{"a":"b"}}]}}}`,
}

func TestFullDefinitionsAreValid(t *testing.T) {
	for _, body := range full {
		mustParse(t, body)
	}
}

// place is a value in a tree, with what puts another one there.
type place struct {
	path  string
	value any
	set   func(any)
}

func places(path string, v any) []place {
	var out []place
	switch v := v.(type) {
	case map[string]any:
		for k, member := range v {
			sub := path + "/" + k
			out = append(out, place{sub, member, func(x any) { v[k] = x }})
			out = append(out, places(sub, member)...)
		}
	case []any:
		for i, e := range v {
			sub := indexed(path, i)
			out = append(out, place{sub, e, func(x any) { v[i] = x }})
			out = append(out, places(sub, e)...)
		}
	}
	return out
}

// wrong are values of other types than v's.
func wrong(path string, v any) []any {
	all := []any{"text", json.Number("1"), true, map[string]any{}, []any{}}
	var out []any
	for _, w := range all {
		same := fmt.Sprintf("%T", w) == fmt.Sprintf("%T", v)
		_, text := w.(string)
		_, object := w.(map[string]any)
		either := strings.HasPrefix(path, "/resourceLimits/") && text || // "unlimited"
			path == "/unreachableStrategy" && text || path == "/env/A" && object
		if !same && !either {
			out = append(out, w)
		}
	}
	return out
}

// TestWrongTypesAreReportedWhereTheyAre puts values of wrong types at every
// place of definitions that use every field.
func TestWrongTypesAreReportedWhereTheyAre(t *testing.T) {
	tried := 0
	for _, body := range full {
		tree, err := decodeTree([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range places("", tree) {
			for _, w := range wrong(p.path, p.value) {
				tried++
				p.set(w)
				data, err := json.Marshal(tree)
				if err != nil {
					t.Fatal(err)
				}
				_, err = Parse(data, everything)
				p.set(p.value)
				var ve *ValidationError
				if !errors.As(err, &ve) || ve.Message != msgShape || !hasDetail(err, p.path, "error.") {
					t.Errorf("%T at %s: got %v", w, p.path, err)
				}
			}
		}
	}
	if tried < 500 {
		t.Errorf("only %d values were tried", tried)
	}
}

func TestMissingMembersAreNamed(t *testing.T) {
	for _, c := range []struct{ body, path string }{
		{`{"id":"/a","cmd":"x","fetch":[{}]}`, "/fetch(0)/uri"},
		{`{"id":"/a","container":{"docker":{}}}`, "/container/docker/image"},
		{`{"id":"/a","container":{"docker":{"image":"i","parameters":[{"key":"k"}]}}}`, "/container/docker/parameters(0)/value"},
		{`{"id":"/a","cmd":"x","env":{"A":{}}}`, "/env/A/secret"},
		{`{"id":"/a","cmd":"x","secrets":{"s":{}}}`, "/secrets/s/source"},
		{`{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"mode":"RW","hostPath":"x"}]}}`, "/container/volumes(0)/containerPath"},
		{`{"id":"/a","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"a","hostPath":"x"}]}}`, "/container/volumes(0)/mode"},
		{`{"id":"/a","cmd":"x","check":{"exec":{"command":{}}}}`, "/check/exec/command/shell"},
		{`{"id":"/a","cmd":"x","ipAddress":{"discovery":{"ports":[{"name":"n"}]}}}`, "/ipAddress/discovery/ports(0)/number"},
	} {
		if _, err := Parse([]byte(c.body), everything); !hasDetail(err, c.path, "is undefined on object: {") {
			t.Errorf("%s: got %v", c.body, err)
		}
	}
}

func TestLongObjectsAreCutInMessages(t *testing.T) {
	_, err := Parse([]byte(`{"cmd":"`+strings.Repeat("é", 10000)+`"}`), everything)
	if err == nil || len(err.Error()) > 600 || strings.ContainsRune(err.Error(), '�') {
		t.Errorf("got %.700v", err)
	}
}

func TestBoundsOfText(t *testing.T) {
	for _, c := range []struct{ body, path, message string }{
		{`{"id":"/a","cmd":""}`, "/cmd", errMinLength},
		{`{"id":"/a","cmd":"x","fetch":[{"uri":"` + strings.Repeat("u", 1025) + `"}]}`, "/fetch(0)/uri", errMaxLength},
		{`{"id":"/a","cmd":"x","portDefinitions":[{"name":"-"}]}`, "/portDefinitions(0)/name", errPattern},
		{`{"id":"/a","cmd":"x","portDefinitions":[{"port":65536}]}`, "/portDefinitions(0)/port", errMax},
		{`{"id":"/a","cmd":"x","dependencies":["A"]}`, "/dependencies(0)", errPattern},
		{`{"id":"/a","cmd":"x","killSelection":"RANDOM"}`, "/killSelection", errEnum},
		{`{"id":"/a","cmd":"x","unreachableStrategy":"enabled"}`, "/unreachableStrategy", errEnum},
		{`{"id":"/a","cmd":"x","mem":1e999}`, "/mem", errNumber},
		{`{"id":"/a","cmd":"x","mem":1e300}`, "/mem", errMax},
		{`{"id":"/a","cmd":"x","backoffFactor":1e9}`, "/backoffFactor", errMax},
		{`{"id":"/a","cmd":"x","maxLaunchDelaySeconds":1e18}`, "/maxLaunchDelaySeconds", errMax},
		{`{"id":"/a","cmd":"x","instances":100001}`, "/instances", "got 100001, expected 100000 or less"},
		{`{"id":"/a","cmd":"x","instances":99999999999}`, "/instances", errMax},
		{`{"id":"/a","cmd":"x","env":{"":"x"}}`, "/env/", errMinLength},
		{`{"id":"/a","cmd":"x","check":{"exec":{"command":{"argv":[]}}}}`, "/check/exec/command/argv", errMinLength},
	} {
		if _, err := Parse([]byte(c.body), everything); !hasDetail(err, c.path, c.message) {
			t.Errorf("%s: got %v", c.body, err)
		}
	}
}

func TestOldServicePortsOfBridge(t *testing.T) {
	a := mustParse(t, `{"id":"/a","ports":[9000,0,9001],"container":{"type":"DOCKER","docker":{"image":"i","network":"BRIDGE",
		"portMappings":[{"containerPort":80},{"containerPort":81,"servicePort":9100}]}}}`)
	if got := fmt.Sprint(a.ServicePorts()); got != "[9000 9100 9001]" {
		t.Errorf("service ports %s", got)
	}
}

func TestOldNetworks(t *testing.T) {
	docker := func(network, more string) string {
		return `{"id":"/a","container":{"docker":{"image":"i","network":"` + network + `","portMappings":[{"containerPort":80}]}}` + more + `}`
	}
	for _, c := range []struct {
		body, want string
		opts       Options
	}{
		{docker("HOST", ""), "[{host  map[]}]", everything},
		{docker("USER", `,"ipAddress":{"networkName":"n","labels":{"a":"b"}}`), "[{container n map[a:b]}]", everything},
		{docker("USER", ""), "[{container fallback map[]}]", Options{DefaultNetwork: "fallback"}},
		{`{"id":"/a","cmd":"x","ipAddress":{"networkName":"mesos-bridge"}}`, "[{container/bridge  map[]}]", everything},
	} {
		a, err := Parse([]byte(c.body), c.opts)
		if err != nil || fmt.Sprint(a.Networks) != c.want {
			t.Errorf("%s: got %+v, %v", c.body, a, err)
		}
	}
	for _, c := range []struct{ body, path, message string }{
		{docker("NONE", ""), "/container/docker/network", "unsupported docker network type NONE"},
		{docker("USER", `,"ipAddress":{"discovery":{"ports":[{"number":1,"name":"n"}]}}`), "/ipAddress", "not allowed for Docker containers"},
		{`{"id":"/a","container":{"docker":{"image":"i","portMappings":[{}]},"portMappings":[{}]}}`, "/container/docker/portMappings", "cannot specify both"},
		{`{"id":"/a","cmd":"x","container":{"type":"MESOS","portMappings":[{}]},"ipAddress":{"discovery":{"ports":[{"number":1,"name":"n"}]}}}`, "/", "must not both be set"},
	} {
		if _, err := Parse([]byte(c.body), everything); !hasDetail(err, c.path, c.message) {
			t.Errorf("%s: got %v", c.body, err)
		}
	}
}

func TestContainerRules(t *testing.T) {
	mesos := func(more string) string { return `{"id":"/a","cmd":"x","container":{"type":"MESOS",` + more + `}}` }
	for _, c := range []struct{ body, path, message string }{
		{`{"id":"/a","container":{"type":"DOCKER","docker":{"image":"i"},"linuxInfo":{}}}`, "/container/linuxInfo", "must be empty"},
		{`{"id":"/a","container":{"type":"DOCKER","docker":{"image":"i","credential":{"principal":"p"}}}}`, "/container/docker/credential", "must be empty"},
		{mesos(`"docker":{"image":"i","pullConfig":{"secret":"s"}}`), "/container/docker/pullConfig", "pullConfig.secret must refer to an existing secret"},
		{mesos(`"linuxInfo":{"seccomp":{}}`), "/container/linuxInfo/seccomp", "must define either profileName or unconfined"},
		{mesos(`"linuxInfo":{"seccomp":{"profileName":"p","unconfined":true}}`), "/container/linuxInfo/seccomp", "must define either"},
	} {
		if _, err := Parse([]byte(c.body), everything); !hasDetail(err, c.path, c.message) {
			t.Errorf("%s: got %v", c.body, err)
		}
	}
}

func TestErrorsAreReadable(t *testing.T) {
	_, err := Parse([]byte(`{"id":"/a","cmd":"x","cpus":-1,"mem":"1"}`), everything)
	if got, want := err.Error(), "Invalid JSON: /cpus: error.min; /mem: error.expected.jsnumber"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	_, err = Parse([]byte(`[`), everything)
	if got := err.Error(); !strings.HasPrefix(got, "Invalid JSON: unexpected end of input") {
		t.Errorf("got %q", got)
	}
}
