package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
)

// probeArgument makes an executor's process try mounts instead; see Probe.
const probeArgument = "--probe-mounts"

// mainCalled is process-wide because Main is: it guards against a program that
// starts itself again, as an executor, without being ready for it.
var mainCalled atomic.Bool

// ErrNoMain is returned by Ready.
var ErrNoMain = errors.New("this program does not call embeddedmesos.Main first thing in main (a test: in TestMain)," +
	" so it cannot be started again as an executor: add that call")

// Ready fails with ErrNoMain when this program never called Main.
func Ready() error {
	if !mainCalled.Load() {
		return ErrNoMain
	}
	return nil
}

// Main runs the executor, and never returns, if this process was started as
// one. Otherwise it does nothing.
func Main() {
	mainCalled.Store(true)
	if len(os.Args) < 2 || os.Args[0] != Name {
		return
	}
	if os.Args[1] == probeArgument {
		os.Exit(exitCode(tryMounts()))
	}
	os.Exit(exitCode(run(os.Args[1])))
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
	return 1
}

func run(runtimeDir string) error {
	// Interrupts of the terminal concern the program that started us.
	signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGPIPE, unix.SIGTTOU)
	syscall.CloseOnExec(listenerFD)
	l, task, err := readLaunch(runtimeDir)
	if err != nil {
		return err
	}
	// Orphans of the task become our children, not those of process 1, so
	// that none escapes the end of the container.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	listener, err := inheritListener()
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := arrange(l); err != nil {
		return errors.Join(err, reportFailure(listener, err))
	}
	log, _, err := checkpoint.OpenLog(filepath.Join(runtimeDir, statusFile))
	if err != nil {
		return errors.Join(err, reportFailure(listener, err))
	}
	defer log.Close()
	e := newExecutor(l, task, log)
	err = e.serve(listener)
	return errors.Join(err, removeSocket(runtimeDir))
}

func readLaunch(runtimeDir string) (Launch, *mesos.TaskInfo, error) {
	var l Launch
	data, err := os.ReadFile(filepath.Join(runtimeDir, launchFile))
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	task := new(mesos.TaskInfo)
	if err == nil {
		err = task.Unmarshal(l.Task)
	}
	if err != nil {
		return Launch{}, nil, fmt.Errorf("read launch information of the executor: %w", err)
	}
	return l, task, nil
}

func inheritListener() (*net.UnixListener, error) {
	f := os.NewFile(listenerFD, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherit the listening socket: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("inherit the listening socket: it is not a Unix socket"), l.Close())
	}
	unixListener.SetUnlinkOnClose(false)
	return unixListener, nil
}

// removeSocket leaves the rest of the directory to the agent, which reads the
// statuses.
func removeSocket(runtimeDir string) error {
	err := os.Remove(filepath.Join(runtimeDir, socketFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// failureTimeout is how long an executor that cannot start its task waits for
// the agent to ask.
const failureTimeout = 10 * time.Second

func reportFailure(l *net.UnixListener, failure error) error {
	if err := l.SetDeadline(time.Now().Add(failureTimeout)); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return fmt.Errorf("report to the agent: %w", err)
	}
	defer conn.Close()
	return transmit(conn, report{Error: failure.Error()})
}

// Probe tells why executors cannot have mount namespaces of their own here,
// nil if they can. It tries with a process, since capabilities alone do not
// tell what a sandbox around this process forbids.
func Probe() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p, err := os.StartProcess(self, []string{Name, probeArgument}, &os.ProcAttr{
		Files: []*os.File{null, null, null},
		Sys:   &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("a process with a mount namespace of its own cannot be started: %w", err)
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if !state.Success() {
		return errors.New("a mount in a mount namespace of its own is not permitted")
	}
	return nil
}

func tryMounts() error {
	if err := detachPropagation(); err != nil {
		return err
	}
	return unix.Mount("/", "/", "", unix.MS_BIND, "")
}

// killLimit bounds how long processes may take to end after SIGKILL; one in an
// uninterruptible sleep, say on a dead network file system, can take forever.
const killLimit = 10 * time.Second
