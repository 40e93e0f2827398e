package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// fakeAgent answers like a Mesos agent, or not.
type fakeAgent struct {
	*httptest.Server
	mu         sync.Mutex // guards all below
	containers []string   // leaf, or parent/leaf
	ended      []string   // containers of terminated tasks
	status     int
	body       string // instead of the answer
	asked      int
	token      string
	hang       chan struct{} // answers wait for its end, if there is one
}

func newFakeAgent(t *testing.T) *fakeAgent {
	f := &fakeAgent{}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAgent) set(change func(*fakeAgent)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeAgent) lists(containers ...string) {
	f.set(func(f *fakeAgent) { f.containers, f.status, f.body = containers, 0, "" })
}

func containerJSON(path string) map[string]any {
	var id map[string]any
	for _, part := range strings.Split(path, "/") {
		next := map[string]any{"value": part}
		if id != nil {
			next["parent"] = id
		}
		id = next
	}
	return id
}

func (f *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var call struct {
		Type          string `json:"type"`
		GetContainers struct {
			Nested     bool `json:"show_nested"`
			Standalone bool `json:"show_standalone"`
		} `json:"get_containers"`
	}
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil || r.URL.Path != "/api/v1" || r.Method != http.MethodPost {
		http.Error(w, "bad call", http.StatusBadRequest)
		return
	}
	if call.Type == "GET_CONTAINERS" {
		f.asked++
	}
	if hang := f.hang; hang != nil {
		f.mu.Unlock()
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		f.mu.Lock()
	}
	if f.token != "" && r.Header.Get("Authorization") != f.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if f.status != 0 || f.body != "" {
		if f.status != 0 {
			w.WriteHeader(f.status)
		}
		fmt.Fprint(w, f.body)
		return
	}
	answer := map[string]any{"type": call.Type}
	switch call.Type {
	case "GET_CONTAINERS":
		list := []any{}
		for _, c := range f.containers {
			if strings.Contains(c, "/") && !call.GetContainers.Nested {
				continue
			}
			list = append(list, map[string]any{"container_id": containerJSON(c), "framework_id": map[string]any{"value": "F"},
				"executor_id": map[string]any{"value": "task-of-" + c}, "executor_name": "Command Executor (Task: x)"})
		}
		if len(list) > 0 { // as Mesos does
			answer["get_containers"] = map[string]any{"containers": list}
		}
	case "GET_STATE":
		tasks := []any{}
		for _, c := range f.ended {
			tasks = append(tasks, map[string]any{"task_id": map[string]any{"value": "t-" + c}, "framework_id": map[string]any{"value": "F"},
				"statuses": []any{map[string]any{"container_status": map[string]any{"container_id": containerJSON(c)}}}})
		}
		answer["get_state"] = map[string]any{"get_tasks": map[string]any{"completed_tasks": tasks}, "get_executors": map[string]any{}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// passes waits until the bridge has asked n times more.
func (f *fakeAgent) passes(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.asked
	}
	want := count() + n
	await(t, "more looks at the agent", func() bool { return count() >= want })
}

// leakRig is an agent with a checkpoint directory and an API.
type leakRig struct {
	*agent
	t      *testing.T
	plugin *volumetest.Plugin
	mesos  *fakeAgent
	dir    string // of the checkpoints
}

func newLeakRig(t *testing.T, config volumetest.Config) *leakRig {
	p := volumetest.Start(t, config)
	r := &leakRig{agent: newAgent(t, p), t: t, plugin: p, mesos: newFakeAgent(t), dir: filepath.Join(t.TempDir(), "checkpoints")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.env = append(r.env, "DVDI_BRIDGE_AGENT_URL="+r.mesos.URL, "DVDI_BRIDGE_CHECKPOINT_DIR="+r.dir, "DVDI_BRIDGE_LEAK_GRACE=1ms")
	return r
}

// checkpoint writes what the isolator writes before it mounts.
func (r *leakRig) checkpoint(container string, volumes ...string) {
	r.t.Helper()
	var list []map[string]string
	for _, v := range volumes {
		list = append(list, map[string]string{"driver": "test", "name": v})
	}
	data, err := json.Marshal(map[string]any{"volumes": list})
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(container, string(data))
}

func (r *leakRig) write(container, text string) {
	r.t.Helper()
	dir := filepath.Join(r.dir, container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	temp := filepath.Join(dir, ".tmp")
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(temp, filepath.Join(dir, "volumes")); err != nil {
		r.t.Fatal(err)
	}
}

// run is what the isolator does for a container: checkpoint, then mount.
func (r *leakRig) run(container string, volumes ...string) {
	r.t.Helper()
	r.checkpoint(container, volumes...)
	for _, v := range volumes {
		if _, err := r.dvdcli("mount", "--volumedriver=test", "--volumename="+v); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *leakRig) mounted(volume string) bool { return r.plugin.States()[volume].Mounted }

// stays checks that a volume survives several looks.
func (r *leakRig) stays(volume string) {
	r.t.Helper()
	r.mesos.passes(r.t, 4)
	if !r.mounted(volume) {
		r.t.Errorf("%s was unmounted", volume)
	}
}

func (r *leakRig) goes(volume string) {
	r.t.Helper()
	await(r.t, volume+" to be unmounted", func() bool { return !r.mounted(volume) })
}

// A volume is unmounted once every container that named it is gone, and not
// before; the agent's word counts only if it says something.
func TestLeakNeedsProof(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountRefusing})
	r.run("c1", "v", "shared")
	r.run("c2", "shared")
	r.mesos.lists("c1", "c2")
	b := r.start()
	r.stays("v")
	for name, mode := range map[string]func(*fakeAgent){
		"unauthorised": func(f *fakeAgent) { f.status = 401 },
		"forbidden":    func(f *fakeAgent) { f.status, f.body = 403, "no" },
		"recovering":   func(f *fakeAgent) { f.status, f.body = 503, "Agent has not finished recovery" },
		"not JSON":     func(f *fakeAgent) { f.body = "<html>" },
		"other answer": func(f *fakeAgent) { f.body = `{"type":"GET_FLAGS"}` },
		"no list":      func(f *fakeAgent) { f.body = `{"type":"GET_CONTAINERS"}` },
		"empty list":   func(f *fakeAgent) { f.body = `{"type":"GET_CONTAINERS","get_containers":{}}` },
	} {
		r.mesos.set(func(f *fakeAgent) { f.status, f.body = 0, "" })
		r.mesos.set(mode)
		r.mesos.passes(t, 4)
		if !r.mounted("v") || !r.mounted("shared") {
			t.Fatalf("%s: taken for proof", name)
		}
	}
	r.mesos.lists("c2", "another")
	r.goes("v")
	r.stays("shared")
	r.mesos.lists("another")
	r.goes("shared")
	b.awaitLog("leaked volume given up")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// On an agent without any container the agent's own statement that a task has
// ended is proof.
func TestLeakOnAnIdleAgent(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	r.run("c1", "v")
	r.mesos.lists()
	b := r.start()
	r.stays("v")
	b.awaitLog("lists no container at all")
	r.mesos.set(func(f *fakeAgent) { f.ended = []string{"parent/c1"} })
	r.goes("v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// On an agent without any container the agent's own files are proof, too; for a
// nested container those of its root.
func TestLeakOnAnIdleAgentByItsFiles(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	work := t.TempDir()
	r.env = append(r.env, "DVDI_BRIDGE_AGENT_WORK_DIR="+work)
	run := "slaves/S/frameworks/F/executors/E/runs/root"
	for _, dir := range []string{filepath.Join(work, run, "containers", "leaf"), filepath.Join(work, "meta", run)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.run("leaf", "v")
	r.mesos.lists()
	b := r.start()
	r.stays("v")
	if err := os.WriteFile(filepath.Join(work, "meta", run, "executor.sentinel"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.goes("v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Nested containers are listed by path and checkpointed by leaf.
func TestLeakOfNestedContainers(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	r.run("leaf", "v")
	r.mesos.lists("root", "root/leaf")
	b := r.start()
	r.stays("v")
	r.mesos.lists("root")
	r.goes("v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// A process of the container keeps the volume, whatever the agent says.
func TestProcessKeepsVolume(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	id := "9b1c7a52-7f0e-4f1e-9d8e-0c8a4a3c11aa"
	r.run(id, "v")
	process := exec.Command("sleep", "600")
	process.Env = []string{"MESOS_SANDBOX=/var/lib/mesos/slaves/S/frameworks/F/executors/E/runs/" + id}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	t.Cleanup(kill)
	r.mesos.lists("another")
	b := r.start()
	r.stays("v")
	b.awaitLog(fmt.Sprintf("process %d", process.Process.Pid))
	kill()
	r.goes("v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// A leak is not taken from somebody who works in it, whoever that is.
func TestLeakInUseIsLeft(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{Bind: os.Geteuid() == 0})
	r.run("c1", "v")
	process := exec.Command("sleep", "600")
	process.Dir = r.plugin.Mountpoint("v")
	gone := user(t, process)
	r.mesos.lists("another")
	b := r.start()
	r.stays("v")
	b.awaitLog(fmt.Sprintf("process %d (cwd) uses it", process.Process.Pid))
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-gone
	r.goes("v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// What somebody who keeps no ledger here has mounted and uses, such as Docker, is
// left to them, whatever this ledger remembers of the volume.
func TestMountsOfOthersAreLeft(t *testing.T) {
	t.Parallel()
	needMounts(t)
	for name, before := range map[string]func(r *leakRig, docker func()){
		"a container that is gone named it": func(r *leakRig, docker func()) {
			r.checkpoint("c1", "v")
			docker()
		},
		"of an earlier boot": func(r *leakRig, docker func()) {
			r.run("c1", "v")
			r.reboot()
			r.plugin.Restart()
			docker()
		},
		"of an earlier boot, and mounted later": func(r *leakRig, docker func()) {
			r.run("c1", "v")
			r.reboot()
			r.plugin.Restart()
		},
	} {
		for use, how := range map[string]string{"working in it": `cd "$0" && exec sleep 600`, "with a mount of its own": `mount --bind "$0" "$1" && exec sleep 600`} {
			t.Run(name+", "+use, func(t *testing.T) {
				t.Parallel()
				r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountNothing, Restart: volumetest.RestartForgets, Volatile: true, Bind: true})
				r.env = append(r.env, "DVDI_BRIDGE_LEAK_GRACE=1m") // Docker's container has time to start
				other := newAgent(t, r.plugin)
				docker := sync.OnceFunc(func() {
					path, err := other.dvdcli("mount", "--volumedriver=test", "--volumename=v")
					if err != nil {
						t.Fatal(err)
					}
					target := t.TempDir()
					user(t, exec.Command("unshare", "--mount", "sh", "-c", how, path, target))
					await(t, "the container", func() bool {
						// Both fail for processes that end meanwhile, whatever they found.
						out, err := exec.Command("sh", "-c", `{ grep -ls " $1 " /proc/[0-9]*/mountinfo; ls -l /proc/[0-9]*/cwd | grep "$0"; } | grep .`, path, target).Output()
						return err == nil && len(out) > 0
					})
				})
				before(r, docker)
				r.mesos.lists("another")
				b := r.start()
				b.awaitLog(`"recovered"`)
				docker()
				r.stays("v")
				b.awaitLog("uses it")
				if err := b.stop(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A mount that appears where one of an earlier boot is looked out for has time to
// find its user, whatever the clock said when the host came up: the record's times
// are of this boot here, as with a clock that was wrong.
func TestNewOwnersHaveTimeAfterAReboot(t *testing.T) {
	t.Parallel()
	needMounts(t)
	r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountNothing, Restart: volumetest.RestartForgets, Volatile: true, Bind: true})
	r.env = append(r.env, "DVDI_BRIDGE_LEAK_GRACE=1h")
	r.run("c1", "v")
	r.reboot()
	r.plugin.Restart()
	r.mesos.lists("another")
	b := r.start()
	await(t, "the look-out", func() bool {
		rec, err := r.ledger().Peek(ledger.Key{Driver: "test", Volume: "v"})
		return err == nil && rec != nil && rec.Phase == ledger.PhaseWatched && rec.EarlierBoot
	})
	if out, err := newAgent(t, r.plugin).dvdcli("mount", "--volumedriver=test", "--volumename=v"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r.stays("v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Damaged checkpoints stop nothing and prove nothing: what they named is known
// from before, or not unmounted while their container may live.
func TestDamagedCheckpoints(t *testing.T) {
	t.Parallel()
	for _, damage := range []struct {
		name string
		do   func(*leakRig)
	}{
		{"empty", func(r *leakRig) { r.write("c1", "") }},
		{"truncated", func(r *leakRig) { r.write("c1", `{"volumes":[{"driver":"te`) }},
		{"missing", func(r *leakRig) {
			if err := os.Remove(filepath.Join(r.dir, "c1", "volumes")); err != nil {
				r.t.Fatal(err)
			}
		}},
		{"of another user", func(r *leakRig) {
			if os.Geteuid() != 0 {
				r.t.Skip("needs root")
			}
			if err := os.Chown(filepath.Join(r.dir, "c1", "volumes"), 65534, 65534); err != nil {
				r.t.Fatal(err)
			}
		}},
	} {
		for _, seen := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, seen before: %t", damage.name, seen), func(t *testing.T) {
				t.Parallel()
				if !seen && os.Geteuid() != 0 {
					t.Skip("that no process uses a volume is seen by root only")
				}
				r := newLeakRig(t, volumetest.Config{Bind: os.Geteuid() == 0})
				r.run("c1", "v")
				r.run("c2", "w") // a leak of its own, beside the damage
				r.mesos.lists("c1")
				var b *bridge
				if seen {
					r.mesos.lists("c1", "c2")
					b = r.start()
					r.mesos.passes(t, 2)
				}
				damage.do(r)
				if !seen {
					b = r.start()
				}
				r.stays("v")
				b.awaitLog("checkpoint that cannot be used")
				r.mesos.lists("c1", "another")
				if seen {
					r.goes("w") // it is known that c1 did not name it
				} else {
					r.stays("w") // c1 may have named it, for all that is known
				}
				r.stays("v")
				r.mesos.lists("another")
				r.goes("v")
				r.goes("w")
				if err := b.stop(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A leak whose unmount fails for a while is tried again until it is done
// (MESOS-10126), over a restart of the bridge, too.
func TestLeakIsRetriedUntilDone(t *testing.T) {
	t.Parallel()
	// Only a mount table shows, after a call without an answer, what is left.
	needMounts(t)
	r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountRefusing, Bind: true})
	r.run("c1", "v")
	r.plugin.Add(volumetest.Rule{Method: "Unmount", Times: 2, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	r.mesos.lists("another")
	b := r.start()
	await(t, "the first failure", func() bool { return len(r.plugin.Calls("Unmount")) > 0 })
	b.kill()
	b = r.start()
	r.goes("v")
	if n := len(r.plugin.Calls("Unmount")); n != 3 {
		t.Errorf("%d unmounts, want 3", n)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// An agent that does not answer holds up nothing else.
func TestSlowAgentHoldsUpNothing(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	r.mesos.lists("c1")
	b := r.start()
	b.awaitLog("agent answers")
	hang := make(chan struct{})
	r.mesos.set(func(f *fakeAgent) { f.hang = hang })
	r.mesos.passes(t, 1)
	r.run("c1", "v")
	r.plugin.Add(volumetest.Rule{Method: "Unmount", Times: 1, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	if _, err := r.dvdcli("unmount", "--volumedriver=test", "--volumename=v"); err == nil {
		t.Fatal("unmounted")
	}
	r.goes("v")
	close(hang)
	r.mesos.set(func(f *fakeAgent) { f.hang = nil })
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// A volume that a person or a container of the API holds is never a leak, nor
// one that nothing is known of.
func TestOthersVolumesAreNoLeaks(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	env := r.env
	r.env = append(env, "DVDCLI_HOLDER=somebody")
	if _, err := r.dvdcli("mount", "--volumedriver=test", "--volumename=person"); err != nil {
		t.Fatal(err)
	}
	r.env = env
	if _, err := r.dvdcli("mount", "--volumedriver=test", "--volumename=unnamed"); err != nil {
		t.Fatal(err)
	}
	r.mesos.lists("another")
	b := r.start()
	r.stays("person")
	r.stays("unnamed")
	b.awaitLog("volume of unknown use")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Two agents share a run directory and a volume: what the containers of one do
// says nothing about the other, whose hold stays.
func TestLeakOfOneOfTwoAgents(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountRefusing})
	r.env = slices.DeleteFunc(r.env, func(kv string) bool { return strings.HasPrefix(kv, "DVDCLI_HOLDER=") })
	env := r.env
	as := func(agent string) { r.env = append(slices.Clone(env), "DVDCLI_HOLDER=mesos-agent:"+agent) }
	for _, agent := range []string{"/b", "/a"} {
		as(agent)
		r.run("c1", "v")
	}
	r.mesos.lists("another")
	r.env = env
	b := r.start()
	r.stays("v")
	b.awaitLog("several agents hold volumes in this run directory")
	b.kill()
	r.env = append(slices.Clone(env), "DVDI_BRIDGE_AGENT_WORK_DIR=/a/")
	b = r.start()
	held := func() string {
		rec, err := r.ledger().Peek(ledger.Key{Driver: "test", Volume: "v"})
		if err != nil || rec == nil {
			t.Fatalf("%+v, %v", rec, err)
		}
		var names []string
		for _, h := range rec.Holders {
			names = append(names, h.Name)
		}
		return strings.Join(names, ",")
	}
	await(t, "the hold of the first agent to be given up", func() bool { return held() == "mesos-agent:/b" })
	r.stays("v")
	if h := held(); h != "mesos-agent:/b" {
		t.Errorf("held by %s", h)
	}
	as("/b")
	if _, err := r.dvdcli("unmount", "--volumedriver=test", "--volumename=v"); err != nil || r.mounted("v") {
		t.Errorf("mounted %t, %v", r.mounted("v"), err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// The agent gets the credentials that the bridge was given.
func TestAgentCredentials(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	r.mesos.set(func(f *fakeAgent) { f.token = "Basic YnJpZGdlOnNlY3JldA==" }) // bridge:secret
	r.run("c1", "v")
	r.mesos.lists("another")
	b := r.start()
	r.stays("v")
	b.awaitLog("refuses the credentials")
	b.kill()
	file := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(file, []byte(`{"principal":"bridge","secret":"secret"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r.env = append(r.env, "DVDI_BRIDGE_AGENT_CREDENTIAL="+file)
	b = r.start()
	r.goes("v")
	if strings.Contains(b.logged(), "YnJpZGdl") || strings.Contains(b.logged(), `"secret"`) {
		t.Error("the secret is in the log")
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}
