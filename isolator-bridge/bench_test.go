package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// An agent with a thousand containers, each with two volumes of its own that are
// really mounted.
const (
	benchContainers = 1000
	benchVolumes    = 2
)

// BenchmarkBridge measures the bridge on that agent: start-s is from the start
// of the process to the end of recovery (aim: 2 s), steady-%core what it takes
// afterwards (aim: 1), with looks at everything twice as often as by default,
// rss-MiB its memory (aim: 64).
func BenchmarkBridge(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("mounting needs root")
	}
	dir, err := os.MkdirTemp("", "bridge-bench-")
	if err != nil {
		b.Fatal(err)
	}
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	agent := benchAgent(b, dir)
	release := filepath.Join(dir, "isolator-bridge")
	if out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", release, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for b.Loop() {
		benchOnce(b, dir, release, agent)
	}
}

func benchOnce(b *testing.B, dir, binary, agent string) {
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer logFile.Close()
	cmd := exec.Command(binary, "serve", "--agent-url="+agent, "--checkpoint-dir="+filepath.Join(dir, "checkpoints"),
		"--run-dir="+filepath.Join(dir, "run"), "--state-dir="+filepath.Join(dir, "state"), "--host-dir="+filepath.Join(dir, "host"),
		"--plugin-dirs="+filepath.Join(dir, "plugins"), "--agent-holder=agent", "--full-interval=1m")
	cmd.Stderr = logFile
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			b.Errorf("bridge: %v", err)
		}
	}()
	for !strings.Contains(readText(b, logFile.Name()), `"recovered"`) {
		if time.Since(start) > time.Minute {
			b.Fatalf("no recovery: %s", readText(b, logFile.Name()))
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.ReportMetric(time.Since(start).Seconds(), "start-s")
	if text := readText(b, logFile.Name()); !strings.Contains(text, fmt.Sprintf(`"inOrder":%d`, benchContainers*benchVolumes)) {
		b.Fatalf("not all in order: %.2000s", text)
	}
	atRest(b, cmd.Process.Pid) // the first regular look belongs to the start
	before, begin := cpu(b, cmd.Process.Pid), time.Now()
	// With one look at everything among it, no more and no less: it comes with the
	// first regular look after a minute, and those are ten seconds apart.
	time.Sleep(68 * time.Second)
	b.ReportMetric(100*(cpu(b, cmd.Process.Pid)-before).Seconds()/time.Since(begin).Seconds(), "steady-%core")
	b.ReportMetric(memory(b, cmd.Process.Pid), "rss-MiB")
}

func readText(b *testing.B, file string) string {
	b.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}

// atRest waits until a process does nothing for a second.
func atRest(b *testing.B, pid int) {
	b.Helper()
	for last := time.Duration(-1); ; {
		now := cpu(b, pid)
		if now == last {
			return
		}
		last = now
		time.Sleep(time.Second)
	}
}

// cpu is the time that a process has used (proc_pid_stat(5), fields 14 and 15).
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	text := readText(b, fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	ticks := 0
	for _, n := range []int{11, 12} {
		v, err := strconv.Atoi(fields[n])
		if err != nil {
			b.Fatal(err)
		}
		ticks += v
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

func memory(b *testing.B, pid int) float64 {
	b.Helper()
	for _, line := range strings.Split(readText(b, fmt.Sprintf("/proc/%d/status", pid)), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// benchAgent makes mounts, ledger, checkpoints and an agent's API.
func benchAgent(b *testing.B, dir string) (url string) {
	led, err := ledger.Open(ledger.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")})
	if err != nil {
		b.Fatal(err)
	}
	for _, sub := range []string{"data", "mounts", "checkpoints", "plugins"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	mounts := filepath.Join(dir, "mounts")
	// One unmount takes all with it.
	if err := unix.Mount(mounts, mounts, "", unix.MS_BIND, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Unmount(mounts, unix.MNT_DETACH); err != nil {
			b.Error(err)
		}
	})
	table, err := hostmount.New().Own(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	var containers []string
	for c := range benchContainers {
		id := fmt.Sprintf("%08x-1111-2222-3333-444444444444", c)
		var names []string
		for v := range benchVolumes {
			name := fmt.Sprintf("volume-%d-%d", c, v)
			names = append(names, fmt.Sprintf(`{"driver":"bench","name":%q}`, name))
			benchMount(b, led, table.Namespace, filepath.Join(dir, "data"), filepath.Join(mounts, name), name)
		}
		checkpoint := filepath.Join(dir, "checkpoints", id)
		if err := os.Mkdir(checkpoint, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(checkpoint, "volumes"), []byte(`{"volumes":[`+strings.Join(names, ",")+`]}`), 0o644); err != nil {
			b.Fatal(err)
		}
		containers = append(containers, fmt.Sprintf(`{"container_id":{"value":%q},"framework_id":{"value":"F"},"executor_id":{"value":"task.%d"},`+
			`"executor_name":"Command Executor (Task: task.%d) (Command: sh -c 'x')","container_status":{"container_id":{"value":%q},"executor_pid":4063},`+
			`"resource_statistics":{"timestamp":1795213483.41712,"cpus_user_time_secs":0.14,"cpus_system_time_secs":0.05,"cpus_soft_limit":0.2,`+
			`"mem_total_bytes":24178688,"mem_kmem_usage_bytes":1859584,"mem_limit_bytes":67108864,"mem_soft_limit_bytes":67108864,"mem_file_bytes":2867200,`+
			`"mem_anon_bytes":19251200,"mem_cache_bytes":2867200,"mem_rss_bytes":19251200,"mem_mapped_file_bytes":1441792,"mem_swap_bytes":0}}`, id, c, c, id))
	}
	answer := `{"type":"GET_CONTAINERS","get_containers":{"containers":[` + strings.Join(containers, ",") + `]}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	b.Cleanup(server.Close)
	return server.URL
}

func benchMount(b *testing.B, led *ledger.Ledger, namespace, data, path, name string) {
	b.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount(data, path, "", unix.MS_BIND, ""); err != nil {
		b.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		b.Fatal(err)
	}
	key := ledger.Key{Driver: "bench", Volume: name}
	entry, err := led.TryLock(key)
	if err != nil {
		b.Fatal(err)
	}
	rec := &ledger.Record{Driver: key.Driver, Volume: name, Phase: ledger.PhaseMounted, MountID: name, Path: path, Resolved: path,
		Kind: ledger.KindMountPoint, Device: st.Dev, Namespace: namespace, Since: time.Now(),
		Holders: []ledger.Holder{{Name: "agent", Since: time.Now()}}}
	if err := entry.Keep(rec, false); err != nil {
		b.Fatal(err)
	}
	if err := entry.Save(rec); err != nil {
		b.Fatal(err)
	}
	if err := entry.Close(); err != nil {
		b.Fatal(err)
	}
}
