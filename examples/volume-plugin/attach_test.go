package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// checkOneWriter reads the attach log and fails if two nodes ever had an
// exclusive volume at the same time.
func (b *bench) checkOneWriter(volume string) {
	b.t.Helper()
	events, err := attachLog{path: filepath.Join(b.root, "attach.log")}.read()
	if err != nil {
		b.t.Fatal(err)
	}
	var holder attachEvent
	attaches := 0
	for _, e := range events {
		if e.Volume != volume {
			continue
		}
		switch e.Event {
		case eventAttach:
			attaches++
			// No test kills a plugin between the log and the record while
			// another node waits, so here an epoch belongs to one node.
			if holder.Epoch != 0 && (holder.Node != e.Node || holder.Epoch != e.Epoch) {
				b.t.Errorf("node %s attached %s while %s had it", e.Node, volume, holder.Node)
			}
			holder = e
		case eventDetach, eventForce:
			if e.Epoch == holder.Epoch {
				holder = attachEvent{}
			}
		}
	}
	if attaches == 0 {
		b.t.Error("the log has no attach")
	}
}

func TestSingleAttach(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) {
		b := newBench(t)
		flags = append(flags, "--single-attach")
		a, c := b.start("a", flags...), b.start("c", flags...)
		a.mustCreate("v", nil)
		writeFile(t, filepath.Join(a.mustMount("v", "1"), "file"), "from a")
		_, err := c.mount("v", "2")
		wantError(t, err, `"a"`, "detach --force 'v'")
		if v, err := c.get("v"); err != nil || v.Mountpoint != "" || v.Status["attachedTo"] != "a" {
			t.Fatalf("on the other node: %+v, %v", v, err)
		}
		c.mustUnmount("v", "2") // changes nothing
		a.mustUnmount("v", "1")
		if got := readFile(t, filepath.Join(c.mustMount("v", "2"), "file")); got != "from a" {
			t.Fatalf("the other node reads %q", got)
		}
		c.mustUnmount("v", "2")
		b.checkOneWriter("v")
	})
}

func TestSharedStoreWithoutSingleAttach(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a, c := b.start("a", "--link"), b.start("c", "--link")
	a.mustCreate("v", nil)
	writeFile(t, filepath.Join(a.mustMount("v", "1"), "file"), "from a")
	if got := readFile(t, filepath.Join(c.mustMount("v", "1"), "file")); got != "from a" {
		t.Fatalf("the other node reads %q", got)
	}
	a.mustUnmount("v", "1")
	if v, err := c.get("v"); err != nil || v.Mountpoint == "" {
		t.Fatalf("lost by the other node's unmount: %+v, %v", v, err)
	}
}

func TestImageIsNeverOnTwoNodes(t *testing.T) {
	t.Parallel()
	needImages(t)
	b := newBench(t)
	a, c := b.start("a"), b.start("c") // no --single-attach
	a.mustCreate("v", opts{"size": "8M"})
	a.mustMount("v", "1")
	_, err := c.mount("v", "1")
	wantError(t, err, `"a"`)
	a.mustUnmount("v", "1")
}

func TestManyNodesAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const nodes, rounds = 4, 15
	var plugins []*plugin
	for i := range nodes {
		plugins = append(plugins, b.start(fmt.Sprint("n", i), "--link", "--single-attach"))
	}
	plugins[0].mustCreate("v", nil)
	var mounted sync.Map // what a mount finds here belongs to another node
	var group sync.WaitGroup
	for _, p := range plugins {
		for worker := range 2 {
			group.Go(func() {
				id := fmt.Sprint(p.node, worker)
				for range rounds {
					if _, err := p.mount("v", id); err != nil {
						continue
					}
					mounted.Range(func(node, _ any) bool {
						if !strings.HasPrefix(node.(string), p.node) {
							t.Errorf("%s and %s have the volume", id, node)
						}
						return true
					})
					mounted.Store(id, nil)
					mounted.Delete(id)
					if err := p.unmount("v", id); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	b.checkOneWriter("v")
	out, err := b.run("list")
	if err != nil || strings.Contains(out, b.dir+"/mounts") {
		t.Errorf("still attached: %s %v", out, err)
	}
}

func TestForcedDetachAfterLostNode(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) { testLostNode(t, nil, flags...) })
	t.Run("image", func(t *testing.T) {
		needImages(t)
		testLostNode(t, opts{"size": "8M"})
	})
}

func testLostNode(t *testing.T, options opts, flags ...string) {
	b := newBench(t)
	flags = append(flags, "--single-attach")
	a, c := b.start("a", flags...), b.start("c", flags...)
	a.mustCreate("v", options)
	old := a.mustMount("v", "1")
	writeFile(t, filepath.Join(old, "file"), "kept")
	a.kill()
	if _, err := os.Stat(filepath.Join(old, "file")); err != nil {
		t.Fatalf("the mount did not survive its plugin: %v", err)
	}
	_, err := c.mount("v", "2")
	wantError(t, err, `"a"`)

	out, err := b.run("detach", "v")
	if err == nil || !strings.Contains(out, `node "a"`) || !strings.Contains(out, "--force") {
		t.Fatalf("detach without --force: %s %v", out, err)
	}
	out, err = b.run("list")
	if err != nil || !strings.Contains(out, "stopped") || !strings.Contains(out, old) {
		t.Fatalf("list: %s %v", out, err)
	}
	out, err = b.run("detach", "--force", "v")
	if err != nil || !strings.Contains(out, `detached from node "a"`) {
		t.Fatalf("detach --force: %s %v", out, err)
	}
	if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lost node's mount is still there: %v", err)
	}
	if got := readFile(t, filepath.Join(c.mustMount("v", "2"), "file")); got != "kept" {
		t.Fatalf("the new node reads %q", got)
	}

	a = b.start("a", flags...)
	if v, err := a.get("v"); err != nil || v.Mountpoint != "" {
		t.Errorf("the node that came back has it: %+v, %v", v, err)
	}
	_, err = a.mount("v", "1")
	wantError(t, err, `"c"`)
	a.mustUnmount("v", "1")
	if v, err := c.get("v"); err != nil || v.Mountpoint == "" {
		t.Errorf("the new node lost it: %+v, %v", v, err)
	}
	c.mustUnmount("v", "2")
	b.checkOneWriter("v")
	out, err = b.run("detach", "--force", "v")
	if err != nil || !strings.Contains(out, "no node") {
		t.Errorf("detach of what is attached nowhere: %s %v", out, err)
	}
}

// The node is not lost but only believed to be, and still has a file open.
func TestForcedDetachCutsOffWriters(t *testing.T) {
	t.Parallel()
	needImages(t)
	b := newBench(t)
	a, c := b.start("a"), b.start("c")
	a.mustCreate("v", opts{"size": "8M"})
	file, err := os.OpenFile(filepath.Join(a.mustMount("v", "1"), "file"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.WriteString("before"); err != nil {
		t.Fatal(err)
	}
	if out, err := b.run("detach", "--force", "v"); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	at := c.mustMount("v", "2")
	if _, err := file.WriteString("after"); !errors.Is(err, unix.EIO) {
		t.Errorf("the old node's write: %v, want an I/O error", err)
	}
	if got := readFile(t, filepath.Join(at, "file")); got != "before" {
		t.Errorf("the new node reads %q", got)
	}
	c.mustUnmount("v", "2") // although the old node's loop device is still open
	a.mustUnmount("v", "1")
}

// A container has the volume in a mount namespace of its own, as the Mesos
// isolator arranges it, and outlives the unmount.
func TestImageUsedInAnotherMountNamespaceIsNotGivenUp(t *testing.T) {
	t.Parallel()
	needImages(t)
	b := newBench(t)
	a, c := b.start("a"), b.start("c")
	a.mustCreate("v", opts{"size": "8M"})
	inside := filepath.Join(b.dir, "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	container := exec.Command("sh", "-c", `mount --bind "$0" "$1" && echo ready && exec cat`, a.mustMount("v", "1"), inside)
	container.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	stdin, err := container.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := container.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := container.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	wantError(t, a.unmount("v", "1"), "mount namespace", "/dev/loop")
	_, err = c.mount("v", "2")
	wantError(t, err, `"a"`)
	_, err = a.mount("v", "1")
	wantError(t, err, "/dev/loop")
	if out, err := b.run("detach", "--force", "v"); err == nil || !strings.Contains(out, "/dev/loop") {
		t.Errorf("what cannot be cut off was detached: %s %v", out, err)
	}
	_, err = c.mount("v", "2")
	wantError(t, err, `"a"`)
	if err := errors.Join(stdin.Close(), container.Wait()); err != nil {
		t.Fatal(err)
	}
	a.mustUnmount("v", "1")
	c.mustMount("v", "2")
	c.mustUnmount("v", "2")
	b.checkOneWriter("v")
}

func TestAttachLogSurvivesATornLine(t *testing.T) {
	t.Parallel()
	log := attachLog{path: filepath.Join(t.TempDir(), "attach.log")}
	if err := os.WriteFile(log.path, []byte(`{"event":"att`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"a", "b"} {
		if err := log.append(t.Context(), attachEvent{Event: eventAttach, Node: node}); err != nil {
			t.Fatal(err)
		}
	}
	events, err := log.read()
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, e := range events {
		nodes = append(nodes, e.Node)
	}
	if !slices.Equal(nodes, []string{"a", "b"}) {
		t.Errorf("read %v", nodes)
	}
}
