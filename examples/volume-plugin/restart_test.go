package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/go-plugins-helpers/volume"
	"golang.org/x/sys/unix"
)

func TestRestartAdoptsWhatIsMounted(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) { testAdopt(t, nil, flags...) })
	t.Run("image", func(t *testing.T) {
		needImages(t)
		testAdopt(t, opts{"size": "8M"})
	})
}

func testAdopt(t *testing.T, options opts, flags ...string) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			b := newBench(t)
			p := b.start("a", flags...)
			p.mustCreate("v", options)
			at := p.mustMount("v", "1")
			writeFile(t, filepath.Join(at, "file"), "kept")
			mounts := len(b.mounted())
			p.signal(sig)
			if _, err := os.Lstat(p.socket); sig == syscall.SIGTERM && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
			p = b.start("a", flags...) // over the socket that SIGKILL left
			if v, err := p.get("v"); err != nil || v.Mountpoint != at {
				t.Fatalf("after the restart: %+v, %v", v, err)
			}
			if again := p.mustMount("v", "1"); again != at || len(b.mounted()) != mounts {
				t.Fatalf("mounted again at %s: %v", again, b.mounted())
			}
			if got := readFile(t, filepath.Join(at, "file")); got != "kept" {
				t.Errorf("read %q", got)
			}
			p.mustUnmount("v", "1")
			if left := b.mounted(); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
		})
	}
}

func TestRestartGivesUpWhatIsNotMounted(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) {
		b := newBench(t)
		flags = append(flags, "--single-attach")
		a, c := b.start("a", flags...), b.start("c", flags...)
		a.mustCreate("v", nil)
		at := a.mustMount("v", "1")
		a.kill()
		if err := clearTarget(at, 0); err != nil { // as a reboot would
			t.Fatal(err)
		}
		_, err := c.mount("v", "2")
		wantError(t, err, `"a"`)
		b.start("a", flags...)
		c.mustMount("v", "2")
		b.checkOneWriter("v")
	})
}

// Links outlive a reboot, the containers that had the volume do not.
func TestRebootEndsAttachments(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.start("a", "--link")
	p.mustCreate("v", nil)
	at := p.mustMount("v", "1")
	p.kill()
	s, err := openStore(b.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.update(t.Context(), "v", func(r *record) error { r.on("a").BootID = "earlier"; return s.save(r) }); err != nil {
		t.Fatal(err)
	}
	p = b.start("a", "--link")
	if v, err := p.get("v"); err != nil || v.Mountpoint != "" || v.Status["attachedTo"] != nil {
		t.Errorf("after the reboot: %+v, %v", v, err)
	}
	if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link is left: %v", err)
	}
}

func TestRestartUnmountsWhatWasTakenByForce(t *testing.T) {
	t.Parallel()
	needMounts(t)
	b := newBench(t)
	a := b.start("a", "--single-attach")
	a.mustCreate("v", nil)
	at := a.mustMount("v", "1")
	a.kill()
	// On another machine a forced detach cannot reach the mount.
	s, err := openStore(b.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.update(t.Context(), "v", func(r *record) error { r.drop("a"); return s.save(r) }); err != nil {
		t.Fatal(err)
	}
	b.start("a", "--single-attach")
	if left := b.mounted(); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
	if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount point left: %v", err)
	}
}

func TestMountRepairsWhatWasUnmountedByHand(t *testing.T) {
	t.Parallel()
	needMounts(t)
	b := newBench(t)
	p := b.start("a")
	p.mustCreate("v", nil)
	at := p.mustMount("v", "1")
	writeFile(t, filepath.Join(at, "file"), "kept")
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if v, err := p.get("v"); err != nil || v.Mountpoint != "" {
		t.Errorf("Get names a mount point that is none: %+v, %v", v, err)
	}
	if got := readFile(t, filepath.Join(p.mustMount("v", "1"), "file")); got != "kept" {
		t.Errorf("read %q", got)
	}
	p.mustUnmount("v", "1")
}

func TestUnmountOnExit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.start("a", "--unmount-on-exit")
	p.mustCreate("v", nil)
	at := p.mustMount("v", "1")
	p.signal(syscall.SIGTERM)
	if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mount point left: %v\n%s", err, p.stderr)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d\n%s", code, p.stderr)
	}
}

