// Package executor is the command executor: a process of its own, between
// agent and task, that outlives the agent process. It follows
// src/launcher/executor.cpp of Apache Mesos. It is the program that embeds the
// cluster, started again under another name; see Main.
package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/dockervolume"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
)

// Name is argv[0] of an executor's process.
const Name = "mesos-executor"

// The files in the executor's runtime directory.
const (
	launchFile = "launch.json"
	pidFile    = "pid"      // the proc.Process, as JSON
	statusFile = "statuses" // log of TaskStatus messages, in the order of sending
	socketFile = "executor.sock"
)

// listenerFD is the descriptor on which an executor gets its listening socket.
const listenerFD = 3

// Launch tells an executor what to do. The agent writes it into the runtime
// directory; the executor reads it when it starts.
type Launch struct {
	// Task is the TaskInfo, encoded as protobuf.
	Task []byte `json:"task"`
	// Sandbox is the working directory of executor and task.
	Sandbox string `json:"sandbox"`
	// Env is the environment of executor and task; the command's own comes
	// on top for the task.
	Env []string `json:"env"`
	// Mounts are made before the task starts: bound in the executor's own
	// mount namespace, or linked when Link is set.
	Mounts []dockervolume.Mount `json:"mounts"`
	Link   bool                 `json:"link"`
	// HostMounts are mounts of the host that the container may keep, see
	// MountKeys.
	HostMounts []string `json:"host_mounts"`
	// Keep lists paths that the container has to see, whatever they are on.
	Keep []string `json:"keep"`
	// Credential is the user of the task; nil means the agent's.
	Credential *Credential `json:"credential,omitempty"`
	// Killing tells to report TASK_KILLING.
	Killing bool `json:"killing"`
	// RecoveryTimeout is how long the executor goes on without an agent.
	RecoveryTimeout time.Duration `json:"recovery_timeout"`
}

// Credential is a Unix user.
type Credential struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// Start starts an executor with its own session, in a mount namespace of its
// own unless mounts are only linked, with output to the sandbox's files stdout
// and stderr. The runtime directory must belong to this executor alone. The
// executor is a child of this process until this process ends; Reap removes
// what is left of it after its end.
func Start(runtimeDir string, l Launch) (proc.Process, error) {
	data, err := json.Marshal(l)
	if err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	if err := checkpoint.Write(filepath.Join(runtimeDir, launchFile), data); err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	socket, err := listen(runtimeDir)
	if err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	defer socket.Close()
	stdout, stderr, err := openOutput(l.Sandbox)
	if err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	defer stdout.Close()
	defer stderr.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	defer null.Close()
	attr := &os.ProcAttr{
		Dir:   l.Sandbox,
		Env:   l.Env,
		Files: []*os.File{null, stdout, stderr, socket},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if !l.Link {
		attr.Sys.Cloneflags = syscall.CLONE_NEWNS
	}
	p, err := os.StartProcess(self, []string{Name, runtimeDir}, attr)
	if err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	pid := p.Pid
	// Not Wait: the executor may outlive this process and everything in it.
	if err := p.Release(); err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	stat, err := proc.Read(pid)
	if err != nil {
		return proc.Process{}, fmt.Errorf("start executor: %w", err)
	}
	if err := writePID(runtimeDir, stat.Process); err != nil {
		return stat.Process, fmt.Errorf("start executor: %w", err)
	}
	return stat.Process, nil
}

func writePID(runtimeDir string, p proc.Process) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return checkpoint.Write(filepath.Join(runtimeDir, pidFile), data)
}

// Find returns the executor that was started with the runtime directory and
// its sandbox. The process is zero if none was started, or if the agent was
// killed while it did so; that executor has not started its task.
func Find(runtimeDir string) (process proc.Process, sandbox string, err error) {
	l, _, err := readLaunch(runtimeDir)
	if errors.Is(err, os.ErrNotExist) {
		return proc.Process{}, "", nil
	}
	if err != nil {
		return proc.Process{}, "", err
	}
	data, err := os.ReadFile(filepath.Join(runtimeDir, pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return proc.Process{}, l.Sandbox, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &process)
	}
	if err != nil {
		return proc.Process{}, "", fmt.Errorf("read the process of the executor: %w", err)
	}
	return process, l.Sandbox, nil
}

// self is this program, also when its file has been replaced or removed.
const self = "/proc/self/exe"

func openOutput(sandbox string) (stdout, stderr *os.File, err error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if stdout, err = os.OpenFile(filepath.Join(sandbox, "stdout"), flags, 0o644); err != nil {
		return nil, nil, err
	}
	if stderr, err = os.OpenFile(filepath.Join(sandbox, "stderr"), flags, 0o644); err != nil {
		return nil, nil, errors.Join(err, stdout.Close())
	}
	return stdout, stderr, nil
}

// listen makes the socket before the executor exists, so that the agent can
// connect at once.
func listen(runtimeDir string) (*os.File, error) {
	address, closeDir, err := socketAddress(runtimeDir)
	if err != nil {
		return nil, err
	}
	defer closeDir()
	l, err := net.ListenUnix("unix", address)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	return f, errors.Join(err, l.Close())
}

// socketAddress names the socket through a descriptor of its directory, since
// the path itself may be longer than a socket's address can be.
func socketAddress(runtimeDir string) (*net.UnixAddr, func(), error) {
	dir, err := os.Open(runtimeDir)
	if err != nil {
		return nil, nil, err
	}
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketFile)
	return &net.UnixAddr{Net: "unix", Name: name}, func() { _ = dir.Close() }, nil
}

// Reap waits for an executor that has ended or is about to, if it is a child
// of this process; another's child is reaped by its own parent.
func Reap(p proc.Process) {
	if s, err := proc.Read(p.PID); err != nil || s.Process != p {
		return // gone; the pid may be another child's by now
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.PID, &status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			return // reaped, or ECHILD
		}
	}
}

// Remove deletes the runtime directory with the socket in it.
func Remove(runtimeDir string) error { return os.RemoveAll(runtimeDir) }
