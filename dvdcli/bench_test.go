package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// minimalClient in the environment makes the test binary a client that makes
// the plugin calls that it is given and nothing else, to compare with.
const minimalClient = "DVDCLI_TEST_MINIMAL"

// minimal makes the calls: "socket method body method body ...".
func minimal(args []string) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", args[0])
	}}}
	for i := 1; i+1 < len(args); i += 2 {
		res, err := client.Post("http://plugin"+args[i], "application/json", strings.NewReader(args[i+1]))
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		if err := res.Body.Close(); err != nil {
			return err
		}
	}
	return nil
}

// cost is what processes took.
type cost struct {
	wall, cpu time.Duration
	memory    int64 // peak resident, bytes
}

func (c *cost) add(cmd *exec.Cmd, wall time.Duration) {
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		panic("no rusage")
	}
	c.wall += wall
	c.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	c.memory = max(c.memory, usage.Maxrss*1024)
}

func (c *cost) run(b *testing.B, cmd *exec.Cmd) {
	b.Helper()
	var out bytes.Buffer
	cmd.Stderr = &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v: %s", err, out.String())
	}
	c.add(cmd, time.Since(start))
}

// BenchmarkAgainstMinimalClient reports what dvdcli costs as multiples of a
// client that makes just the plugin calls, interleaved in one run.
func BenchmarkAgainstMinimalClient(b *testing.B) {
	const rounds = 40
	release := filepath.Join(b.TempDir(), "dvdcli")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", release, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v %s", err, out)
	}
	p := volumetest.Start(b, volumetest.Config{})
	x := newBox(b, p.PluginDir())
	// A real agent's run directory is on a tmpfs.
	if shm, err := os.MkdirTemp("/dev/shm", "dvdcli-bench-"); err == nil {
		b.Cleanup(func() {
			if err := os.RemoveAll(shm); err != nil {
				b.Error(err)
			}
		})
		x.set("DVDCLI_RUN_DIR", filepath.Join(shm, "run"))
	}
	x.must("create", "--volumedriver=test", "--volumename=v")
	ours := func(args ...string) *exec.Cmd {
		cmd := x.command(args...)
		cmd.Path = release
		return cmd
	}
	theirs := func(calls ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], append([]string{p.Socket()}, calls...)...)
		cmd.Env = []string{minimalClient + "=1"}
		return cmd
	}
	const name, mount = `{"Name":"v"}`, `{"Name":"v","ID":"1"}`
	for b.Loop() {
		var get, cycle, getBase, cycleBase cost
		for range rounds {
			getBase.run(b, theirs("/VolumeDriver.Get", name))
			get.run(b, ours("get", "--volumedriver=test", "--volumename=v"))
			cycleBase.run(b, theirs("/VolumeDriver.Get", name, "/VolumeDriver.Mount", mount))
			cycleBase.run(b, theirs("/VolumeDriver.Unmount", mount))
			cycle.run(b, ours(mountArgs(p, "v")...))
			cycle.run(b, ours(unmountArgs(p, "v")...))
		}
		report := func(what string, a, base cost) {
			b.ReportMetric(float64(a.wall)/float64(base.wall), what+"-wall-ratio")
			b.ReportMetric(float64(a.cpu)/float64(base.cpu), what+"-cpu-ratio")
			b.ReportMetric(float64(a.memory)/(1<<20), what+"-peak-MiB")
			b.ReportMetric(float64(base.memory)/(1<<20), what+"-base-MiB")
		}
		report("get", get, getBase)
		report("mount+unmount", cycle, cycleBase)
	}
}

// BenchmarkManyVolumes mounts 64 different volumes of a plugin that takes 500 ms
// per call; the ratio is to the calls of one mount.
func BenchmarkManyVolumes(b *testing.B) {
	const delay = 500 * time.Millisecond
	p := volumetest.Start(b, volumetest.Config{})
	x := newBox(b, p.PluginDir())
	for i := range crowd {
		x.must("create", "--volumedriver=test", fmt.Sprintf("--volumename=v%d", i))
	}
	p.Kill()
	slow := volumetest.Start(b, volumetest.Config{Dir: p.Dir(), PluginDir: p.PluginDir(), Delay: delay})
	for b.Loop() {
		start := time.Now()
		var wg sync.WaitGroup
		for i := range crowd {
			wg.Go(func() {
				if out := x.run(mountArgs(slow, fmt.Sprint("v", i))...); out.code != 0 {
					b.Errorf("%+v", out)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(time.Since(start))/float64(2*delay), "ratio-to-get+mount")
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
