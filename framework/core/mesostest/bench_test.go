package mesostest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// What the benchmark posts: apps of instances each, by clients at a time.
const (
	benchApps      = 2000
	benchInstances = 5
	benchClients   = 50
)

// BenchmarkManyApps posts many apps at once, on simulated agents, and measures
// meanwhile how long the question for one app takes, until all instances run.
// It reports the 99th percentile of that in milliseconds, the memory in use at
// the end in MiB, and instances launched per second.
func BenchmarkManyApps(b *testing.B) {
	for b.Loop() {
		f := Start(b, Config{Agents: 200, CPUs: 64, Mem: 256 << 10, OfferInterval: 100 * time.Millisecond},
			core.Config{Policy: scheduler.Policy{MaxInstancesPerOffer: 5}, MaxDeployments: benchApps, ReviveInterval: 100 * time.Millisecond}, api.Config{})
		begin := time.Now()
		transport := &http.Transport{MaxIdleConnsPerHost: benchClients + 10}
		client := &http.Client{Transport: transport}
		latencies := probe(b, client, f, func() { post(b, client, f.URL) })
		elapsed := time.Since(begin)
		slices.Sort(latencies)
		runtime.GC()
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		b.ReportMetric(float64(latencies[len(latencies)*99/100].Microseconds())/1000, "p99-GET-ms")
		b.ReportMetric(float64(mem.HeapInuse)/(1<<20), "heap-MiB")
		b.ReportMetric(float64(benchApps*benchInstances)/elapsed.Seconds(), "launches/s")
		transport.CloseIdleConnections()
	}
}

// BenchmarkOneChange changes many apps by one request, each with a volume, a
// service port and a dependency on a group, and compares what that costs per app
// with what it costs where there are a tenth of them: far above 1 means that each
// app is compared with all the others.
func BenchmarkOneChange(b *testing.B) {
	const apps = 10_000
	for b.Loop() {
		few, many := oneChange(b, apps/10), oneChange(b, apps)
		b.ReportMetric(many.Seconds(), "s/10000-apps")
		b.ReportMetric(many.Seconds()/few.Seconds()/10, "x/app")
	}
}

// oneChange returns how long it took to put that many apps.
func oneChange(b *testing.B, apps int) time.Duration {
	f := Start(b, Config{OfferInterval: time.Hour}, core.Config{ServicePorts: app.PortRange{Min: 10000, Max: 60000}}, api.Config{})
	list := []string{`{"id":"/base/db","cmd":"x"}`}
	for n := 1; n < apps; n++ {
		list = append(list, fmt.Sprintf(`{"id":"/group-%d/app-%d","cmd":"x","instances":0,"dependencies":["/base"],
			"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":
			{"provider":"dvdi","name":"data-%d-${instance}","options":{"dvdi/driver":"d"}}}]}}`, n%10, n, n))
	}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPut, f.URL+"/v2/apps", strings.NewReader("["+strings.Join(list, ",")+"]"))
	if err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s %s, %v", resp.Status, answer, err)
	}
	return time.Since(begin)
}

// probe asks for apps that exist, all the time from the start of work until all
// instances run, and returns how long each answer took.
func probe(b *testing.B, client *http.Client, f *Framework, work func()) []time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(work)
	var out []time.Duration
	for n := 0; f.Running() < benchApps*benchInstances; n++ {
		begin := time.Now()
		status := get(b, client, fmt.Sprintf("%s/v2/apps/bench/app-%d", f.URL, n%benchClients))
		if status == http.StatusOK {
			out = append(out, time.Since(begin))
		}
		if ctx.Err() != nil {
			b.Fatalf("only %d instances run", f.Running())
		}
		time.Sleep(5 * time.Millisecond) // the rate of questions, not a wait for anything
	}
	wg.Wait()
	return out
}

func get(b *testing.B, client *http.Client, url string) int {
	resp, err := client.Get(url)
	if err != nil {
		b.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Error(err)
	}
	return resp.StatusCode
}

// post creates all apps.
func post(b *testing.B, client *http.Client, url string) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range benchClients {
		wg.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= benchApps {
					return
				}
				body := fmt.Sprintf(`{"id":"/bench/app-%d","cmd":"sleep 1000","cpus":0.1,"mem":32,"instances":%d}`, n, benchInstances)
				resp, err := client.Post(url+"/v2/apps", "application/json", strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				answer, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusCreated {
					b.Errorf("app %d: %s %s", n, resp.Status, answer)
					return
				}
			}
		})
	}
	wg.Wait()
}
