package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// localPlugin is the reference plugin with a store of each node's own.
func localPlugin() devcluster.Plugin {
	p := devcluster.ReferencePlugin(binaries)
	p.Driver = "localvol"
	p.Args = func(node, socket, mounts, state, _ string) []string {
		return []string{"--root", filepath.Join(state, "store"), "--mounts", mounts, "--node", node, "--scope", "local", "--socket", socket}
	}
	return p
}

// zonedPlugin is the reference plugin that tells in a volume's status that it is
// in the zone of the node.
func zonedPlugin() devcluster.Plugin {
	p := devcluster.ReferencePlugin(binaries)
	p.Driver = "zonevol"
	p.Args = func(node, socket, mounts, _, store string) []string {
		return []string{"--root", store + "-zoned", "--mounts", mounts, "--node", node, "--single-attach", "--zone", zoneOf(node), "--socket", socket}
	}
	return p
}

// zoneOf is the zone of an agent.
func zoneOf(host string) string {
	return "z" + strings.TrimSuffix(strings.TrimPrefix(host, "agent"), ".test")
}

// explained waits until `dvdi-framework explain` of an app tells a reason, and
// until GET /v2/queue does.
func (e *env) explained(app, reason string, words ...string) {
	e.t.Helper()
	e.poll("explain "+app+" to tell "+reason, func() (bool, string, error) {
		out, err := e.command("explain", "--url", e.URL, app)
		missing := slices.ContainsFunc(append(words, reason), func(w string) bool { return !strings.Contains(out, w) })
		return !missing, out, err
	})
	e.poll("the queue to tell "+reason, func() (bool, string, error) {
		for _, q := range e.queue() {
			if q.App.ID == app && slices.ContainsFunc(q.Waiting, func(w waiting) bool {
				return slices.ContainsFunc(w.Reasons, func(r struct{ Reason string }) bool { return r.Reason == reason })
			}) {
				return true, "", nil
			}
		}
		return false, e.get("/v2/queue"), nil
	})
}

// waiting is what the queue says of an instance.
type waiting struct {
	Text    string
	Reasons []struct{ Reason string }
}

// queued is an entry of the queue.
type queued struct {
	App     struct{ ID string }
	Waiting []waiting `json:"waiting"`
}

func (e *env) queue() []queued {
	e.t.Helper()
	var out struct{ Queue []queued }
	e.must(http.MethodGet, "/v2/queue", nil, &out)
	return out.Queue
}

// TestVolumesAreBoundToPlaces: an app whose volume is local to an agent, by the
// word of its driver that the bridge passes on, and ones whose volume is zonal, by
// its class or by the word of its driver, come back there only, and are told to
// wait for that.
func TestVolumesAreBoundToPlaces(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the zones of an external Mesos belong to its operator")
	}
	classes := filepath.Join(t.TempDir(), "classes.yaml")
	if err := os.WriteFile(classes, []byte("classes: {zonal: {driver: "+devcluster.Driver+", zonal: true}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEnvOf(t, setup{agents: 2, pick: reference, bridges: true, args: []string{"--volume-classes", classes}, change: func(c *devcluster.Config) {
		c.Plugins = append(c.Plugins, localPlugin(), zonedPlugin())
		c.Agent = func(i int, a *embeddedmesos.AgentConfig) { a.Region, a.Zone = "r", fmt.Sprintf("z%d", i+1) }
	}})
	local := e.app("/local", "data", writer)
	localOptions := local["container"].(object)["volumes"].([]object)[0]["external"].(object)
	localOptions["options"] = object{"dvdi/driver": "localvol"}
	e.must(http.MethodPost, "/v2/apps", local, nil)
	home := e.running("/local", 1)[0]
	e.wrote("node*/plugin-state/localvol", home.ID)

	zone := zoneOf(home.Host)
	before := map[string]devcluster.Task{"/local": home}
	for id, options := range map[string]object{"/zonal": {"dvdi/class": "zonal"}, "/told": {"dvdi/driver": "zonevol"}} {
		zonal := e.app(id, "volume-of-"+id[1:], writer)
		zonal["container"].(object)["volumes"].([]object)[0]["external"].(object)["options"] = options
		zonal["constraints"] = [][]string{{"hostname", "CLUSTER", home.Host}}
		e.must(http.MethodPost, "/v2/apps", zonal, nil)
		before[id] = e.running(id, 1)[0]
		e.settled()
		e.poll("the zone of the volume of "+id+" to be known", func() (bool, string, error) {
			shown := e.get("/v2/volumes")
			return strings.Contains(shown, "volume-of-"+id[1:]+" of driver ") && strings.Count(shown, "can be attached in zone "+zone+" only") == len(before)-1, shown, nil
		})
		zonal["constraints"], zonal["instances"] = [][]string{}, 0
		e.must(http.MethodPut, "/v2/apps"+id, zonal, nil)
	}
	e.must(http.MethodPut, "/v2/apps/local", object{"instances": 0}, nil)
	e.settled()
	e.poll("all claims to end", func() (bool, string, error) {
		c := e.claims()
		return len(c) == 0, strings.Join(c, ","), nil
	})
	e.poll("all volumes to be shown as bound to a place", func() (bool, string, error) {
		shown := e.get("/v2/volumes")
		return strings.Count(shown, `"state":"bound"`) == len(before), shown, nil
	})

	// Its host reboots, and so does the framework, which has to remember.
	e.fault("kill-agent", home.Host)
	e.Framework.Kill()
	e.startFramework()
	for id := range before {
		e.must(http.MethodPut, "/v2/apps"+id, object{"instances": 1}, nil)
	}
	e.explained("/local", "VolumeLocalElsewhere", "exists on agent "+home.Host+" only", "closest: agent")
	e.explained("/zonal", "WrongZone", "in another zone than its volume", "lacks zone "+zone)
	e.explained("/told", "WrongZone", "in another zone than its volume", "lacks zone "+zone)
	e.fault("start-agent", home.Host)
	for id, task := range before {
		if now := e.running(id, 1)[0]; now.Host != home.Host {
			t.Errorf("%s runs on %s, its volume was on %s (%s)", id, now.Host, home.Host, task.ID)
		}
	}
	e.wrote("node*/plugin-state/localvol", home.ID, e.running("/local", 1)[0].ID)
}

// wrote waits until the only log in the volumes below directories has a line of
// each task, in order.
func (e *env) wrote(pattern string, tasks ...string) {
	e.t.Helper()
	e.poll("a volume to hold what its tasks wrote", func() (bool, string, error) {
		found, err := e.logs(pattern)
		return len(found) == 1 && slices.Equal(strings.Fields(found[0]), tasks), strings.Join(found, " | "), err
	})
}

// logs are the contents of the logs in the volumes below directories.
func (e *env) logs(pattern string) (logs []string, err error) {
	stores, err := filepath.Glob(filepath.Join(e.dir, pattern))
	for _, s := range stores {
		err = errors.Join(err, filepath.WalkDir(s, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile
			}
			if err != nil || d.Name() != "log" {
				return err
			}
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			logs = append(logs, string(data))
			return err
		}))
	}
	return logs, err
}
