package dockervolume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
)

// errTimedOut is the cause that ends a call that took too long.
var errTimedOut = errors.New("timed out")

// outputDelay is how long the output of a call is waited for that has ended, or was
// killed, while somebody else holds its pipes. Not shorter: what the call itself has
// said, a busy machine may read late, and the call would count as failed.
const outputDelay = 30 * time.Second

// Client executes dvdcli as isolators/docker/volume/driver.cpp does: standard
// input is /dev/null, output goes to pipes, environment and directory are the
// agent's, and no call outlives the agent. It is safe for concurrent use.
type Client struct {
	// Path of the binary, which is also its argv[0].
	Path string
	// Env is added to the environment of this process.
	Env []string
	// MountTimeout and UnmountTimeout end a call with SIGKILL.
	MountTimeout, UnmountTimeout time.Duration
	// Gate, when set, is asked before each execution; it blocks while the
	// agent is frozen.
	Gate func(context.Context) error
}

// Mount returns the path that dvdcli prints, without surrounding white space.
// The error's text is what the real isolator fails with.
func (c *Client) Mount(ctx context.Context, v Volume, options map[string]string) (string, error) {
	args := []string{"mount", "--volumedriver=" + v.Driver, "--volumename=" + v.Name}
	for key, value := range options { // in no fixed order, as those of the real one
		args = append(args, "--volumeopts="+key+"="+value)
	}
	out, err := c.run(ctx, c.MountTimeout, args)
	return string(bytes.TrimSpace(out)), err
}

// Unmount is called once when the last container of the volume is gone.
func (c *Client) Unmount(ctx context.Context, v Volume) error {
	_, err := c.run(ctx, c.UnmountTimeout,
		[]string{"unmount", "--volumedriver=" + v.Driver, "--volumename=" + v.Name})
	return err
}

func (c *Client) run(ctx context.Context, timeout time.Duration, args []string) ([]byte, error) {
	if c.Path == "" {
		return nil, failuref("The 'docker/volume' isolator cannot get dvdcli command: " +
			"the embedded cluster was started without the path of one")
	}
	if c.Gate != nil {
		if err := c.Gate(ctx); err != nil {
			return nil, err
		}
	}
	callCtx, cancel := context.WithTimeoutCause(ctx, timeout, errTimedOut)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(callCtx, c.Path, args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return killTree(cmd.Process.Pid) }
	cmd.WaitDelay = outputDelay
	err := runOnOneThread(cmd)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("dvdcli %s: %w", args[0], context.Cause(ctx))
	case errors.Is(context.Cause(callCtx), errTimedOut) && err != nil:
		return nil, failuref("'%s' timed out in %s", args[0], duration(timeout))
	case errors.As(err, &exit):
		return nil, failuref("Unexpected termination of the subprocess: %s", stderr.String())
	case err != nil:
		return nil, failuref("Failed to execute '%s': %w", c.Path, err)
	}
	return stdout.Bytes(), nil
}

// runOnOneThread keeps the thread that starts the command until it has ended:
// the kernel sends the death signal when that thread ends, not the process.
func runOnOneThread(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// killTree kills what the leader of a process group has started, also what
// left the group.
func killTree(leader int) error {
	tree, err := proc.Tree(leader)
	if kill := unix.Kill(-leader, unix.SIGKILL); kill != nil && !errors.Is(kill, unix.ESRCH) {
		err = errors.Join(err, kill)
	}
	proc.Signal(tree, unix.SIGKILL)
	return err
}

// duration writes a duration as Mesos does (stout/duration.hpp): in the
// largest unit that leaves no remainder.
func duration(d time.Duration) string {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{time.Hour, "hrs"}, {time.Minute, "mins"}, {time.Second, "secs"}, {time.Millisecond, "ms"}} {
		if d >= unit.length && d%unit.length == 0 {
			return fmt.Sprintf("%d%s", d/unit.length, unit.name)
		}
	}
	return d.String()
}

// failuref returns an error in the words of Apache Mesos: frameworks get to
// see it, unchanged, as part of a task's message.
func failuref(format string, args ...any) error { return fmt.Errorf(format, args...) }
