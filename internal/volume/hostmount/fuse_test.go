package hostmount_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/dockerplugin"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// mountRclone mounts a volume by FUSE and returns where.
func mountRclone(t *testing.T, r *volumetest.Rclone) string {
	t.Helper()
	drivers := dockerplugin.New(dockerplugin.Config{Dirs: []string{r.PluginDir()}})
	t.Cleanup(drivers.Close)
	d, err := drivers.Open(t.Context(), "rclone")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create(t.Context(), volume.CreateRequest{Name: "v", Options: r.Options()}); err != nil {
		t.Fatal(err)
	}
	mounted, err := d.Mount(t.Context(), volume.MountRequest{Volume: volume.Ref{Name: "v"}, ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	return mounted.Path
}

func TestStatOfADeadFileSystem(t *testing.T) {
	r := volumetest.StartRclone(t, volumetest.RcloneDebian(t))
	path := mountRclone(t, r)
	tables := hostmount.New()
	if facts, err := tables.Stat(t.Context(), path); err != nil || !facts.IsDir {
		t.Fatalf("alive: %+v, %v", facts, err)
	}
	r.Kill()
	if facts, err := tables.Stat(t.Context(), path); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("dead: %+v, %v", facts, err)
	}
	table, err := tables.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, stacked := table.At(path); stacked != 1 {
		t.Errorf("the dead mount is %d times in the table", stacked)
	}
}

// A dead FUSE mount can be taken away, a live one and any other cannot.
func TestDetach(t *testing.T) {
	r := volumetest.StartRclone(t, volumetest.RcloneDebian(t))
	path := mountRclone(t, r)
	tables := hostmount.New()
	for _, alive := range []string{path, "/", t.TempDir()} {
		if err := tables.Detach(t.Context(), alive); err == nil {
			t.Fatalf("%s was taken away", alive)
		}
	}
	r.Kill()
	if err := tables.Detach(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	table, err := tables.Own(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, stacked := table.At(path); stacked != 0 {
		t.Errorf("%d mounts left", stacked)
	}
}

func TestStatOfAHungFileSystem(t *testing.T) {
	r := volumetest.StartRclone(t, volumetest.RcloneDebian(t))
	path := mountRclone(t, r)
	r.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	// The kernel may still answer for the root from its cache, so ask for more.
	if facts, err := hostmount.New().Stat(ctx, path+"/no/such/file"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hung: %+v, %v", facts, err)
	}
	r.Thaw()
}
