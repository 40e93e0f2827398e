package hostmount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// actAs makes the test binary the process whose mount table is looked at.
const actAs = "HOSTMOUNT_TEST_ACT_AS"

func TestMain(m *testing.M) {
	if os.Getenv(actAs) != "" {
		if err := containerMain(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// containerMain mounts a tmpfs on each path, says so, and waits for the end of
// its input.
func containerMain(paths []string) error {
	for _, path := range paths {
		if err := unix.Mount("some source", path, "tmpfs", 0, "size=64k"); err != nil {
			return fmt.Errorf("mount on %q: %w", path, err)
		}
	}
	if _, err := fmt.Println("ready"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// container runs containerMain in a mount namespace of its own and returns its
// pid. An ordinary user gets a user namespace with it, where that is allowed.
func container(t *testing.T, paths ...string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], paths...)
	cmd.Env = append(os.Environ(), actAs+"=container")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		}
	}
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no mount namespace to be had (run as root): %v", err)
	}
	t.Cleanup(func() { _ = errors.Join(stdin.Close(), cmd.Wait()) })
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatalf("container: %v: %s", err, stderr)
	}
	return cmd.Process.Pid
}

func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOfProcessSeesThatNamespaceAndOddNames(t *testing.T) {
	dir := tempDir(t)
	var paths []string
	for _, name := range []string{"plain", "with space", "tab\tnewline\n", `back\slash`, "hash#", `\040`, "größe"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	tables := New()
	own, err := tables.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	its, err := tables.OfProcess(t.Context(), container(t, append(paths, paths[0])...))
	if err != nil {
		t.Fatal(err)
	}
	if own.Namespace == its.Namespace || !strings.HasPrefix(its.Namespace, "mnt:[") {
		t.Errorf("namespaces %q and %q", own.Namespace, its.Namespace)
	}
	for i, path := range paths {
		want := 1
		if i == 0 {
			want = 2 // mounted twice
		}
		top, stacked := its.At(path)
		if stacked != want || top.FSType != "tmpfs" || top.Source != "some source" || top.Root != "/" {
			t.Errorf("%q: %d times %+v", path, stacked, top)
		}
		if _, stacked := own.At(path); stacked != 0 {
			t.Errorf("%q is in our own table", path)
		}
	}
	first, second := volume.MountPoint{}, volume.MountPoint{}
	for _, m := range its.Mounts {
		if m.Path == paths[0] {
			first, second = second, m
		}
	}
	if second.Parent != first.ID {
		t.Errorf("the last of two mounts is not on top: %+v, %+v", first, second)
	}
}

func TestOwnTellsDeviceAndPropagation(t *testing.T) {
	dir := filepath.Join(tempDir(t), "dir")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting is not possible here (run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	tables := New()
	own, err := tables.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	facts, err := tables.Stat(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	top, stacked := own.At(dir)
	if stacked != 1 || unix.Mkdev(uint32(top.Major), uint32(top.Minor)) != facts.Device {
		t.Errorf("%d times %+v, stat says device %d", stacked, top, facts.Device)
	}
	if !strings.HasPrefix(top.Propagation, "shared:") {
		t.Errorf("propagation %q", top.Propagation)
	}
}

func TestOfProcessThatIsGoneOrForbidden(t *testing.T) {
	tables := New()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{0, -1, cmd.Process.Pid} {
		if _, err := tables.OfProcess(t.Context(), pid); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("process %d: %v", pid, err)
		}
	}
	if os.Geteuid() != 0 {
		if _, err := tables.OfProcess(t.Context(), 1); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("process 1 without root: %v", err)
		}
	}
	// A zombie keeps its directory in /proc but has no mounts any more.
	zombie := exec.Command("true")
	stdout, err := zombie.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stdout); err != nil {
		t.Fatal(err)
	}
	for !isZombie(t, zombie.Process.Pid) {
		time.Sleep(time.Millisecond)
	}
	if table, err := tables.OfProcess(t.Context(), zombie.Process.Pid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("zombie: %+v, %v", table, err)
	}
	if err := zombie.Wait(); err != nil {
		t.Error(err)
	}
}

func isZombie(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(stat), ") Z ")
}

func TestDamagedTable(t *testing.T) {
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "self", "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("mnt:[1]", filepath.Join(proc, "self", "ns", "mnt")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "self", "mountinfo"), []byte("22 27 0:21\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tables := &Tables{proc: proc, torn: func() bool { return false }}
	if table, err := tables.Own(t.Context()); err == nil {
		t.Errorf("read %+v", table)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tables.Own(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestTableThatChangesWhileItIsRead(t *testing.T) {
	for name, test := range map[string]struct {
		readings []string
		want     string
	}{
		"at rest":       {[]string{"a", "a", "never"}, "a"},
		"changing once": {[]string{"half", "whole", "whole", "never"}, "whole"},
		"never at rest": {[]string{"1", "2", "3", "4", "5", "6", "never"}, "6"},
	} {
		next := 0
		got, err := readStable(t.Context(), func() ([]byte, error) {
			next++
			return []byte(test.readings[next-1]), nil
		})
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestStat(t *testing.T) {
	dir := tempDir(t)
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	tables := New()
	want := volume.PathFacts{Resolved: dir, IsDir: true, Device: st.Dev, Inode: st.Ino}
	if facts, err := tables.Stat(t.Context(), link); err != nil || facts != want {
		t.Errorf("link: %+v, %v; want %+v", facts, err, want)
	}
	if facts, err := tables.Stat(t.Context(), file); err != nil || facts.IsDir || facts.Resolved != file {
		t.Errorf("file: %+v, %v", facts, err)
	}
	if _, err := tables.Stat(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := tables.Stat(t.Context(), "relative"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("relative: %v", err)
	}
}

func TestStatLeavesAHungFileSystem(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		back := make(chan struct{})
		tables := &Tables{look: func(string) (volume.PathFacts, error) {
			<-back
			return volume.PathFacts{}, nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tables.Stat(ctx, "/hung"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(back)
	})
}

// Kernels from Linux 5.8 on hand out mount tables whole.
func TestBefore(t *testing.T) {
	for release, want := range map[string]bool{
		"5.7.19": true, "4.18.0-553.el8": true, "3.10.0": true, "": true, "linux": true,
		"5.8": false, "5.8.0-rc1": false, "5.10.0-8-amd64": false, "6.1.0-18-cloud-amd64": false, "10.0.1": false,
	} {
		if got := before(release, 5, 8); got != want {
			t.Errorf("%q: %t", release, got)
		}
	}
}

// The namespace of a process is what its table says it is.
func TestNamespace(t *testing.T) {
	tables := New()
	table, err := tables.OfProcess(t.Context(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tables.Namespace(os.Getpid()); err != nil || got != table.Namespace {
		t.Errorf("%q %v, want %q", got, err, table.Namespace)
	}
	if _, err := tables.Namespace(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
