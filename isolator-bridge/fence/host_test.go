package fence_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// noDrivers are none.
type noDrivers struct{}

func (noDrivers) List(context.Context) ([]volume.DriverInfo, error) { return nil, nil }
func (noDrivers) Open(_ context.Context, name string) (volume.Driver, error) {
	return nil, &volume.DriverUnknownError{Driver: name}
}

const cgroups = "/sys/fs/cgroup"

// groupRig is a host with control groups of its own.
type groupRig struct {
	t    *testing.T
	host *fence.Host
	cfg  fence.HostConfig // the host's
	root string           // in all hierarchies
	ids  []string
}

var groupClaim = fence.Claim{Key: ledger.Key{Driver: "d", Volume: "v"}, Framework: "f", Epoch: 3}

func newGroupRig(t *testing.T) *groupRig {
	t.Helper()
	dir := t.TempDir()
	led, err := ledger.Open(ledger.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	eng := engine.New(engine.Config{Ledger: led, Drivers: noDrivers{}, Mounts: hostmount.New(), Neighbours: ledger.Neighbours{Dir: filepath.Join(dir, "host")}})
	reg := ledger.Registration{Driver: groupClaim.Key.Driver, Volume: groupClaim.Key.Volume, Framework: groupClaim.Framework, Epoch: groupClaim.Epoch}
	if _, err := eng.Register(context.Background(), reg, nil); err != nil {
		t.Fatal(err)
	}
	r := &groupRig{t: t, root: fmt.Sprintf("dvdi-test-%d-%d", os.Getpid(), time.Now().UnixNano())}
	r.cfg = fence.HostConfig{Engine: eng, Mounts: hostmount.New(), Cgroups: cgroups, CgroupRoot: r.root, Wait: 30 * time.Second,
		Containers: func(ledger.Key) ([]string, error) { return r.ids, nil }}
	r.host = fence.NewHost(r.cfg)
	return r
}

// group makes a control group below the rig's root, or skips the test.
func (r *groupRig) group(hierarchy string, path ...string) string {
	r.t.Helper()
	dir := filepath.Join(cgroups, hierarchy)
	for _, part := range append([]string{r.root}, path...) {
		dir = filepath.Join(dir, part)
		err := os.Mkdir(dir, 0o755)
		switch {
		case errors.Is(err, os.ErrExist):
			continue
		case err != nil:
			r.t.Skipf("control groups cannot be made here: %v", err)
		}
		made := dir
		r.t.Cleanup(func() {
			// The kernel lets a group go a moment after its last process.
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				err := os.Remove(made)
				if err == nil {
					return
				}
				if time.Now().After(deadline) {
					r.t.Errorf("left behind: %v", err)
					return
				}
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		r.t.Skipf("no control groups here: %v", err)
	}
	return dir
}

// tree starts a process with a child and a grandchild in a control group, and
// returns a channel that is closed when all of them are gone.
func (r *groupRig) tree(group string) <-chan struct{} {
	r.t.Helper()
	script := `echo $$ > "$0/cgroup.procs" && { sh -c 'sleep 1000 & echo ready; wait' & wait; }`
	cmd := exec.Command("sh", "-c", script, group)
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
		r.t.Fatalf("%q, %v", line, err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		// All of the tree hold the pipe's other end.
		for {
			if _, err := lines.ReadString('\n'); err != nil {
				break
			}
		}
		_ = cmd.Wait() // killed
	}()
	r.t.Cleanup(func() {
		thaw := filepath.Join(group, "freezer.state")
		if _, err := os.Stat(thaw); err == nil {
			if err := os.WriteFile(thaw, []byte("THAWED"), 0); err != nil {
				r.t.Error(err)
			}
		}
		data, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		if err != nil {
			r.t.Error(err)
		}
		for _, pid := range strings.Fields(string(data)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 0 {
				_ = unix.Kill(n, unix.SIGKILL)
			}
		}
		<-gone
	})
	return gone
}

func (r *groupRig) lives(what string, gone <-chan struct{}) {
	r.t.Helper()
	select {
	case <-gone:
		r.t.Errorf("%s was killed", what)
	default:
	}
}

// TestFenceKillsControlGroups: all processes of the named containers' control
// groups are killed, nested and frozen ones too, in whichever hierarchy, and no
// others.
func TestFenceKillsControlGroups(t *testing.T) {
	for name, c := range map[string]struct {
		hierarchy string
		freeze    string // file, what to write into it
		state     string
	}{
		"unified":           {hierarchy: "unified"},
		"unified, frozen":   {hierarchy: "unified", freeze: "cgroup.freeze", state: "1"},
		"one per process":   {hierarchy: "pids"},
		"freezer":           {hierarchy: "freezer"},
		"freezer, frozen":   {hierarchy: "freezer", freeze: "freezer.state", state: "FROZEN"},
		"the only, unified": {hierarchy: "."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGroupRig(t)
			r.ids = []string{"fenced-1", "fenced-leaf"}
			flat := r.group(c.hierarchy, "fenced-1")
			parent := r.group(c.hierarchy, "fenced-2")
			leaf := r.group(c.hierarchy, "fenced-2", "mesos", "fenced-leaf")
			other := r.group(c.hierarchy, "fenced-1-other")
			dying := []<-chan struct{}{r.tree(flat), r.tree(leaf)}
			spared := []<-chan struct{}{r.tree(parent), r.tree(other)}
			if c.freeze != "" {
				if err := os.WriteFile(filepath.Join(flat, c.freeze), []byte(c.state), 0); err != nil {
					t.Skipf("it cannot be frozen here: %v", err)
				}
			}
			if err := r.host.Fence(context.Background(), groupClaim); err != nil {
				t.Fatal(err)
			}
			for _, gone := range dying {
				select {
				case <-gone:
				case <-time.After(30 * time.Second):
					t.Fatal("a process of a named container lives on")
				}
			}
			r.lives("the parent's process", spared[0])
			r.lives("another container's process", spared[1])
		})
	}
}

// TestFenceWithAWrongCgroupsRoot: a container is killed also where its control
// group is below another root than the bridge was told of. A group whose name
// somebody may have chosen is none of a container's there.
func TestFenceWithAWrongCgroupsRoot(t *testing.T) {
	for name, hierarchy := range map[string]string{"unified": "unified", "one per process": "pids", "the only, unified": "."} {
		t.Run(name, func(t *testing.T) {
			r := newGroupRig(t)
			const id, leaf = "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "2b4e28ba-2fa1-11d2-883f-0016d3cca427"
			r.ids = []string{id, leaf, "web"}
			dying := []<-chan struct{}{r.tree(r.group(hierarchy, id)), r.tree(r.group(hierarchy, "outer", "mesos", leaf, "leaf"))}
			spared := []<-chan struct{}{r.tree(r.group(hierarchy, "web")), r.tree(r.group(hierarchy, "outer")), r.tree(r.group(hierarchy, id+"-other"))}
			cfg := r.cfg
			cfg.CgroupRoot = "mesos"
			if err := fence.NewHost(cfg).Fence(context.Background(), groupClaim); err != nil {
				t.Fatal(err)
			}
			for _, gone := range dying {
				select {
				case <-gone:
				case <-time.After(time.Minute):
					t.Fatal("a process of a named container lives on")
				}
			}
			for _, gone := range spared {
				r.lives("a process of another group", gone)
			}
		})
	}
}

// TestFenceOfAnotherClaim: nobody is stopped for a claim that is not the
// registered one, be it of another epoch or of another framework.
func TestFenceOfAnotherClaim(t *testing.T) {
	r := newGroupRig(t)
	r.ids = []string{"fenced-1"}
	var task <-chan struct{}
	for _, hierarchy := range []string{"unified", "."} {
		if _, err := os.Stat(filepath.Join(cgroups, hierarchy, "cgroup.procs")); err == nil {
			task = r.tree(r.group(hierarchy, "fenced-1"))
			break
		}
	}
	for _, claim := range []fence.Claim{{Key: groupClaim.Key, Framework: "f", Epoch: 2}, {Key: groupClaim.Key, Framework: "f", Epoch: 4},
		{Key: groupClaim.Key, Framework: "g", Epoch: 3}, {Key: ledger.Key{Driver: "d", Volume: "w"}, Framework: "f", Epoch: 3}} {
		if err := r.host.Fence(context.Background(), claim); !errors.Is(err, fence.ErrSuperseded) {
			t.Errorf("%+v: %v", claim, err)
		}
	}
	if task == nil {
		t.Skip("no unified control groups here")
	}
	r.lives("a task of the registered claim", task)
}
