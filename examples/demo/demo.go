package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// stepTime bounds each step; they take a few seconds at most.
const stepTime = 60 * time.Second

type demo struct {
	bin, appFile  string
	keep, verbose bool

	app     appJSON
	raw     []byte
	cluster *devcluster.Cluster
	fw      *devcluster.Framework
	step    int
}

// appJSON is what the demo needs to know of the app that it posts.
type appJSON struct {
	ID        string `json:"id"`
	Container struct {
		Volumes []struct {
			ContainerPath string `json:"containerPath"`
			External      struct {
				Name    string            `json:"name"`
				Options map[string]string `json:"options"`
			} `json:"external"`
		} `json:"volumes"`
	} `json:"container"`
}

func (d *demo) run(ctx context.Context) (err error) {
	if err := d.readApp(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dvdi-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cleanUp(ctx, dir)) }()
	if err := d.startCluster(ctx, dir); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		d.deploy, d.survive,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("done: the volume had one writer at a time, and no line was lost")
	if d.keep {
		d.printKeep()
		<-ctx.Done()
		fmt.Println("stopping")
	}
	return nil
}

func (d *demo) readApp() error {
	raw, err := os.ReadFile(d.appFile)
	if err != nil {
		return fmt.Errorf("read the app: %w; name an app file with --app", err)
	}
	if err := json.Unmarshal(raw, &d.app); err != nil {
		return fmt.Errorf("%s is not app JSON: %w", d.appFile, err)
	}
	if len(d.app.Container.Volumes) == 0 || d.app.Container.Volumes[0].External.Name == "" {
		return fmt.Errorf("%s has no external volume, so there is nothing to show", d.appFile)
	}
	if driver := d.app.Container.Volumes[0].External.Options["dvdi/driver"]; driver != devcluster.Driver {
		return fmt.Errorf("%s uses the driver %q; the demo's agents have only %q", d.appFile, driver, devcluster.Driver)
	}
	d.app.ID = "/" + strings.Trim(d.app.ID, "/")
	d.raw = raw
	return nil
}

// cleanUp stops what was started, in a time of its own: ctx may be over.
func (d *demo) cleanUp(ctx context.Context, dir string) error {
	if d.cluster != nil {
		if err := d.cluster.Stop(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("clean up %s: %w", dir, err)
		}
	}
	return os.RemoveAll(dir)
}

// say prints the next numbered step.
func (d *demo) say(format string, args ...any) {
	d.step++
	fmt.Printf("%2d. %s\n", d.step, fmt.Sprintf(format, args...))
}

// detail prints a line below a step.
func detail(format string, args ...any) {
	fmt.Printf("      %s\n", fmt.Sprintf(format, args...))
}

func (d *demo) startCluster(ctx context.Context, dir string) error {
	log := zap.NewNop()
	var out io.Writer
	if d.verbose {
		var err error
		if log, err = zap.NewDevelopment(); err != nil {
			return err
		}
		out = os.Stderr
	}
	bin, err := filepath.Abs(d.bin)
	if err != nil {
		return err
	}
	d.cluster, err = devcluster.Start(ctx, devcluster.Config{
		Dir: dir, Bin: bin, Agents: 3, Timing: embeddedmesos.FastTiming(), Log: log, Output: out,
	})
	if err != nil {
		return err
	}
	d.say("Mesos is up: a master on %s and three agents, each with the volume plugin %q", d.cluster.Mesos.Addr(), devcluster.Driver)
	if reason := d.cluster.Mesos.Linked(); reason != nil {
		detail("volumes are linked into the sandboxes instead of mounted: %v", reason)
	}
	d.fw, err = d.cluster.StartFramework(ctx, devcluster.FrameworkOptions{})
	if err != nil {
		return err
	}
	d.say("the framework is connected: %s", d.fw.URL)
	return nil
}

func (d *demo) printKeep() {
	fmt.Printf(`
Everything is left running. The framework's API is at %[1]s

  curl -s %[1]s/v2/apps%[2]s
  curl -s %[1]s/v2/volumes
  curl -s -X PUT -H 'Content-Type: application/json' -d '{"instances": 0}' %[1]s/v2/apps%[2]s

Ctrl-C stops it.
`, d.fw.URL, d.app.ID)
}
