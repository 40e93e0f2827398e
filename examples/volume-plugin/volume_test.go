package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// eachMode runs a test with links, and with mounts where they are possible.
func eachMode(t *testing.T, test func(t *testing.T, flags ...string)) {
	t.Run("link", func(t *testing.T) { test(t, "--link") })
	t.Run("mount", func(t *testing.T) {
		needMounts(t)
		test(t)
	})
}

func TestVolumeLife(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) {
		b := newBench(t)
		p := b.start("a", flags...)
		p.mustCreate("data", nil)
		if v, err := p.get("data"); err != nil || v.Mountpoint != "" {
			t.Fatalf("Get before Mount = %+v, %v; want no mount point", v, err)
		}
		mountpoint := p.mustMount("data", "one")
		if !filepath.IsAbs(mountpoint) || !strings.HasPrefix(mountpoint, p.mounts) {
			t.Fatalf("mounted at %q, want a path below %s", mountpoint, p.mounts)
		}
		writeFile(t, filepath.Join(mountpoint, "file"), "kept")
		if v, err := p.get("data"); err != nil || v.Mountpoint != mountpoint || v.Status["attachedTo"] != "a" {
			t.Fatalf("Get = %+v, %v", v, err)
		}
		if a, err := p.call("Path", map[string]string{"Name": "data"}); err != nil || a.Mountpoint != mountpoint {
			t.Fatalf("Path = %+v, %v", a, err)
		}
		wantError(t, p.remove("data"), "attached", `"a"`)
		p.mustUnmount("data", "one")
		if _, err := os.Lstat(mountpoint); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the mount point is still there: %v", err)
		}
		if again := p.mustMount("data", "two"); readFile(t, filepath.Join(again, "file")) != "kept" {
			t.Fatal("data lost")
		}
		p.mustUnmount("data", "two")
		if err := p.remove("data"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.get("data"); err == nil {
			t.Fatal("still there after Remove")
		}
		wantError(t, p.remove("data"), "does not exist")
		if left, err := filepath.Glob(filepath.Join(b.root, "*", "v-data*")); err != nil || len(left) > 0 {
			t.Fatalf("left behind: %v %v", left, err)
		}
	})
}

func TestMountsAreCountedByID(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) {
		b := newBench(t)
		p := b.start("a", flags...)
		p.mustCreate("v", nil)
		first := p.mustMount("v", "one")
		writeFile(t, filepath.Join(first, "file"), "x")
		for _, id := range []string{"one", "two", ""} {
			if at := p.mustMount("v", id); at != first {
				t.Fatalf("Mount(%q) = %q, want %q", id, at, first)
			}
		}
		if targets := b.mounted(); len(targets) > 1 {
			t.Fatalf("stacked: %v", targets)
		}
		for _, id := range []string{"one", "one", "unknown", ""} {
			p.mustUnmount("v", id)
			readFile(t, filepath.Join(first, "file"))
		}
		p.mustUnmount("v", "two")
		if _, err := os.Lstat(first); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("still mounted after the last ID: %v", err)
		}
		p.mustUnmount("v", "two")
	})
}

func TestCreate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.start("a", "--link")
	p.mustCreate("v", opts{"size": "2"})
	if err := p.create("v", opts{"size": "2048M"}); err != nil {
		t.Errorf("equal Create: %v", err)
	}
	wantError(t, p.create("v", opts{"size": "3G"}), "already exists", "directory of 2G")
	wantError(t, p.create("w", opts{"size": "many"}), `"many"`, "GiB", "64M")
	wantError(t, p.create("w", opts{"sise": "1"}), `"sise"`, "size")
	wantError(t, p.create("", nil), "empty")
	if _, err := p.get("w"); err == nil {
		t.Error("a refused Create made a volume")
	}
	v, err := p.get("v")
	if err != nil || v.Status["size"] != "2G" || v.Status["sizeEnforced"] != false {
		t.Errorf("Get = %+v, %v", v, err)
	}
	if strings.Count(p.stderr.String(), "size of volumes is not enforced") != 1 {
		t.Errorf("unenforced sizes are not said once:\n%s", p.stderr)
	}
	_, err = p.mount("unknown", "id")
	wantError(t, err, `"unknown"`, "does not exist")
}

