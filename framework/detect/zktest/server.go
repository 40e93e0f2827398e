// Package zktest runs a real ZooKeeper for tests.
package zktest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// jar is where Debian's package zookeeper has the server.
const jar = "/usr/share/java/zookeeper.jar"

// startTimeout bounds the start of the server, a Java process.
const startTimeout = 2 * time.Minute

// TickTime is the server's unit of time; sessions time out after 2 to 20 of it
// unless StartWithSessions says otherwise.
const TickTime = 200 * time.Millisecond

// Server is a ZooKeeper of one server on a free port of the loopback interface,
// with its data in a directory of the test. It may be stopped, started again
// with the same data and port, and paused.
type Server struct {
	Addr string // host:port

	t       testing.TB
	heap    int           // MiB
	longest time.Duration // session
	config  string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process has ended and was waited for
	output  bytes.Buffer  // of the running process, to be read after its end
}

// Start starts a server that ends with the test. The test is skipped where the
// Debian package zookeeper is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	return startServer(t, &Server{})
}

// StartWithHeap is Start with so many MiB of memory for the server, which keeps
// all nodes in it, and with sessions that may last a minute: what writes that much
// keeps the machine busy.
func StartWithHeap(t testing.TB, mib int) *Server {
	t.Helper()
	return startServer(t, &Server{heap: mib, longest: time.Minute})
}

// StartWithSessions is Start with sessions that may last so long.
func StartWithSessions(t testing.TB, longest time.Duration) *Server {
	t.Helper()
	return startServer(t, &Server{longest: longest})
}

func startServer(t testing.TB, s *Server) *Server {
	t.Helper()
	s.t, s.heap, s.longest = t, cmp.Or(s.heap, 64), cmp.Or(s.longest, 20*TickTime)
	java, err := exec.LookPath("java")
	if _, missing := os.Stat(jar); err != nil || missing != nil {
		t.Skip("this test needs ZooKeeper: install the Debian package zookeeper")
	}
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "zoo.cfg")
	settings := fmt.Sprintf("tickTime=%d\ninitLimit=10\nsyncLimit=5\ndataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\n"+
		"maxClientCnxns=0\nadmin.enableServer=false\nmaxSessionTimeout=%d\n", TickTime.Milliseconds(), filepath.Join(dir, "data"), port, s.longest.Milliseconds())
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config, s.Addr = config, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.start(java)
	t.Cleanup(s.Stop)
	return s
}

func (s *Server) start(java string) {
	s.t.Helper()
	s.output.Reset()
	s.cmd = exec.Command(java, fmt.Sprintf("-Xmx%dm", s.heap), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.jmx.log4j.disable=true",
		"-cp", jar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", s.config)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its state tells more
	}()
	if err := s.ready(); err != nil {
		s.Stop()
		s.t.Fatalf("ZooKeeper does not start: %v\n%s", err, s.output.Bytes())
	}
}

// ready waits until the server serves. A client that comes too early would wait
// for an answer that never arrives.
func (s *Server) ready() error {
	for end := time.Now().Add(startTimeout); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if strings.Contains(s.status(), "Mode: standalone") {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("it ended: %s", s.cmd.ProcessState)
		default:
		}
	}
	return errors.New("not serving after " + startTimeout.String())
}

// status asks by the command srvr, the one that every server allows.
func (s *Server) status() string {
	conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(time.Second)) != nil {
		return ""
	}
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return ""
	}
	text, _ := io.ReadAll(conn) // half an answer does not match
	return string(text)
}

// Client connects to the server; the caller closes the connection, which ends
// its ephemeral nodes.
func (s *Server) Client() *zk.Conn {
	s.t.Helper()
	conn, _, err := zk.Connect([]string{s.Addr}, s.longest, zk.WithLogger(silent{}), zk.WithLogInfo(false))
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// Stop kills the server, as a crash would; stopping again does nothing.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // fails only if the process has ended already
	<-s.ended
	s.cmd = nil
}

// Restart starts the server again after Stop.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	java, err := exec.LookPath("java")
	if err != nil {
		s.t.Fatal(err)
	}
	s.start(java)
}

// Pause freezes the server; its sessions do not expire meanwhile, but their
// clients hear nothing. It returns when all of the server's threads have
// stopped: the signal alone leaves them time for an answer.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	for deadline := time.Now().Add(pauseLimit); !s.paused(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("ZooKeeper still runs %s after SIGSTOP", pauseLimit)
		}
	}
}

const pauseLimit = 10 * time.Second

// paused tells whether every thread of the server is stopped (proc(5),
// /proc/pid/task/tid/stat: the state follows the name in parentheses).
func (s *Server) paused() bool {
	s.t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil || len(stats) == 0 {
		s.t.Fatalf("no threads of ZooKeeper in /proc: %v", err)
	}
	for _, name := range stats {
		line, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if rest := line[bytes.LastIndexByte(line, ')')+1:]; !bytes.HasPrefix(rest, []byte(" T")) {
			return false
		}
	}
	return true
}

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}
