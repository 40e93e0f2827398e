package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// runMain in the environment makes the test binary the plugin itself, so that
// the tests talk to real processes and can kill them.
const runMain = "VOLUME_PLUGIN_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// bench is one store with the plugins that a test starts on it.
type bench struct {
	t    *testing.T
	dir  string
	root string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir, root: filepath.Join(dir, "store")}
	t.Cleanup(func() { // before the directory is deleted, and with it what is mounted there
		for _, target := range b.mounted() {
			if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", target, err)
			}
		}
	})
	return b
}

// mounted lists the mount points below the bench's directory.
func (b *bench) mounted() []string {
	b.t.Helper()
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(b.dir))
	if err != nil {
		b.t.Fatal(err)
	}
	var targets []string
	for _, info := range infos {
		targets = append(targets, info.Mountpoint)
	}
	return targets
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	return cmd
}

// run runs an operator's command and returns its output.
func (b *bench) run(args ...string) (string, error) {
	b.t.Helper()
	out, err := command(append([]string{"--root", b.root}, args...)...).CombinedOutput()
	return string(out), err
}

// plugin is one running plugin process.
type plugin struct {
	t      *testing.T
	node   string
	socket string
	mounts string
	cmd    *exec.Cmd
	client *http.Client
	exited chan struct{}
	stderr *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs the plugin of a node until it answers.
func (b *bench) start(node string, flags ...string) *plugin {
	b.t.Helper()
	p, err := b.tryStart(node, flags...)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// tryStart returns an error with the process's output if it ends instead of
// answering.
func (b *bench) tryStart(node string, flags ...string) (*plugin, error) {
	b.t.Helper()
	p := &plugin{
		t: b.t, node: node,
		socket: filepath.Join(b.dir, node+".sock"),
		mounts: filepath.Join(b.dir, "mounts-"+node),
		exited: make(chan struct{}),
		stderr: new(syncBuffer),
	}
	args := []string{"--root", b.root, "--node", node, "--mounts", p.mounts, "--socket", p.socket}
	p.cmd = command(append(args, flags...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go p.follow(stderr)
	p.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket)
		},
	}}
	b.t.Cleanup(p.kill)
	for {
		select {
		case <-p.exited:
			return nil, fmt.Errorf("plugin of node %s ended: %s", node, p.stderr)
		case <-time.After(5 * time.Millisecond):
		}
		if strings.Contains(p.stderr.String(), `"serving"`) && p.answers() {
			return p, nil
		}
	}
}

func (p *plugin) follow(stderr io.Reader) {
	defer close(p.exited)
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		p.stderr.mu.Lock()
		p.stderr.buf.WriteString(line)
		p.stderr.mu.Unlock()
		if err != nil {
			break
		}
	}
	_ = p.cmd.Wait()
}

func (p *plugin) answers() bool {
	response, err := p.client.Post("http://plugin/Plugin.Activate", "", nil)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return err == nil && strings.Contains(string(body), `"VolumeDriver"`)
}

func (p *plugin) kill() { p.signal(syscall.SIGKILL) }

// signal sends the signal and waits for the end of the process.
func (p *plugin) signal(sig syscall.Signal) {
	select {
	case <-p.exited:
		return
	default:
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Errorf("signal: %v", err)
	}
	<-p.exited
}

type answer struct {
	Err          string
	Mountpoint   string
	Volume       *answeredVolume
	Volumes      []answeredVolume
	Capabilities struct{ Scope string }
}

type answeredVolume struct {
	Name, Mountpoint string
	Status           map[string]any
}

// call makes one call; what the plugin says in Err comes back as an error.
func (p *plugin) call(method string, request any) (answer, error) {
	p.t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := p.client.Post("http://plugin/VolumeDriver."+method, "application/json", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	var a answer
	if err := json.NewDecoder(response.Body).Decode(&a); err != nil {
		return a, fmt.Errorf("%s: status %d: %w", method, response.StatusCode, err)
	}
	if a.Err != "" || response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s: status %d: %s", method, response.StatusCode, a.Err)
	}
	return a, nil
}

type opts map[string]string

func (p *plugin) create(name string, options opts) error {
	p.t.Helper()
	_, err := p.call("Create", map[string]any{"Name": name, "Opts": options})
	return err
}

func (p *plugin) mount(name, id string) (string, error) {
	p.t.Helper()
	a, err := p.call("Mount", map[string]any{"Name": name, "ID": id})
	return a.Mountpoint, err
}

func (p *plugin) unmount(name, id string) error {
	p.t.Helper()
	_, err := p.call("Unmount", map[string]any{"Name": name, "ID": id})
	return err
}

func (p *plugin) remove(name string) error {
	p.t.Helper()
	_, err := p.call("Remove", map[string]any{"Name": name})
	return err
}

func (p *plugin) get(name string) (answeredVolume, error) {
	p.t.Helper()
	a, err := p.call("Get", map[string]any{"Name": name})
	if err != nil {
		return answeredVolume{}, err
	}
	return *a.Volume, nil
}

// mustCreate and mustMount are for the steps that lead up to what is tested.
func (p *plugin) mustCreate(name string, options opts) {
	p.t.Helper()
	if err := p.create(name, options); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plugin) mustMount(name, id string) string {
	p.t.Helper()
	mountpoint, err := p.mount(name, id)
	if err != nil {
		p.t.Fatal(err)
	}
	return mountpoint
}

func (p *plugin) mustUnmount(name, id string) {
	p.t.Helper()
	if err := p.unmount(name, id); err != nil {
		p.t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("succeeded, want an error with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
}

// needMounts skips a test that is about mounts where there can be none.
func needMounts(t *testing.T) {
	t.Helper()
	if err := canMount(t.TempDir()); err != nil {
		t.Skipf("mounting is not possible here (run as root): %v", err)
	}
}

func needImages(t *testing.T) {
	t.Helper()
	needMounts(t)
	if err := canMakeImages(); err != nil {
		t.Skipf("ext4 images are not possible here: %v", err)
	}
}
