package hostmount

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

// A process has ended when it was killed and waited for, and when its pid is
// another's; not when it runs, nor when it cannot be known.
func TestProcess(t *testing.T) {
	tables := New()
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	alive, err := tables.Process(child.Process.Pid)
	if err != nil {
		t.Error(err)
	}
	if tables.Ended(alive) {
		t.Error("ended while it runs")
	}
	reused := alive
	reused.Started++
	if !tables.Ended(reused) {
		t.Error("another one of its pid is taken for it")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it tells the signal
	if !tables.Ended(alive) {
		t.Error("not ended after SIGKILL")
	}
	foreign := alive
	foreign.Namespace = "pid:[1]"
	if tables.Ended(foreign) {
		t.Error("a process of another pid namespace is said to have ended")
	}
	if _, err := tables.Process(child.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is gone: %v", err)
	}
	if self, err := tables.Process(os.Getpid()); err != nil || self.Started == 0 || self.Namespace == "" {
		t.Errorf("%+v, %v", self, err)
	}
}