func TestAnyNameWorks(t *testing.T) {
	t.Parallel()
	names := []string{
		"plain", "a/b", "../../escape", "..", ".", "name=x,size=10", "line\nbreak", "größe", "nul\x00",
		strings.Repeat("x", 4096), "v-plain", "plain.lock", "-rf", " ", "UPPER", "upper",
	}
	b := newBench(t)
	p := b.start("a", "--link")
	seen := map[string]string{}
	for _, name := range names {
		p.mustCreate(name, nil)
		at := p.mustMount(name, "id")
		if filepath.Dir(at) != p.mounts {
			t.Errorf("%.20q is mounted at %q, outside %s", name, at, p.mounts)
		}
		if other, taken := seen[at]; taken {
			t.Errorf("%.20q and %.20q share %s", name, other, at)
		}
		seen[at] = name
		writeFile(t, filepath.Join(at, "name"), name)
	}
	a, err := p.call("List", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, v := range a.Volumes {
		listed = append(listed, v.Name)
		if got := readFile(t, filepath.Join(v.Mountpoint, "name")); got != v.Name {
			t.Errorf("%.20q holds the data of %.20q", v.Name, got)
		}
	}
	slices.Sort(names)
	slices.Sort(listed)
	if !slices.Equal(names, listed) {
		t.Errorf("listed %.300q", listed)
	}
	for _, name := range names {
		p.mustUnmount(name, "id")
		if err := p.remove(name); err != nil {
			t.Error(err)
		}
	}
}

func TestImageHasItsSizeAndLeaksNoLoopDevice(t *testing.T) {
	t.Parallel()
	needImages(t)
	b := newBench(t)
	p := b.start("a")
	p.mustCreate("v", opts{"size": "16M"})
	at := p.mustMount("v", "id")
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		t.Fatal(err)
	}
	if size := int64(fs.Blocks) * fs.Bsize; fs.Type != unix.EXT4_SUPER_MAGIC || size > 16<<20 || size < 8<<20 {
		t.Errorf("file system type %#x of %d bytes, want ext4 of nearly 16 MiB", fs.Type, size)
	}
	err := os.WriteFile(filepath.Join(at, "big"), make([]byte, 17<<20), 0o644)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing 17 MiB: %v, want no space left", err)
	}
	writeFile(t, filepath.Join(at, "big"), "small")
	p.mustMount("v", "other")
	p.mustUnmount("v", "other")
	p.mustUnmount("v", "id")
	image := filepath.Join(b.root, "volumes", "v-v", "image.ext4")
	if devices, err := loopsOf(image); err != nil || len(devices) != 0 {
		t.Fatalf("loop devices %v, %v", devices, err)
	}
	if again := p.mustMount("v", "id"); readFile(t, filepath.Join(again, "big")) != "small" {
		t.Error("data lost")
	}
	p.mustUnmount("v", "id")
	wantError(t, p.create("tiny", opts{"size": "1M"}), "too small", "8M")
}

func TestImageKindGivesADefaultSize(t *testing.T) {
	t.Parallel()
	needImages(t)
	b := newBench(t)
	p := b.start("a", "--kind", "image", "--default-size", "8M")
	p.mustCreate("v", nil)
	v, err := p.get("v")
	if err != nil || v.Status["kind"] != kindImage || v.Status["size"] != "8M" || v.Status["sizeEnforced"] != true {
		t.Fatalf("Get = %+v, %v", v, err)
	}
}

func TestBusyUnmountFailsAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	needMounts(t)
	b := newBench(t)
	p := b.start("a")
	p.mustCreate("v", nil)
	at := p.mustMount("v", "id")
	file, err := os.Create(filepath.Join(at, "open"))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p.unmount("v", "id"), at, "busy")
	if v, err := p.get("v"); err != nil || v.Mountpoint != at {
		t.Fatalf("after the failed Unmount: %+v, %v", v, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	p.mustUnmount("v", "id")
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"1": 1 << 30, "10": 10 << 30, "64M": 64 << 20, "64m": 64 << 20, "1G": 1 << 30, "2T": 2 << 40,
		"512K": 512 << 10, "3 GiB": 3 << 30, " 5 ": 5 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "1.5", "M", "1X", "9999999999999G", "1G1", "0x10"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
	for bytes, want := range map[int64]string{1 << 30: "1G", 64 << 20: "64M", 3 << 40: "3T", 1500: "1500", 1536: "1536", 2048: "2K"} {
		if got := formatSize(bytes); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", bytes, got, want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{nil, "local"}, {[]string{"--single-attach"}, "global"}, {[]string{"--single-attach", "--scope", "local"}, "local"},
	} {
		t.Run(fmt.Sprint(test.flags), func(t *testing.T) {
			a, err := newBench(t).start("a", append(test.flags, "--link")...).call("Capabilities", struct{}{})
			if err != nil || a.Capabilities.Scope != test.want {
				t.Errorf("scope %q, %v; want %q", a.Capabilities.Scope, err, test.want)
			}
		})
	}
}

func TestZoneIsTold(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"", "eu-1a"} {
		flags := []string{"--link"}
		if zone != "" {
			flags = append(flags, "--zone", zone)
		}
		p := newBench(t).start("a", flags...)
		p.mustCreate("data", nil)
		v, err := p.get("data")
		if told, is := v.Status["zone"]; err != nil || is != (zone != "") || is && told != zone {
			t.Errorf("zone %q is told as %v, %v", zone, v.Status, err)
		}
	}
}

func TestLookingWhileVolumesComeAndGo(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) {
		b := newBench(t)
		p := b.start("a", flags...)
		p.mustCreate("stays", nil)
		stop := make(chan struct{})
		var group sync.WaitGroup
		for i := range 3 {
			name := fmt.Sprint("v", i)
			group.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := p.create(name, nil); err != nil {
						t.Error(err)
					}
					if _, err := p.mount(name, "1"); err != nil {
						t.Error(err)
					}
					if err := errors.Join(p.unmount(name, "1"), p.remove(name)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 150 {
			a, err := p.call("List", struct{}{})
			if err != nil || !slices.ContainsFunc(a.Volumes, func(v answeredVolume) bool { return v.Name == "stays" }) {
				t.Errorf("List = %+v, %v", a.Volumes, err)
			}
		}
		close(stop)
		group.Wait()
	})
}

// The directory goes between the look at the record and the look at the mount.
func TestLookingAtAVolumeThatIsGone(t *testing.T) {
	t.Parallel()
	needMounts(t)
	b := newBench(t)
	p := b.start("a")
	p.mustCreate("v", nil)
	p.mustMount("v", "1")
	if err := os.Rename(filepath.Join(b.root, "volumes", "v-v", "data"), filepath.Join(b.root, "moved")); err != nil {
		t.Fatal(err)
	}
	if v, err := p.get("v"); err != nil || v.Mountpoint != "" {
		t.Errorf("Get = %+v, %v", v, err)
	}
}