func TestStartSweepsHalfMadeVolumes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start("a", "--link").kill()
	for _, dir := range []string{"making", "removing"} {
		if err := os.MkdirAll(filepath.Join(b.root, dir, "v-half", "data"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := b.start("a", "--link")
	for _, dir := range []string{"making", "removing"} {
		if entries, err := os.ReadDir(filepath.Join(b.root, dir)); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v %v", dir, entries, err)
		}
	}
	p.mustCreate("half", nil)
}

func TestDamagedRecordStopsNothingElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.start("a", "--link")
	p.mustCreate("good", nil)
	p.mustCreate("bad", nil)
	p.mustCreate("new", nil)
	at := p.mustMount("bad", "1")
	writeFile(t, filepath.Join(b.root, "volumes", "v-bad", "volume.json"), "{")
	writeFile(t, filepath.Join(b.root, "volumes", "v-new", "volume.json"), `{"format": 2, "name": "new"}`)
	p.kill()
	p = b.start("a", "--link")
	a, err := p.call("List", struct{}{})
	if err != nil || len(a.Volumes) != 1 || a.Volumes[0].Name != "good" {
		t.Errorf("List = %+v, %v", a.Volumes, err)
	}
	p.mustMount("good", "1")
	_, err = p.mount("bad", "1")
	wantError(t, err, `"bad"`, "volume.json", "damaged")
	_, err = p.mount("new", "1")
	wantError(t, err, `"new"`, "format 2")
	wantError(t, p.create("bad", nil), "damaged")
	if _, err := os.Lstat(at); err != nil {
		t.Errorf("the mount of the damaged volume was taken away: %v", err)
	}
	out, err := b.run("list")
	if err == nil || !strings.Contains(out, `"good"`) || !strings.Contains(out, "damaged") {
		t.Errorf("list: %s %v", out, err)
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start("a", "--link")
	other := filepath.Join(b.dir, "other")
	socket := filepath.Join(b.dir, "a.sock")
	file := filepath.Join(b.dir, "file")
	writeFile(t, file, "precious")
	for name, test := range map[string]struct {
		flags []string
		parts []string
	}{
		"node in use":        {[]string{"--node", "a"}, []string{`node "a"`, "already served"}},
		"mounts in use":      {[]string{"--mounts", filepath.Join(b.dir, "mounts-a")}, []string{"already served", "--mounts"}},
		"socket in use":      {[]string{"--socket", socket}, []string{socket, "served by another process"}},
		"another mode":       {[]string{"--single-attach"}, []string{"--single-attach=false", b.root}},
		"bad kind":           {[]string{"--kind", "tape"}, []string{`"tape"`, "auto, directory or image"}},
		"bad scope":          {[]string{"--scope", "world"}, []string{`"world"`, "local or global"}},
		"bad size":           {[]string{"--default-size", "big"}, []string{"--default-size", `"big"`}},
		"images when linked": {[]string{"--kind", "image"}, []string{"--kind image", "linked"}},
		"unknown command":    {[]string{"serv"}, []string{`"serv"`}},
		"root is a file":     {[]string{"--root", file}, []string{"store", file}},
		"long socket":        {[]string{"--socket", filepath.Join(other, strings.Repeat("x", 108))}, []string{"107", "shorter --socket"}},
		"socket is a file":   {[]string{"--socket", file}, []string{file, "no socket"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{t: t, dir: other, root: b.root}
			p, err := b.tryStart("b", append([]string{"--link"}, test.flags...)...)
			if err == nil {
				p.kill()
			}
			wantError(t, err, test.parts...)
		})
	}
	if got := readFile(t, file); got != "precious" {
		t.Errorf("a file was overwritten with %q", got)
	}
}

// slowDriver blocks in Remove, the smallest call there is.
type slowDriver struct {
	volume.Driver
	entered, release chan struct{}
}

func (d *slowDriver) Remove(*volume.RemoveRequest) error {
	close(d.entered)
	<-d.release
	return nil
}

func TestStopFinishesCallsUnderWay(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "p.sock")
	d := &slowDriver{entered: make(chan struct{}), release: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, socket, d) }()

	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		for { // until the socket is there
			conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
			if err == nil || ctx.Err() != nil {
				return conn, err
			}
		}
	}}
	defer transport.CloseIdleConnections()
	p := &plugin{t: t, client: &http.Client{Transport: transport}}
	answered := make(chan error, 1)
	go func() { answered <- p.remove("v") }()
	<-d.entered
	stop()
	for { // the listener goes first
		if conn, err := net.Dial("unix", socket); err != nil {
			break
		} else if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-served:
		t.Fatalf("stopped with a call under way: %v", err)
	default:
	}
	close(d.release)
	if err := <-answered; err != nil {
		t.Errorf("the call was cut: %v", err)
	}
	if err := <-served; err != nil { // although the client keeps its connection
		t.Error(err)
	}
}
