package executor

import (
	"errors"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// children starts processes and reaps every child of this process, the
// adopted ones included.
type children struct {
	mu      sync.Mutex // held while a process starts, so that its end is not missed; guards waiting
	waiting map[int]chan syscall.WaitStatus
	sigchld chan os.Signal
}

func newChildren() *children {
	c := &children{
		waiting: make(map[int]chan syscall.WaitStatus),
		sigchld: make(chan os.Signal, 1),
	}
	signal.Notify(c.sigchld, unix.SIGCHLD)
	go func() { // owned by the process: it ends with it
		for range c.sigchld {
			c.reap()
		}
	}()
	return c
}

// start runs a program in a session of its own. The channel delivers its wait
// status.
func (c *children) start(argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	path, err := lookPath(argv[0], attr.Env)
	if err != nil {
		return 0, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return 0, nil, &os.PathError{Op: "execute", Path: path, Err: err}
	}
	ended := make(chan syscall.WaitStatus, 1)
	c.waiting[pid] = ended
	return pid, ended, nil
}

func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended, ok := c.waiting[pid]; ok {
			delete(c.waiting, pid)
			ended <- status
		}
	}
}

// lookPath searches the PATH of the given environment, as execvpe(3) does.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = value
		}
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		candidate := dir + "/" + name
		info, err := os.Stat(candidate)
		if err == nil && info.Mode().IsRegular() && unix.Access(candidate, unix.X_OK) == nil {
			return candidate, nil
		}
	}
	return "", &os.PathError{Op: "execute", Path: name, Err: os.ErrNotExist}
}
