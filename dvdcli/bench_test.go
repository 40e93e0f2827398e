package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// cost is what a process took.
type cost struct {
	wall, cpu time.Duration
	memory    int64 // peak resident, bytes
}

// costs are those of the same command, again and again.
type costs []cost

// typical is the median of each: other work on the machine spoils single runs.
func (c costs) typical() cost {
	median := func(of func(cost) int64) int64 {
		values := make([]int64, 0, len(c))
		for _, x := range c {
			values = append(values, of(x))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return cost{
		wall:   time.Duration(median(func(x cost) int64 { return int64(x.wall) })),
		cpu:    time.Duration(median(func(x cost) int64 { return int64(x.cpu) })),
		memory: median(func(x cost) int64 { return x.memory }),
	}
}

func (c cost) plus(d cost) cost {
	return cost{wall: c.wall + d.wall, cpu: c.cpu + d.cpu, memory: max(c.memory, d.memory)}
}

// scales weigh commands, each run by a process of its own (testdata/launch).
type scales struct {
	b      *testing.B
	launch string
	env    []string
}

func (s *scales) weigh(program string, args ...string) cost {
	s.b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.b.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(s.launch, append([]string{program}, args...)...)
	cmd.Env = s.env
	cmd.ExtraFiles = []*os.File{w}
	out, err := cmd.CombinedOutput()
	if err := w.Close(); err != nil {
		s.b.Fatal(err)
	}
	if err != nil {
		s.b.Fatalf("%v: %s", err, out)
	}
	var wall, cpu, peak int64
	if _, err := fmt.Fscan(r, &wall, &cpu, &peak); err != nil {
		s.b.Fatal(err)
	}
	return cost{wall: time.Duration(wall), cpu: time.Duration(cpu), memory: peak * 1024}
}

// BenchmarkAgainstMinimalClient reports what dvdcli costs as multiples of a
// client that makes the same requests to the plugin and does nothing else,
// interleaved in one run. What it costs to start dvdcli at all, and to mount
// without waiting for a disk, tells where the rest goes.
func BenchmarkAgainstMinimalClient(b *testing.B) {
	const rounds = 60
	dir := b.TempDir()
	tags, err := releaseTags()
	if err != nil {
		b.Fatal(err)
	}
	dvdcli, minimal := release(b, dir, ".", tags), release(b, dir, "./testdata/minimal", "")
	p := volumetest.StartProcess(b, volumetest.Config{})
	x := newBox(b, p.PluginDir())
	// A real agent's run directory is on a tmpfs, and the host's is in it.
	shm, err := os.MkdirTemp("/dev/shm", "dvdcli-bench-")
	if err != nil {
		b.Skipf("no tmpfs: %v", err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(shm); err != nil {
			b.Error(err)
		}
	})
	x.set("DVDCLI_RUN_DIR", filepath.Join(shm, "run"))
	x.set("DVDCLI_HOST_DIR", filepath.Join(shm, "run", "ledgers"))
	x.must("create", "--volumedriver=test", "--volumename=v")
	s := &scales{b: b, launch: release(b, dir, "./testdata/launch", ""), env: x.command().Env}
	diskless := *s
	diskless.env = x.with("DVDCLI_STATE_DIR", filepath.Join(shm, "state")).command().Env
	const id = `{"Name":"v","ID":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}`
	activate, get := []string{"/Plugin.Activate", ""}, []string{"/VolumeDriver.Get", `{"Name":"v"}`}
	for b.Loop() {
		var ours, theirs, withoutDisk [3]costs
		var start costs
		for range rounds {
			for i, args := range [][]string{
				slices.Concat(activate, get),
				slices.Concat(activate, get, []string{"/VolumeDriver.Mount", id}),
				slices.Concat(activate, []string{"/VolumeDriver.Unmount", id}),
			} {
				theirs[i] = append(theirs[i], s.weigh(minimal, append([]string{p.Socket()}, args...)...))
			}
			start = append(start, s.weigh(dvdcli, "version"))
			for _, run := range []struct {
				scales *scales
				costs  *[3]costs
			}{{s, &ours}, {&diskless, &withoutDisk}} {
				for i, args := range [][]string{
					{"get", "--volumedriver=test", "--volumename=v"}, mountArgs(p, "v"), unmountArgs(p, "v"),
				} {
					run.costs[i] = append(run.costs[i], run.scales.weigh(dvdcli, args...))
				}
			}
		}
		report := func(what string, a, base cost) {
			b.ReportMetric(float64(a.wall.Microseconds())/1000, what+"-ms")
			b.ReportMetric(float64(a.wall)/float64(base.wall), what+"-wall-ratio")
			b.ReportMetric(float64(a.cpu)/float64(base.cpu), what+"-cpu-ratio")
			b.ReportMetric(float64(a.memory)/(1<<20), what+"-peak-MiB")
			b.ReportMetric(float64(base.memory)/(1<<20), what+"-minimal-peak-MiB")
		}
		both := func(c [3]costs) cost { return c[1].typical().plus(c[2].typical()) }
		report("get", ours[0].typical(), theirs[0].typical())
		report("mount+unmount", both(ours), both(theirs))
		b.ReportMetric(float64(both(withoutDisk).wall)/float64(both(theirs).wall), "mount+unmount-diskless-wall-ratio")
		b.ReportMetric(2*float64(start.typical().wall)/float64(both(theirs).wall), "two-starts-wall-ratio")
	}
}

// BenchmarkManyVolumes mounts 64 different volumes of a plugin that takes 500 ms
// per call, all at once; the ratio is to one mount alone, which makes as many calls
// one after the other.
func BenchmarkManyVolumes(b *testing.B) {
	const delay = 500 * time.Millisecond
	tags, err := releaseTags()
	if err != nil {
		b.Fatal(err)
	}
	p := volumetest.Start(b, volumetest.Config{})
	x := newBox(b, p.PluginDir())
	x.program = release(b, b.TempDir(), ".", tags)
	for i := range crowd {
		x.must("create", "--volumedriver=test", fmt.Sprintf("--volumename=v%d", i))
	}
	p.Kill()
	slow := volumetest.Start(b, volumetest.Config{Dir: p.Dir(), PluginDir: p.PluginDir(), Delay: delay})
	for b.Loop() {
		start := time.Now()
		x.must(mountArgs(slow, "v0")...)
		alone := time.Since(start)
		x.must(unmountArgs(slow, "v0")...)
		start = time.Now()
		var wg sync.WaitGroup
		for i := range crowd {
			wg.Go(func() {
				if out := x.run(mountArgs(slow, fmt.Sprint("v", i))...); out.code != 0 {
					b.Errorf("%+v", out)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(time.Since(start))/float64(alone), "ratio-to-one-mount")
		for i := range crowd {
			wg.Go(func() {
				if out := x.run(unmountArgs(slow, fmt.Sprint("v", i))...); out.code != 0 {
					b.Errorf("%+v", out)
				}
			})
		}
		wg.Wait()
	}
}
