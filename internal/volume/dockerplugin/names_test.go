package dockerplugin

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// One plugin has one name: mounts are recorded and rules are given by it.
func TestNoSecondNameForAPlugin(t *testing.T) {
	dir := t.TempDir()
	listenUnix(t, filepath.Join(dir, "flat.sock"))
	listenUnix(t, filepath.Join(dir, "nested", "nested.sock"))
	listenUnix(t, filepath.Join(dir, "group", "p.sock"))
	d := New(Config{Dirs: []string{dir}})
	t.Cleanup(d.Close)
	for _, name := range []string{"flat", "nested", "group/p"} {
		if _, err := d.Open(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{
		"./flat", "x/../flat", ".//flat", "nested/../flat", "flat/.", "nested/nested", "group//p", "group/./p", "./group/p",
	} {
		if _, err := d.Open(t.Context(), name); !errors.Is(err, volume.DriverUnknown) {
			t.Errorf("%q: %v, want unknown", name, err)
		}
	}
}

// Where the caller happens to stand must not decide which plugin is asked.
func TestRelativeSocketIsRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	listenUnix(t, filepath.Join(dir, "here.sock"))
	writeFile(t, filepath.Join(dir, "plugins", "p.spec"), "unix://here.sock")
	d := New(Config{Dirs: []string{filepath.Join(dir, "plugins")}})
	t.Cleanup(d.Close)
	_, err := d.Open(t.Context(), "p")
	wantKind(t, err, volume.DriverUnreachable, "relative path", "p.spec")
}
