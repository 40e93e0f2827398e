package hatest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// member is one of the framework processes, which is started again whenever it
// ends, as systemd does.
type member struct {
	*devcluster.Client
	name    string
	addr    string // host:port of its API
	program string
	args    []string
	env     func(life int) []string // nil for nothing special
	t       *testing.T
	log     *os.File
	leads   *leads

	done chan struct{} // closed when the keeper has ended

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd
	stop  bool
	exits []int // exit codes; -1 for a signal
}

// sessionTimeout is after how long without a sign of life a member has lost the
// lead: not shorter, for a busy machine must not decide about that.
const sessionTimeout = 5 * time.Second

// newMember starts a framework and keeps it running until the test ends.
func newMember(t *testing.T, name, dir, master, zk string, l *leads, args ...string) *member {
	t.Helper()
	m := prepareMember(t, name, dir, l, append([]string{"--master", master, "--zk", zk, "--zk_session_timeout", fmt.Sprint(sessionTimeout.Milliseconds())}, args...)...)
	m.run()
	return m
}

// run starts keeping the process running, until the test ends.
func (m *member) run() {
	go m.keep()
	m.t.Cleanup(func() {
		m.end()
		<-m.done
		m.HTTP.CloseIdleConnections()
		m.showLog()
	})
}

func (m *member) showLog() {
	if m.t.Failed() {
		content, err := os.ReadFile(m.log.Name())
		m.t.Logf("log of %s (%v):\n%s", m.name, err, content[max(0, len(content)-20_000):])
	}
	m.log.Close()
}

// prepareMember makes a member that does not run yet.
func prepareMember(t *testing.T, name, dir string, l *leads, args ...string) *member {
	t.Helper()
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	m := &member{
		name: name, addr: "127.0.0.1:" + strconv.Itoa(port), t: t, leads: l, log: log, done: make(chan struct{}),
		program: "dvdi-framework",
		args: append([]string{"--hostname", "127.0.0.1", "--http_address", "127.0.0.1",
			"--http_port", strconv.Itoa(port), "--logging_format", "json"}, args...),
	}
	m.Client = devcluster.NewClient("http://" + m.addr)
	return m
}

// keep runs the program again and again.
func (m *member) keep() {
	defer close(m.done)
	for life := 0; ; life++ {
		cmd := exec.Command(filepath.Join(binaries, m.program), m.args...)
		if m.env != nil {
			cmd.Env = append(os.Environ(), m.env(life)...)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			m.t.Error(err)
			return
		}
		m.mu.Lock()
		if m.stop {
			m.mu.Unlock()
			return
		}
		err = cmd.Start()
		m.cmd = cmd
		m.mu.Unlock()
		if err != nil {
			m.t.Error(err)
			return
		}
		m.read(stderr)
		_ = cmd.Wait() // the exit code says it
		m.leads.over(m.name, time.Now())
		m.mu.Lock()
		m.exits = append(m.exits, cmd.ProcessState.ExitCode())
		m.mu.Unlock()
		time.Sleep(100 * time.Millisecond) // RestartSec
	}
}

// read copies the log and notes when the process leads.
func (m *member) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		_, _ = m.log.Write(append(lines.Bytes(), '\n')) // for people only
		var line struct {
			Time  string `json:"ts"`
			Msg   string `json:"msg"`
			Epoch uint64 `json:"epoch"`
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.000Z0700", line.Time)
		if err != nil {
			continue
		}
		switch line.Msg {
		case "leading":
			m.leads.begin(m.name, line.Epoch, at)
		case "not leading any more":
			m.leads.over(m.name, at)
		}
	}
}

// kill ends the process as kill -9 does; the keeper starts it again.
func (m *member) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Kill() // it may have ended
	}
}

// pause freezes the process; resume ends that.
func (m *member) pause()  { m.signal(syscall.SIGSTOP) }
func (m *member) resume() { m.signal(syscall.SIGCONT) }

func (m *member) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.cmd.Process.Signal(s) // it may have ended
}

// end stops the process for good.
func (m *member) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop = true
	if m.cmd != nil && m.cmd.Process != nil {
		_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
}

// exited returns how often the process has ended.
func (m *member) exited() (times int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.exits)
}

// leads records who led when.
type leads struct {
	mu   sync.Mutex // guards all
	list []lead
}

type lead struct {
	name  string
	epoch uint64
	from  time.Time
	to    time.Time // zero while it lasts
}

func (l *leads) begin(name string, epoch uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, lead{name: name, epoch: epoch, from: at})
}

func (l *leads) over(name string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.list {
		if l.list[i].name == name && l.list[i].to.IsZero() {
			l.list[i].to = at
		}
	}
}

// killed returns how often a signal has ended the process.
func (m *member) killed() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, code := range m.exits {
		if code < 0 {
			n++
		}
	}
	return n
}

// count is how often the lead has changed hands.
func (l *leads) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list)
}

// check fails the test if two led at the same time, or an epoch did not grow.
func (l *leads) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, b := range l.list {
		if i == 0 {
			continue
		}
		a := l.list[i-1]
		if a.epoch >= b.epoch {
			t.Errorf("%s led in epoch %d after %s in %d", b.name, b.epoch, a.name, a.epoch)
		}
		if a.to.IsZero() || a.to.After(b.from) {
			t.Errorf("%s led from %s while %s led until %s", b.name, b.from, a.name, a.to)
		}
	}
}
