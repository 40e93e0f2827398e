package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// A record that cannot be opened for want of file descriptors is as good as
// ever: what holds the volume goes on holding it, whoever calls meanwhile.
func TestShortOfDescriptorsForgetsNobody(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0, Counting: volumetest.CountIDs})
	b := newBox(t, p.PluginDir())
	for _, holder := range []string{"holder-1", "holder-2"} {
		b.with("DVDCLI_HOLDER", holder).must(mountArgs(p, "v")...)
	}
	for _, root := range []string{"run", "state"} {
		if err := os.Mkdir(filepath.Join(b.dir, root, "set-aside"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for limit := 4; limit < 16; limit++ {
		cmd := b.with("DVDCLI_HOLDER", "holder-3").command(unmountArgs(p, "v")...)
		limited := exec.Command("sh", append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(limit), cmd.Path}, cmd.Args[1:]...)...)
		limited.Env = cmd.Env
		out, err := limited.CombinedOutput() // fails or not, as far as it came
		for _, root := range []string{"run", "state"} {
			aside, readErr := os.ReadDir(filepath.Join(b.dir, root, "set-aside"))
			if readErr != nil {
				t.Fatal(readErr)
			}
			if len(aside) != 0 {
				t.Fatalf("with %d descriptors %s was set aside; %v: %s", limit, aside[0].Name(), err, out)
			}
		}
	}
	expect(t, p, "v", 1, 0)
	b.with("DVDCLI_HOLDER", "holder-1").must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 0)
	b.with("DVDCLI_HOLDER", "holder-2").must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 1)
	b.nothingMounted(p)
}
