package proc_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
)

// start runs a shell command that prints a line when it is ready.
func start(t *testing.T, command string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

func TestRead(t *testing.T) {
	s, err := proc.Read(os.Getpid())
	if err != nil || s.Parent != os.Getppid() || s.Group != syscall.Getpgrp() || s.RSS == 0 || s.Threads == 0 || s.Zombie || s.Kernel {
		t.Errorf("this process: %+v, %v", s, err)
	}
	if !s.Alive() {
		t.Error("this process is not alive")
	}
	if (proc.Process{PID: s.PID, Start: s.Start + 1}).Alive() {
		t.Error("another process with the same pid is alive")
	}
	if kernel, err := proc.Read(2); err == nil && !kernel.Kernel && kernel.Parent == 0 && os.Getpid() != 2 {
		t.Logf("process 2 is no thread of the kernel here: %+v", kernel)
	}
	if _, err := proc.Read(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}

// A process that has ended but was not reaped is not alive.
func TestZombieIsNotAlive(t *testing.T) {
	cmd, _ := start(t, "echo ready; read x", "A=b")
	s, err := proc.Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); s.Alive(); {
		if time.Now().After(deadline) {
			t.Fatal("still alive")
		}
	}
	if _, err := proc.Read(s.PID); err != nil {
		t.Errorf("the zombie has gone already: %v", err)
	}
}

// Kill reaches a whole tree: children, processes of the same session whose
// parent has ended, and what only the environment gives away.
func TestKillFindsEveryone(t *testing.T) {
	const entry = "PROC_TEST_MARK=one of its kind"
	cmd, line := start(t, `
		sleep 1000 & child=$!
		(sleep 1000 & echo $! > /dev/fd/3) 3>&1 | { read orphan; setsid sleep 1000 & echo $child $orphan $!; }
		wait`, entry)
	var pids []int
	for text := range strings.FieldsSeq(line) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != 3 {
		t.Fatalf("pids %v", pids)
	}
	if found, err := proc.WithEnvironment(entry); err != nil || len(found) < 4 {
		t.Fatalf("found by environment: %v, %v", found, err)
	}
	if found, err := proc.WithEnvironment(entry + "?"); err != nil || len(found) != 0 {
		t.Fatalf("found by another environment: %v, %v", found, err)
	}
	tree, err := proc.Tree(cmd.Process.Pid)
	if err != nil || len(tree) < 3 {
		t.Fatalf("tree: %v, %v", tree, err)
	}
	if err := proc.Kill(func() ([]proc.Stat, error) { return proc.WithEnvironment(entry) }, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if s, err := proc.Read(pid); err == nil && !s.Zombie {
			t.Errorf("process %d is left", pid)
		}
	}
}
