package hostmount

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Each change is seen by the very next look, and without one nothing is read
// again.
func TestCachedTableIsNeverOutOfDate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	c, err := NewCached()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	dir := t.TempDir()
	ctx := context.Background()
	stacked := func() int {
		table, err := c.Own(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_, n := table.At(dir)
		return n
	}
	for range 200 {
		if n := stacked(); n != 0 {
			t.Fatalf("%d mounts before the mount", n)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		seen := stacked()
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		if seen != 1 {
			t.Fatalf("%d mounts after the mount", seen)
		}
	}
}

func TestCachedTableIsReadOnce(t *testing.T) {
	c, err := NewCached()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	reads := 0
	ctx := context.Background()
	for range 50 {
		before := c.generation
		if _, err := c.Own(ctx); err != nil {
			t.Fatal(err)
		}
		if c.generation != before {
			reads++
		}
	}
	// Other tests on this machine may mount meanwhile.
	if reads == 50 {
		t.Error("every look read the table again")
	}
	if _, err := c.Own(ctx); err != nil || !c.valid {
		t.Errorf("no valid table: %v", err)
	}
}
