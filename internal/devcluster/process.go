package devcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a program that the cluster runs beside itself, in a process group
// of its own so that a terminal's Ctrl-C reaches only its owner.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  *tail

	done chan struct{} // closed when the process was reaped
	err  error         // its exit, valid after done
}

// startProcess runs path with args. Its output goes to log (may be nil), and
// the last of it is kept for error messages. The kernel kills the process when
// this one ends, however it ends.
func startProcess(name, path string, args, env []string, log io.Writer) (*Process, error) {
	p := &Process{name: name, out: &tail{}, done: make(chan struct{})}
	w := io.Writer(p.out)
	if log != nil {
		w = io.MultiWriter(p.out, log)
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// Its descendants may hold the output pipe open after it ended. What it has
	// written itself is read long before that.
	p.cmd.WaitDelay = 10 * time.Second
	started := make(chan error)
	go p.own(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// own starts the process, reports how that went, and waits for its end. It
// keeps its thread all the while: Pdeathsig is sent when the thread ends that
// started the process, and the runtime ends threads that it does not need.
func (p *Process) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output returns the last 16 KiB that the process wrote.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process ended: nil for status 0. It is valid after Done.
func (p *Process) Err() error { return p.err }

// Signal sends sig; a process that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() {
	// The only error is that it has ended.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the process to end with SIGTERM and kills it when ctx ends first.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("stop %s: it did not end on SIGTERM and was killed: %w", p.name, ctx.Err())
	}
}

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

const tailSize = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(b)
	if extra := t.buf.Len() - tailSize; extra > 0 {
		t.buf.Next(extra)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
