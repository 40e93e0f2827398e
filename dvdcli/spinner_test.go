package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// openTerminal opens a pseudo terminal (pty(7)): what is written to the second is
// read from the first.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() }) // the test may have closed it
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// watched is a command whose stderr is a terminal.
type watched struct {
	cmd     *exec.Cmd
	stdout  strings.Builder
	reading sync.WaitGroup

	mu    sync.Mutex // guards shown
	shown strings.Builder
}

func (b *box) watch(t *testing.T, args ...string) *watched {
	t.Helper()
	master, slave := openTerminal(t)
	w := &watched{cmd: b.command(args...)}
	w.cmd.Stdout, w.cmd.Stderr = &w.stdout, slave
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	w.reading.Go(func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			w.mu.Lock()
			w.shown.Write(buffer[:n])
			w.mu.Unlock()
			if err != nil {
				return // EIO: nobody has the terminal open any more
			}
		}
	})
	return w
}

func (w *watched) seen() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shown.String()
}

// ends waits for the end of the command.
func (w *watched) ends(t *testing.T) {
	t.Helper()
	if err := w.cmd.Wait(); err != nil {
		t.Error(err)
	}
	w.reading.Wait()
}

// A person at a terminal sees that a long mount is still going on, and for how
// long; it is gone from the line afterwards. Results stay on stdout, and JSON is
// left alone.
func TestSpinner(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	p.Add(volumetest.Rule{Method: "Mount", Do: volumetest.DoHold})
	moving := regexp.MustCompile(`[|/\\-] mounting v[0-9], [0-9]+s`)
	quiet := b.watch(t, mountArgs(p, "v1", "--output=json")...)
	p.AwaitHeld(1)
	text := b.watch(t, mountArgs(p, "v2")...)
	p.AwaitHeld(2)
	await(t, "the spinner", func() bool { return moving.MatchString(text.seen()) })
	p.Clear()
	p.Release()
	text.ends(t)
	quiet.ends(t)
	if text.stdout.String() != p.Mountpoint("v2")+"\n" || !strings.HasSuffix(text.seen(), "\r\x1b[K") {
		t.Errorf("stdout %q, the terminal shows %q", text.stdout.String(), text.seen())
	}
	if !strings.Contains(quiet.stdout.String(), p.Mountpoint("v1")) || quiet.seen() != "" {
		t.Errorf("as JSON: stdout %q, the terminal shows %q", quiet.stdout.String(), quiet.seen())
	}
}
