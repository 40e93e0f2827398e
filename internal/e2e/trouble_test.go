package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/devcluster/clustertest"
)

// Requests that cannot be right are refused with what is wrong, and change
// nothing.
func TestBadRequests(t *testing.T) {
	e := newEnv(t, 1, reference)
	for _, tc := range []struct {
		name, body string
		status     int
		says       string
	}{
		{"syntax", `{"id": `, 400, "Invalid JSON"},
		{"empty", ``, 400, "Please specify data in JSON format"},
		{"type", `{"id": 7, "cmd": "true"}`, 422, "/id"},
		{"no command", `{"id": "/x"}`, 422, "cmd"},
		{"no driver", `{"id": "/x", "cmd": "true", "container": {"type": "MESOS", "volumes": [{"containerPath": "d", "mode": "RW", "external": {"provider": "dvdi", "name": "v", "options": {}}}]}}`, 422, "dvdi/driver"},
		{"two instances", `{"id": "/x", "cmd": "true", "instances": 2, "container": {"type": "MESOS", "volumes": [{"containerPath": "d", "mode": "RW", "external": {"provider": "dvdi", "name": "v", "options": {"dvdi/driver": "refvol"}}}]}}`, 422, "limited to 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body := e.status(http.MethodPost, "/v2/apps", []byte(tc.body))
			if status != tc.status || !strings.Contains(body, tc.says) {
				t.Errorf("answer %d %s; want %d with %q", status, body, tc.status, tc.says)
			}
		})
	}
	if ids := e.appIDs(e.ctx); len(ids) != 0 {
		t.Errorf("a refused request left apps behind: %v", ids)
	}
}

// A driver that no agent has: the task fails with a text that names driver and
// remedy, and the app backs off instead of spinning.
func TestUnknownDriver(t *testing.T) {
	e := newEnv(t, 1, reference)
	app := e.app("/unknown", "v", writer)
	app["container"].(object)["volumes"].([]object)[0]["external"].(object)["options"] = object{"dvdi/driver": "nosuchdriver"}
	e.must(http.MethodPost, "/v2/apps", app, nil)
	e.failure("/unknown", "nosuchdriver")
	e.remove("/unknown")
}

// The plugin is down when the task starts: the failure names it. Once it is
// back the task runs.
func TestPluginDown(t *testing.T) {
	e := newEnv(t, 1, reference)
	if e.cluster == nil {
		t.Skip("an external Mesos' plugins are not ours to stop")
	}
	node := e.cluster.Nodes[0]
	node.KillPlugin(devcluster.Driver)
	e.must(http.MethodPost, "/v2/apps", e.app("/down", "down", writer), nil)
	e.failure("/down", devcluster.Driver)
	if err := node.StartPlugin(e.ctx, devcluster.Driver); err != nil {
		t.Fatal(err)
	}
	e.running("/down", 1)
}

// failure waits for the app's last failure to contain a text.
func (e *env) failure(id, text string) {
	e.t.Helper()
	e.poll("the failure of "+id, func() (bool, string, error) {
		var out struct {
			App struct {
				LastTaskFailure struct {
					Message string `json:"message"`
					State   string `json:"state"`
				} `json:"lastTaskFailure"`
			} `json:"app"`
		}
		err := e.Do(e.ctx, http.MethodGet, "/v2/apps"+id, nil, &out)
		f := out.App.LastTaskFailure
		return strings.Contains(f.Message, text), f.State + " " + f.Message, err
	})
}

// What keeps the framework from starting is named, with the remedy, and the
// state is left as it was.
func TestFrameworkRefusesToStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	dir := clustertest.Dir(t)
	start := func(o devcluster.FrameworkOptions) (string, error) {
		o.Master = "127.0.0.1:1" // nobody listens: it must fail before it matters
		f, err := devcluster.StartFramework(ctx, devcluster.Config{Dir: dir, Bin: binaries}, o)
		if err == nil {
			f.Kill()
			return "", fmt.Errorf("it started")
		}
		select {
		case <-f.Done():
		case <-ctx.Done():
			f.Kill()
			return "", fmt.Errorf("it neither started nor ended")
		}
		if f.Err() == nil {
			return "", fmt.Errorf("it ended with status 0")
		}
		return f.Output(), nil
	}

	t.Run("port in use", func(t *testing.T) {
		other := httptest.NewServer(http.NotFoundHandler())
		defer other.Close()
		port := other.Listener.Addr().(*net.TCPAddr).Port
		out, err := start(devcluster.FrameworkOptions{Port: port})
		if err != nil || !strings.Contains(out, fmt.Sprint(port)) || !strings.Contains(out, "--http_port") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("unreadable state", func(t *testing.T) {
		data := filepath.Join(dir, "broken")
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(data, "framework.db")
		garbage := []byte(strings.Repeat("this is no database\n", 1000))
		if err := os.WriteFile(path, garbage, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := start(devcluster.FrameworkOptions{Data: "broken"})
		if err != nil || !strings.Contains(out, path) {
			t.Errorf("%v: %s", err, out)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(garbage) {
			t.Errorf("the file was changed: %v", err)
		}
	})
	t.Run("bad flag", func(t *testing.T) {
		out, err := start(devcluster.FrameworkOptions{Args: []string{"--no-such-flag"}})
		if err != nil || !strings.Contains(out, "no-such-flag") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("no master", func(t *testing.T) {
		out, err := start(devcluster.FrameworkOptions{Args: []string{"--master", ""}})
		if err != nil || !strings.Contains(out, "--master") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// A second framework on the same state is refused while the first one runs on
// undisturbed.
func TestSecondFramework(t *testing.T) {
	e := newEnv(t, 1, reference)
	ctx, cancel := context.WithTimeout(e.ctx, time.Minute)
	defer cancel()
	o := e.opts
	o.Port = 0
	if e.cluster != nil {
		o.Master = e.cluster.Mesos.Addr()
	}
	second, err := devcluster.StartFramework(ctx, devcluster.Config{Dir: e.dir, Bin: binaries}, o)
	if err == nil {
		second.Kill()
		t.Fatal("a second framework runs on the same state")
	}
	<-second.Done()
	if second.Err() == nil || !strings.Contains(second.Output(), filepath.Join(e.dir, "framework")) {
		t.Errorf("it ended with %v: %s", second.Err(), second.Output())
	}
	e.must(http.MethodGet, "/ping", nil, nil)
}
