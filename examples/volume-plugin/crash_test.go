package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A plugin that is killed at whatever point of a Mount or Unmount leaves a
// store from which the next one goes on: one mount or none, one holder.
func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, flags ...string) { testKilledInTheMiddle(t, nil, flags...) })
	t.Run("image", func(t *testing.T) {
		needImages(t)
		testKilledInTheMiddle(t, opts{"size": "8M"})
	})
}

func testKilledInTheMiddle(t *testing.T, options opts, flags ...string) {
	b := newBench(t)
	flags = append(flags, "--single-attach")
	// How many times a file is seen to change before the kill: each step of
	// an attach and a detach writes one of them.
	for _, steps := range []int{0, 1, 2, 3, 4} {
		for _, method := range []string{"Mount", "Unmount"} {
			p := b.start("a", flags...)
			p.mustCreate("v", options)
			if method == "Unmount" {
				p.mustMount("v", "1")
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = p.call(method, map[string]string{"Name": "v", "ID": "1"}) // may or may not be answered
			}()
			b.awaitSteps(steps, done)
			p.kill()
			<-done

			p = b.start("a", flags...)
			at := p.mustMount("v", "1")
			if n := len(b.mounted()); n > 1 {
				t.Fatalf("killed in %s after %d steps: mounted %d times", method, steps, n)
			}
			writeFile(t, filepath.Join(at, "file"), "x")
			p.mustUnmount("v", "1")
			if left := b.mounted(); len(left) > 0 {
				t.Fatalf("killed in %s after %d steps: left %v", method, steps, left)
			}
			if _, err := os.Lstat(at); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("killed in %s after %d steps: %v", method, steps, err)
			}
			p.kill()
		}
	}
	b.checkOneWriter("v")
	image := filepath.Join(b.root, "volumes", "v-v", "image.ext4")
	if devices, err := loopsOf(image); options != nil && (err != nil || len(devices) > 0) {
		t.Errorf("loop devices left: %v %v", devices, err)
	}
}

// awaitSteps returns after so many changes to the store or the mounts, or when
// done is closed.
func (b *bench) awaitSteps(steps int, done <-chan struct{}) {
	b.t.Helper()
	last := b.fingerprint()
	for steps > 0 {
		select {
		case <-done:
			return
		default:
		}
		if now := b.fingerprint(); now != last {
			last = now
			steps--
		}
	}
}

// fingerprint changes with the attach log, the record and the mount point.
func (b *bench) fingerprint() (print [3]any) {
	for i, path := range []string{
		filepath.Join(b.root, "attach.log"),
		filepath.Join(b.root, "volumes", "v-v", "volume.json"),
		filepath.Join(b.dir, "mounts-a", "v-v"),
	} {
		if info, err := os.Lstat(path); err == nil {
			print[i] = [2]any{info.Size(), info.ModTime()}
		}
	}
	return print
}
