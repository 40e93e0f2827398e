package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scratchClass is a file of volume classes with one whose volumes are removed.
func scratchClass(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "classes.yaml")
	if err := os.WriteFile(path, []byte("classes: {scratch: {driver: refvol, reclaim: delete}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// stored are the volumes that the reference plugin has, by name.
func (e *env) stored() []string {
	e.t.Helper()
	entries, err := os.ReadDir(filepath.Join(e.cluster.Store(), "volumes"))
	if err != nil {
		e.t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimPrefix(entry.Name(), "v-"))
	}
	return names
}

func (e *env) stores(what string, names ...string) {
	e.t.Helper()
	e.poll(what, func() (bool, string, error) {
		have := e.stored()
		return slices.Equal(have, names), fmt.Sprintf("%q %s", have, e.get("/v2/volumes")), nil
	})
}

// TestVolumesOfTheClassDeleteAreRemoved: of instances that are scaled away, of
// tasks that are wiped, of an app that is deleted, each once its agent says that
// it is unmounted, and in spite of a framework and a bridge that die meanwhile.
func TestVolumesOfTheClassDeleteAreRemoved(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the bridges of an external Mesos belong to its operator")
	}
	e := newEnvOf(t, setup{agents: 2, pick: reference, bridges: true, args: []string{"--volume-classes", scratchClass(t)}})
	app := e.app("/scratch", "part-${instance}", writer)
	app["instances"] = 2
	volume := app["container"].(object)["volumes"].([]object)[0]["external"].(object)
	volume["options"] = object{"dvdi/class": "scratch"}
	e.must(http.MethodPost, "/v2/apps", app, nil)
	e.running("/scratch", 2)
	e.settled()
	e.stores("both volumes", "part-0", "part-1")

	e.must(http.MethodPut, "/v2/apps/scratch", object{"instances": 1}, nil)
	e.settled()
	e.stores("the volume of the instance that is gone to be removed", "part-0")

	first := e.running("/scratch", 1)[0]
	e.must(http.MethodDelete, "/v2/apps/scratch/tasks?wipe=true", nil, nil)
	second := e.did(e.running("/scratch", 1, first.ID)[0])
	e.settled()
	log, err := os.ReadFile(filepath.Join(e.cluster.Store(), "volumes", "v-part-0", "data", "log"))
	if err != nil || strings.TrimSpace(string(log)) != second.ID {
		t.Errorf("after the wipe the volume holds %q, %v", log, err)
	}

	e.keeps(second.Host)
	second = e.running("/scratch", 1)[0]

	on := e.cluster.Node(second.Host)
	on.KillBridge()
	e.deleteApp(e.ctx, "/scratch")
	e.poll("the volume to be listed as to be removed", func() (bool, string, error) {
		out, err := e.command("volume", "show", "--url", e.URL, "part-0")
		return err == nil && strings.Contains(out, "app /scratch was deleted"), out, nil
	})
	e.Kill()
	e.startFramework()
	if err := on.StartBridge(e.ctx); err != nil {
		t.Fatal(err)
	}
	e.stores("the volume of the deleted app to be removed")
	e.poll("nothing to be left to remove", func() (bool, string, error) {
		out, err := e.command("volume", "list", "--url", e.URL)
		return err == nil && !strings.Contains(out, "part-"), out, nil
	})
}

// keeps deletes the app while nobody can say that its volume is unmounted, keeps
// the volume by the command for it, and makes the app again: it finds its data.
func (e *env) keeps(host string) {
	e.t.Helper()
	var def struct {
		App object `json:"app"`
	}
	e.must(http.MethodGet, "/v2/apps/scratch", nil, &def)
	delete(def.App, "version")
	on := e.cluster.Node(host)
	on.KillBridge()
	e.deleteApp(e.ctx, "/scratch")
	e.poll("the volume to be kept", func() (bool, string, error) {
		out, err := e.command("volume", "keep", "--url", e.URL, "refvol", "part-0")
		return err == nil && strings.Contains(out, "kept"), out, nil
	})
	if err := on.StartBridge(e.ctx); err != nil {
		e.t.Fatal(err)
	}
	e.poll("the claim to end", func() (bool, string, error) {
		c := e.claims()
		return len(c) == 0, strings.Join(c, ","), nil
	})
	e.must(http.MethodPost, "/v2/apps", def.App, nil)
	kept := e.did(e.running("/scratch", 1)[0])
	e.settled()
	log, err := os.ReadFile(filepath.Join(e.cluster.Store(), "volumes", "v-part-0", "data", "log"))
	if err != nil || strings.Count(string(log), "\n") != 2 || !strings.Contains(string(log), kept.ID) {
		e.t.Errorf("the volume that was kept holds %q, %v", log, err)
	}
}
