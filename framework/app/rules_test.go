package app

import (
	"errors"
	"fmt"
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

const goodExternal = `{"provider":"dvdi","name":"vol","options":{"dvdi/driver":"local"}}`

func simple(extra string) string { return `{"id":"/x","cmd":"sleep 100",` + extra + `}` }

// rules are the rows of contract section 10 that concern one definition, and
// what this project adds. kind S is a shape error, V a semantic one.
var rules = []struct {
	row, body, kind, path, message string
	opts                           *Options
}{
	{"3", `{"cmd":"sleep 1"}`, "S", "/id", "'id' is undefined on object", nil},
	{"4", `{"id":1,"cmd":"x"}`, "S", "/id", "error.expected.jsstring", nil},
	{"5", `{"id":"/App","cmd":"x"}`, "S", "/id", "error.pattern", nil},
	{"6", `{"id":"/a/restart","cmd":"x"}`, "V", "/id", "must not end with any of the following reserved keywords: restart, tasks, versions, ., ..", nil},
	{"7", `{"id":"/","cmd":"x"}`, "V", "/id", "Path must contain at least one path element", nil},
	{"8", `{"id":"/a"}`, "V", "/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.", nil},
	{"8 both", `{"id":"/a","cmd":"x","args":["y"]}`, "V", "/", "AppDefinition must either contain one of 'cmd' or 'args'", nil},
	{"9", simple(`"instances":-3`), "S", "/instances", "error.min", nil},
	{"10 cpus", simple(`"cpus":-1`), "S", "/cpus", "error.min", nil},
	{"10 mem", simple(`"mem":-3`), "S", "/mem", "error.min", nil},
	{"11", simple(`"instances":"2"`), "S", "/instances", "error.expected.jsnumber", nil},
	{"11 fraction", simple(`"instances":1.5`), "S", "/instances", "error.expected.int", nil},
	{"12", simple(`"upgradeStrategy":{"minimumHealthCapacity":1.2,"maximumOverCapacity":1}`), "V", "/upgradeStrategy/minimumHealthCapacity", "got 1.2, expected between 0.0 and 1.0", nil},
	{"13", simple(`"upgradeStrategy":{"minimumHealthCapacity":1}`), "S", "/upgradeStrategy/maximumOverCapacity", "undefined on object", nil},
	{"14", simple(`"backoffFactor":0.5`), "S", "/backoffFactor", "error.min", nil},
	{"15", simple(`"executor":"//"`), "V", "/executor", "must fully match regular expression '^(//cmd)|(/?[^/]+(/[^/]+)*)|$'", nil},
	{"16", simple(`"constraints":[["hostname","FOO","x"]]`), "V", "/constraints(0)", "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS", nil},
	{"17", simple(`"constraints":[["hostname","UNIQUE","x"]]`), "V", "/constraints(0)", "UNIQUE does not accept a value", nil},
	{"18", simple(`"constraints":[["hostname","MAX_PER"]]`), "V", "/constraints(0)", "MAX_PER requires an integer value", nil},
	{"19", simple(`"constraints":[["hostname","LIKE"]]`), "V", "/constraints(0)", "LIKE and UNLIKE require a non-empty, regular expression value", nil},
	{"19 regex", simple(`"constraints":[["hostname","LIKE","(("]]`), "V", "/constraints(0)", "is not a valid regular expression", nil},
	{"20", simple(`"constraints":[["hostname"]]`), "V", "/constraints(0)", "Each constraint must have either 2 or 3 fields", nil},
	{"20 IS", simple(`"constraints":[["hostname","IS","{a}"]]`), "V", "/constraints(0)", "IS only supports Mesos text and float values", nil},
	{"20 GROUP_BY", simple(`"constraints":[["hostname","GROUP_BY","a"]]`), "V", "/constraints(0)", "GROUP BY must define an integer value", nil},
	{"21", simple(`"fetch":[{"uri":":// bad"}]`), "V", "/fetch(0)/uri", "URI has invalid syntax.", nil},
	{"22", simple(`"uris":["http://a"],"fetch":[{"uri":"http://b"}]`), "V", "/uris", "may not be set in conjunction with fetch", nil},
	{"23", simple(`"ports":[80,80]`), "V", "/", "ports must be unique", nil},
	{"23 both", simple(`"ports":[1],"portDefinitions":[{"port":2}]`), "V", "/", "cannot specify both ports and port definitions", nil},
	{"24 name", simple(`"portDefinitions":[{"name":"a"},{"name":"a"}]`), "V", "/portDefinitions", "Port names must be unique.", nil},
	{"24 port", simple(`"portDefinitions":[{"port":1},{"port":1}]`), "V", "/portDefinitions", "Ports must be unique.", nil},
	{"25", simple(`"container":{"type":"MESOS","portMappings":[{"containerPort":1}]}`), "V", "/", "portMappings are not allowed with host-networking", nil},
	{"26", simple(`"networks":[{"mode":"container/bridge"}],"portDefinitions":[{"port":1}]`), "V", "/", "portDefinitions are only allowed with host-networking", nil},
	{"27", simple(`"networks":[{"mode":"container"}]`), "V", "/networks", "Network name must be specified when container network is selected.", nil},
	{"28", simple(`"networks":[{"mode":"host"},{"mode":"container/bridge"}]`), "V", "/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks", nil},
	{"28 same", simple(`"networks":[{"name":"a"},{"name":"a"}]`), "V", "/networks", "Duplicate networks are not allowed", nil},
	{"28 name", simple(`"networks":[{"mode":"host","name":"a"}]`), "V", "/networks(0)", "Host networks may not have names or labels", nil},
	{"28 hostPort", simple(`"networks":[{"name":"a"},{"name":"b"}],"container":{"type":"MESOS","portMappings":[{"hostPort":0}]}`), "V", "/container/portMappings(0)", "networkNames must be a single item list", nil},
	{"28 unknown", simple(`"networks":[{"name":"a"}],"container":{"type":"MESOS","portMappings":[{"networkNames":["z"]}]}`), "V", "/container/portMappings(0)/networkNames(0)", "is not one of (a)", nil},
	{"29", simple(`"healthChecks":[{"portIndex":7}]`), "V", "/healthChecks(0)", "Health check port indices must address an element of the ports array or container port mappings.", nil},
	{"30", simple(`"healthChecks":[{"protocol":"MESOS_HTTP"},{"protocol":"MESOS_HTTP"}]`), "V", "/", "AppDefinition can contain at most one Mesos health check", nil},
	{"30 command", simple(`"healthChecks":[{"protocol":"COMMAND"}]`), "V", "/healthChecks(0)/command", "not defined", nil},
	{"31", simple(`"container":{"type":"DOCKER"}`), "V", "/container/docker", "not defined", nil},
	{"31 no type", simple(`"container":{}`), "V", "/container/docker", "not defined", nil},
	{"32", simple(`"container":{"type":"MESOS","docker":{"image":"i","parameters":[{"key":"a","value":"b"}]}}`), "V", "/container/docker/parameters", "must be empty", nil},
	{"32 network", simple(`"container":{"type":"MESOS","docker":{"image":"i","network":"BRIDGE"}}`), "V", "/container/docker/network", "must be empty", nil},
	{"32 portMappings", simple(`"container":{"type":"MESOS","docker":{"image":"i","portMappings":[{}]}}`), "V", "/container/docker/portMappings", "must be empty", nil},
	{"32 mixed", simple(`"networks":[{"mode":"host"}],"container":{"docker":{"image":"i","network":"BRIDGE"}}`), "V", "/", "must not specify both container.docker.network and networks", nil},
	{"32 ipAddress", simple(`"networks":[{"mode":"host"}],"ipAddress":{}`), "V", "/", "must not specify both networks and ipAddress", nil},
	{"33", simple(`"container":{"type":"DOCKER","docker":{"image":"i","pullConfig":{"secret":"s"}}}`), "V", "/container/docker/pullConfig", "pullConfig is not supported with Docker containerizer", nil},
	{"34", simple(`"gpus":1,"container":{"type":"DOCKER","docker":{"image":"i"}}`), "V", "/", "GPU resources only work with the Mesos containerizer", nil},
	{"34 off", simple(`"gpus":1`), "V", "/", "Feature gpu_resources is not enabled", &Options{}},
	{"35", dvdi(Mesos, "RW", "p", goodExternal, ""), "V", "/container/volumes(0)", "Feature external_volumes is not enabled. Enable with --enable_features external_volumes)", &Options{NoExternalVolumes: true}},
	{"36 absent", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","options":{"dvdi/driver":"d"}}`, ""), "V", "/container/volumes(0)/external/name", "not defined", nil},
	{"36 empty", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"","options":{"dvdi/driver":"d"}}`, ""), "V", "/container/volumes(0)/external/name", "must not be empty", nil},
	{"37 absent", dvdi(Mesos, "RW", "p", `{"name":"n","options":{"dvdi/driver":"d"}}`, ""), "V", "/container/volumes(0)/external/provider", "not defined", nil},
	{"37 unknown", dvdi(Mesos, "RW", "p", `{"provider":"qaz","name":"n","options":{"dvdi/driver":"d"}}`, ""), "V", "/container/volumes(0)/external/provider", "is unknown provider", nil},
	{"38 none", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{}}`, ""), "V", `/container/volumes(0)/external/options("dvdi/driver")`, "not defined", nil},
	{"38 no options", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n"}`, ""), "V", `/container/volumes(0)/external/options("dvdi/driver")`, "not defined", nil},
	{"38 key", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"driver":"bar"}}`, ""), "V", `/container/volumes(0)/external/options/keys(0)`, "match regular expression", nil},
	{"39", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":""}}`, ""), "V", `/container/volumes(0)/external/options("dvdi/driver")`, "must fully match regular expression", nil},
	{"40 zero", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/iops":"0"}}`, ""), "V", `/container/volumes(0)/external/options/"dvdi/iops"`, "Expected a valid, positive integer instead of 0", nil},
	{"40 text", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/iops":"b"}}`, ""), "V", `/container/volumes(0)/external/options/"dvdi/iops"`, "Expected a valid, positive integer instead of b", nil},
	{"41 type", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/volumetype":"io1 "}}`, ""), "V", `/container/volumes(0)/external/options/"dvdi/volumetype"`, "regular expression", nil},
	{"41 fs", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/newfstype":""}}`, ""), "V", `/container/volumes(0)/external/options/"dvdi/newfstype"`, "regular expression", nil},
	{"41 overwritefs", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"rexray","dvdi/overwritefs":"x"}}`, ""), "V", `/container/volumes(0)/external/options/"dvdi/overwritefs"`, "Expected a valid boolean", nil},
	{"42", dvdi(Mesos, "RW", "p", goodExternal, `,"instances":2`), "V", "/", "Number of instances is limited to 1 when declaring DVDI volumes in app [/x]", nil},
	{"43", dvdi(Docker, "RW", "p", `{"provider":"dvdi","name":"n","size":1,"shared":true,"options":{"dvdi/driver":"d"}}`, ""), "V", "/container/volumes(0)/external/size", "must be undefined for Docker containers", nil},
	{"44", dvdi(Docker, "RW", "p", `{"provider":"dvdi","name":"n","shared":true,"options":{"dvdi/driver":"d","dvdi/iops":"1"}}`, ""), "V", "/container/volumes(0)/external/options", "must only contain dvdi/driver", nil},
	{"45", dvdi(Mesos, "RO", "p", goodExternal, ""), "V", "/container/volumes(0)/mode", "does not equal RW", nil},
	{"46", dvdi(Mesos, "RW", ".", goodExternal, ""), "V", "/container/volumes(0)/containerPath", "can not be one of (.,..)", nil},
	{"49", dvdi(Mesos, "RW", "p", goodExternal, `,"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1}`), "V", "/upgradeStrategy/maximumOverCapacity", "got 1.0, expected 0.0", nil},
	{"size 0", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","size":0,"options":{"dvdi/driver":"d"}}`, ""), "V", "/container/volumes(0)/external/size", "got 0, expected more than 0", nil},
	{"engine option", dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"n","options":{"dvdi/driver":"d","dvdi/dvdi.epoch":"1"}}`, ""), "V", `/container/volumes(0)/external/options("dvdi/dvdi.epoch")`, "reserved for the volume engine", nil},
	{"exclusive in DOCKER", dvdi(Docker, "RW", "p", goodExternal, ""), "V", "/container/volumes(0)/external", "run the image in a MESOS container", nil},
	{"52", persistentApp("data", "RW", `{"size":0}`, ""), "V", "/container/volumes(0)/persistent/size", "got 0, expected more than 0", nil},
	{"52 absent", persistentApp("data", "RW", `{}`, ""), "S", "/container/volumes(0)/persistent/size", "'size' is undefined on object", nil},
	{"53", persistentApp("/data", "RW", `{"size":1}`, ""), "V", "/container/volumes(0)/containerPath", `value must not contain "/"`, nil},
	{"54", persistentApp("..", "RW", `{"size":1}`, ""), "V", "/container/volumes(0)/containerPath", "can not be one of (.,..)", nil},
	{"55", persistentApp("data", "RO", `{"size":1}`, ""), "V", "/container/volumes(0)/mode", "does not equal RW", nil},
	{"56", persistentApp("data", "RW", `{"size":1,"constraints":[["path","LIKE","x"]]}`, ""), "V", "/container/volumes(0)/persistent", "Constraints on root volumes are not supported", nil},
	{"57 path", persistentApp("data", "RW", `{"type":"path","size":1,"maxSize":2}`, ""), "V", "/container/volumes(0)/persistent", "Only mount volumes can have maxSize", nil},
	{"57 mount", persistentApp("data", "RW", `{"type":"mount","size":2,"maxSize":2}`, ""), "V", "/container/volumes(0)/persistent", "Max size must be larger than size", nil},
	{"58 operator", persistentApp("data", "RW", `{"type":"mount","size":2,"constraints":[["path","GROUP_BY","x"]]}`, ""), "V", "/container/volumes(0)/persistent/constraints(0)", "Operator must be one of LIKE, UNLIKE", nil},
	{"58 field", persistentApp("data", "RW", `{"type":"mount","size":2,"constraints":[["host","LIKE","x"]]}`, ""), "V", "/container/volumes(0)/persistent/constraints(0)", "Unsupported constraint host,LIKE,x", nil},
	{"58 regex", persistentApp("data", "RW", `{"type":"mount","size":2,"constraints":[["path","LIKE","(("]]}`, ""), "V", "/container/volumes(0)/persistent/constraints(0)", "Invalid regular expression", nil},
	{"58 short", persistentApp("data", "RW", `{"type":"mount","size":2,"constraints":[["path"]]}`, ""), "V", "/container/volumes(0)/persistent/constraints(0)", "Missing field and operator", nil},
	{"58 unknown", persistentApp("data", "RW", `{"type":"mount","size":2,"constraints":[["path","X","y"]]}`, ""), "V", "/container/volumes(0)/persistent/constraints(0)", "unknown constraint operator X", nil},
	{"59", persistentApp("data", "RW", `{"size":1}`, `,"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}`), "V", "/", "unreachableStrategy must be disabled for resident tasks", nil},
	{"60", persistentApp("data", "RW", `{"size":1}`, ""), "V", "/role", "Resident apps cannot have the role *", &Options{}},
	{"61", persistentApp("data", "RW", `{"size":1}`, `,"acceptedResourceRoles":["prod"]`), "V", "/acceptedResourceRoles", "A resident app must have `acceptedResourceRoles = [\"*\"]`.", nil},
	{"64", simple(`"unreachableStrategy":{"inactiveAfterSeconds":2,"expungeAfterSeconds":1}`), "V", "/unreachableStrategy/inactiveAfterSeconds", "inactiveAfterSeconds (2) must be less or equal to expungeAfterSeconds, which is 1", nil},
	{"65 name", simple(`"readinessChecks":[{"portName":"x"}]`), "V", "/readinessChecks(0)/portName", "No port definition reference for portName x", nil},
	{"65 timeout", simple(`"readinessChecks":[{"portName":"default","timeoutSeconds":10,"intervalSeconds":10}]`), "V", "/readinessChecks(0)/timeoutSeconds", "got 10, expected less than 10", nil},
	{"65 two", simple(`"readinessChecks":[{"portName":"default"},{"portName":"default"}]`), "V", "/readinessChecks/size", "got 2, expected 1 or less", nil},
	{"66", simple(`"instances":2,"labels":{"MARATHON_SINGLE_INSTANCE_APP":"true"}`), "V", "/", "Single instance app may only have one instance", nil},
	{"67 on", simple(`"env":{"A":{"secret":"nope"}}`), "V", "/env/A/secret", "references an undefined secret", nil},
	{"67 off", simple(`"env":{"A":{"secret":"nope"}}`), "V", "/env/A/secret", "requires the secrets feature to be enabled", &Options{}},
	{"68", simple(`"role":"x"`), "V", "/role", "got x, expected one of: [*]", &Options{}},
	{"68 accepted", simple(`"acceptedResourceRoles":["y"]`), "V", "/acceptedResourceRoles", "acceptedResourceRoles can only contain * and prod", nil},
	{"68 none", simple(`"acceptedResourceRoles":[]`), "V", "/acceptedResourceRoles", "must not be empty", nil},
	{"69", simple(`"mem":256,"resourceLimits":{"mem":64}`), "V", "/resourceLimits/mem", "resource limit must be greater than or equal to requested resource (256.0)", nil},
	{"69 word", simple(`"resourceLimits":{"mem":"Infinity"}`), "V", "/resourceLimits/mem", "'Infinity' is an invalid resource limit. It must be 'unlimited' or a number", nil},
	{"3.0 key decides", persistentApp("data", "RW", `{"size":"x"}`, ""), "S", "/container/volumes(0)/persistent/size", "error.expected.jsnumber", nil},
	{"3.0 none", simple(`"container":{"type":"MESOS","volumes":[{"containerPath":"a","mode":"RW"}]}`), "S", "/container/volumes(0)", "one of 'external'", nil},
	{"3.0 two", simple(`"container":{"type":"MESOS","volumes":[{"containerPath":"a","mode":"RW","hostPath":"b","secret":"c"}]}`), "S", "/container/volumes(0)", "only one of", nil},
	{"3.5 secret volume", simple(`"container":{"type":"MESOS","volumes":[{"containerPath":"a","secret":"c"}]}`), "V", "/container/volumes(0)/secret", "volume.secret must refer to an existing secret", nil},
	{"long id", `{"id":"/` + strings.Repeat("a", 200) + `","cmd":"x"}`, "V", "/id", "must not be longer than", nil},
	{"check", simple(`"check":{"tcp":{},"http":{}}`), "V", "/check", "Must specify a single type of check", nil},
	{"not an object", `[1]`, "S", "/", "error.expected.jsobject", nil},
}

func TestRules(t *testing.T) {
	for _, c := range rules {
		t.Run(c.row, func(t *testing.T) {
			opts := everything
			if c.opts != nil {
				opts = *c.opts
			}
			_, err := Parse([]byte(c.body), opts)
			var ve *ValidationError
			if !errors.As(err, &ve) {
				t.Fatalf("%s: got %v", c.body, err)
			}
			if want := map[string]string{"S": "Invalid JSON", "V": "Object is not valid"}[c.kind]; ve.Message != want {
				t.Errorf("message %q, want %q: %v", ve.Message, want, err)
			}
			if !hasDetail(err, c.path, c.message) {
				t.Errorf("want %s: %s\ngot  %v", c.path, c.message, err)
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

func TestVolumeDeclaredTwice(t *testing.T) {
	v := `{"containerPath":"p","mode":"RW","external":` + goodExternal + `}`
	_, err := Parse([]byte(simple(`"container":{"type":"MESOS","volumes":[`+v+`,`+v+`]}`)), everything)
	if !hasDetail(err, "/container/volumes", "Volume names must be unique") ||
		!hasDetail(err, "/", "Requested DVDI volume 'vol' is declared more than once within app /x") {
		t.Errorf("got %v", err)
	}
}

func TestResidentAppsKeepTheirResources(t *testing.T) {
	stored := mustParse(t, persistentApp("data", "RW", `{"size":10}`, ""))
	for _, c := range []struct{ body, path, message string }{
		{`{"cpus":2}`, "/cpus", "may not change resource requirements"},
		{`{"mem":2}`, "/mem", "may not change resource requirements"},
		{`{"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":11}}]}}`, "/", "Persistent volumes can not be changed!"},
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

func TestAssignServicePorts(t *testing.T) {
	r := PortRange{Min: 10000, Max: 10004}
	a := mustParse(t, `{"id":"/a","cmd":"x","portDefinitions":[{"port":0},{"port":10001}]}`)
	if err := AssignServicePorts(a, nil, r); err != nil {
		t.Fatal(err)
	}
	if p := a.ServicePorts(); p[0] != 10000 || p[1] != 10001 {
		t.Errorf("got %v", p)
	}
	b := mustParse(t, `{"id":"/b","cmd":"x","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{},{}]}}`)
	apps := map[ID]*App{"/a": a}
	if err := AssignServicePorts(b, apps, r); err != nil {
		t.Fatal(err)
	}
	if p := b.ServicePorts(); p[0] != 10002 || p[1] != 10003 {
		t.Errorf("got %v", p)
	}
	apps["/b"] = b
	again := mustParse(t, `{"id":"/b","cmd":"y","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{},{"servicePort":10002}]}}`)
	if err := AssignServicePorts(again, apps, r); err != nil {
		t.Fatal(err)
	}
	if p := again.ServicePorts(); p[0] != 10003 || p[1] != 10002 {
		t.Errorf("previous ports are not used again: %v", p)
	}
	c := mustParse(t, `{"id":"/c","cmd":"x"}`)
	err := AssignServicePorts(c, apps, r)
	if err == nil || err.Error() != "All ports in the range [10000-10004) are already in use" {
		t.Errorf("got %v", err)
	}
}
