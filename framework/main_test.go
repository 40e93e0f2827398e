package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// TestMain lets the test binary be the program itself, so that its exit codes
// and signals are tested on a real process.
func TestMain(m *testing.M) {
	if os.Getenv("DVDI_TEST_AS_PROGRAM") != "" {
		main()
		return
	}
	embeddedmesos.Main() // tests start one
	os.Exit(m.Run())
}

// program is a running dvdi-framework.
type program struct {
	cmd    *exec.Cmd
	stderr *bytes.Buffer
	lines  chan string
}

// start runs the program with a state directory of its own and a master that
// does not answer; args may override both.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	all := append([]string{"--master=" + silentMaster(t), "--data-dir=" + t.TempDir(),
		"--http_address=127.0.0.1", "--http_port=0"}, args...)
	cmd := exec.CommandContext(ctx, os.Args[0], all...)
	cmd.Env = append(os.Environ(), "DVDI_TEST_AS_PROGRAM=1")
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { // what it writes must not come after its directory has gone
		cancel()
		if cmd.ProcessState == nil {
			_ = cmd.Wait() // killed
		}
	})
	p := &program{cmd: cmd, stderr: &bytes.Buffer{}, lines: make(chan string, 1000)}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// silentMaster is the address of a listener that accepts and says nothing.
func silentMaster(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// exit waits for the end and returns the exit code and what was written to
// stderr since it was last read.
func (p *program) exit(t *testing.T) (int, string) {
	t.Helper()
	for line := range p.lines {
		p.stderr.WriteString(line + "\n")
	}
	_ = p.cmd.Wait() // the exit code says it all
	return p.cmd.ProcessState.ExitCode(), p.stderr.String()
}

// serving waits until the API is open and returns its address.
func (p *program) serving(t *testing.T) string {
	t.Helper()
	for line := range p.lines {
		p.stderr.WriteString(line + "\n")
		if _, rest, ok := strings.Cut(line, `"api": "`); ok {
			return rest[:strings.Index(rest, `"`)]
		}
	}
	t.Fatalf("the program ended:\n%s", p.stderr)
	return ""
}

func TestBadFlag(t *testing.T) {
	for _, args := range [][]string{{"--http_port=x"}, {"--nonsense"}, {"--failover_timeout=0"}, {"--logging_level=loud"}, {"--master=ftp://m"}, {"--launch_tokens=5"}, {"backup", "--nonsense"}, {"import", "--nonsense"}, {"explain", "--nonsense"}, {"--mesos_ca=/does/not/exist"}} {
		code, out := start(t, args...).exit(t)
		if code != exitBadFlag || !strings.Contains(out, strings.TrimLeft(strings.SplitN(args[0], "=", 2)[0], "-")) {
			t.Errorf("%v: exit code %d, output %q", args, code, out)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	code, out := start(t, "--http_port="+port).exit(t)
	if code != exitPort || !strings.Contains(out, port) || !strings.Contains(out, "--http_port") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestUnreadableState(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "framework.db")
	garbage := bytes.Repeat([]byte("not a database "), 1000)
	if err := os.WriteFile(file, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := start(t, "--data-dir="+dir).exit(t)
	if code != exitStateUnusable || !strings.Contains(out, file) || !strings.Contains(out, "backup") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	if left, err := os.ReadFile(file); err != nil || !bytes.Equal(left, garbage) {
		t.Errorf("the state file was changed (%v)", err)
	}
}

func TestSecondFrameworkOnTheSameState(t *testing.T) {
	dir := t.TempDir()
	first := start(t, "--data-dir="+dir)
	first.serving(t)
	code, out := start(t, "--data-dir="+dir).exit(t)
	if code != exitStateUnusable || !strings.Contains(out, dir) || !strings.Contains(out, "stop the other") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out := first.exit(t); code != 0 {
		t.Errorf("the first framework: exit code %d, output %q", code, out)
	}
}

func TestServesTheAPIAndStopsOnSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t)
		addr := p.serving(t)
		resp, err := http.Get("http://" + addr + "/ping")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("/ping: %s", resp.Status)
		}
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code, out := p.exit(t); code != 0 {
			t.Errorf("%v: exit code %d, output %q", sig, code, out)
		}
	}
}

// Whatever level is set, accepted changes are logged.
func TestAuditLogAtEveryLevel(t *testing.T) {
	for _, level := range []string{"debug", "info", "warn", "error"} {
		var out strings.Builder
		log, err := newLogger(&config.Config{LogLevel: level, LogFormat: "json"}, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.Named("api").With(zap.Int("n", 1)).Named(api.AuditLogger).Info("change accepted")
		log.Named("api").Info("something else")
		log.Named("api").Error("trouble")
		if got := zapcore.LevelOf(log.With(zap.Int("n", 1)).Core()).String(); got != level {
			t.Errorf("%s is told as %s", level, got)
		}
		if got := out.String(); !strings.Contains(got, "change accepted") || !strings.Contains(got, "trouble") ||
			strings.Contains(got, "something else") != (level == "info" || level == "debug") {
			t.Errorf("%s: %s", level, got)
		}
	}
}
