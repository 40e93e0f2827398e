package dockerplugin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// rclones are two versions of a plugin not written here, with opposite ideas
// of a second Create.
var rclones = map[string]struct {
	binary      func(testing.TB) string
	createTwice volume.Kind
}{
	"1.60.1": {volumetest.RcloneDebian, volume.AlreadyExists},
	"1.75.1": {volumetest.RcloneModule, ""},
}

func TestRclone(t *testing.T) {
	for version, test := range rclones {
		t.Run(version, func(t *testing.T) {
			r := volumetest.StartRclone(t, test.binary(t))
			d := open(t, New(Config{Dirs: []string{r.PluginDir()}, Clock: newFakeClock()}), "rclone")
			create := volume.CreateRequest{Name: "v", Options: r.Options()}
			ctx := t.Context()

			_, err := d.Get(ctx, ref("v"))
			wantKind(t, err, volume.NotFound)
			if _, err := d.Create(ctx, create); err != nil {
				t.Fatal(err)
			}
			_, err = d.Create(ctx, create)
			if test.createTwice != "" {
				wantKind(t, err, test.createTwice)
			} else if err != nil {
				t.Error(err)
			}
			mounted, err := d.Mount(ctx, mountOf("v", "1"))
			if err != nil || mounted.ServerPID != r.PID() {
				t.Fatalf("Mount = %+v, %v; rclone is %d", mounted, err, r.PID())
			}
			checkFUSE(t, mounted.Path, 1)
			if err := os.WriteFile(filepath.Join(mounted.Path, "file"), []byte("written"), 0o644); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(r.Data(), "file")); err != nil || string(data) != "written" {
				t.Errorf("behind the mount: %q, %v", data, err)
			}

			_, err = d.Mount(ctx, mountOf("v", "1"))
			wantKind(t, err, volume.Refused, "already mounted by this id", "status 500")
			if second, err := d.Mount(ctx, mountOf("v", "2")); err != nil || second.Path != mounted.Path {
				t.Errorf("second id: %+v, %v", second, err)
			}
			if v, err := d.Get(ctx, ref("v")); err != nil || v.Mountpoint != mounted.Path {
				t.Errorf("Get = %+v, %v", v, err)
			}
			if c, err := d.Capabilities(ctx); err != nil || c.Scope != volume.ScopeLocal {
				t.Errorf("Capabilities = %+v, %v", c, err)
			}
			if err := d.Unmount(ctx, unmountOf("v", "1")); err != nil {
				t.Error(err)
			}
			checkFUSE(t, mounted.Path, 1)
			wantKind(t, d.Unmount(ctx, unmountOf("v", "1")), volume.Refused, "not mounted by this id")
			if err := d.Unmount(ctx, unmountOf("v", "2")); err != nil {
				t.Error(err)
			}
			checkFUSE(t, mounted.Path, 0)
			if err := d.Remove(ctx, ref("v")); err != nil {
				t.Error(err)
			}
			wantKind(t, d.Remove(ctx, ref("v")), volume.NotFound)
		})
	}
}

// checkFUSE compares the mount table with what is expected at a path.
func checkFUSE(t *testing.T, path string, want int) {
	t.Helper()
	table, err := hostmount.New().Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	top, stacked := table.At(path)
	if stacked != want || want > 0 && top.FSType != "fuse.rclone" {
		t.Errorf("%s is mounted %d times: %+v", path, stacked, top)
	}
}
