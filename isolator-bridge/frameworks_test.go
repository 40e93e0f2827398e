package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/internal/freeport"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// free is an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// forFrameworks starts a bridge that serves frameworks, and a client of it.
func (a *agent) forFrameworks(more ...string) (*bridge, client.AgentClient) {
	a.t.Helper()
	token := filepath.Join(a.t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600); err != nil {
		a.t.Fatal(err)
	}
	address := free(a.t)
	a.env = append(a.env, append(more, "DVDI_BRIDGE_FACTS_TOKEN="+token, "DVDI_BRIDGE_FACTS_ADDRESS="+address)...)
	b := a.start()
	conn, err := client.Dial(address, client.Credentials{TokenFile: token})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			a.t.Error(err)
		}
	})
	return b, client.NewAgentClient(conn)
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// user starts a process in the background and returns a channel that is closed
// when it is gone.
func user(t *testing.T, cmd *exec.Cmd) <-chan struct{} {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if err := cmd.Wait(); err == nil {
			t.Errorf("%v ended by itself", cmd.Args)
		}
	}()
	t.Cleanup(func() {
		select {
		case <-gone:
			return
		default:
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-gone
	})
	return gone
}

// A bridge that cannot read what is registered does not start: a lease would never
// end. What is damaged is told and stops nothing.
func TestRegistrationsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	a := newAgent(t, volumetest.Start(t, volumetest.Config{}))
	b := a.start() // makes the directories
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	epochs := filepath.Join(a.variable("DVDCLI_STATE_DIR"), "epochs")
	if err := os.WriteFile(filepath.Join(epochs, "damaged.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b = a.start()
	b.awaitLog("registered epochs that cannot be read")
	if err := b.stop(); err != nil {
		t.Errorf("a damaged registration ended the bridge: %v", err)
	}
	needMounts(t)
	unread := filepath.Join(epochs, "unread.json")
	if err := os.WriteFile(unread, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	// A process has nothing at the first address of its memory: EIO.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", `mount --bind /proc/$$/mem "$0" && exec "$1" serve`, unread, bridgeBinary)
	cmd.Env = a.env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "leases: ") || !strings.Contains(string(out), "unread.json") {
		t.Errorf("a bridge that cannot read a registration: %v, %s", err, out)
	}
}

// renewing keeps a lease, as its framework does, until it is told to forget it.
func renewing(t *testing.T, c client.AgentClient, name *client.VolumeName, epoch uint64, basis []byte) (forget func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			out, err := c.Renew(ctx, &client.RenewRequest{FrameworkId: "f", Renewals: []*client.Renewal{{Volume: name, Epoch: epoch, Basis: basis}}})
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				t.Error(err)
			case out.Leases[0].Problem != "":
				t.Errorf("not renewed: %s", out.Leases[0].Problem)
			default:
				basis = out.Leases[0].Fence.Basis
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	forget = func() {
		cancel()
		<-done
	}
	t.Cleanup(forget)
	return forget
}

// TestFenceStopsWhatUsesAVolume: when the lease is over a process with a file
// open, one with its working directory there, and one that only has the volume
// mounted for itself, as a container has, are killed and the volume is
// unmounted; a bystander on the same disk is not.
func TestFenceStopsWhatUsesAVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may look at the processes of others")
	}
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	a := newAgent(t, p)
	_, c := a.forFrameworks()
	name := &client.VolumeName{Driver: "test", Name: "v"}
	reg, err := c.Register(soon(t), &client.RegisterRequest{FrameworkId: "f", Volume: name, Epoch: 7, Lease: durationpb.New(5 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	if reg.Fence.Trusted {
		t.Errorf("trusted without a watchdog: %v", reg.Fence)
	}
	forget := renewing(t, c, name, 7, reg.Fence.Basis) // until all users are there
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v", "--volumeopts=dvdi.epoch=6"); err == nil {
		t.Error("mounted under an older epoch")
	}
	path, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v", "--volumeopts=dvdi.epoch=7")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(path, "data"))
	if err != nil {
		t.Fatal(err)
	}
	holds := exec.Command("sleep", "1000")
	holds.Stdin = file
	inside := exec.Command("sleep", "1000")
	inside.Dir = path
	elsewhere, target := t.TempDir(), t.TempDir()
	contained := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$0" "$1" && touch "$1/there" && exec sleep 1000`, path, target)
	bystander := exec.Command("sleep", "1000")
	bystander.Dir = elsewhere
	// This one has a copy of the mount that no unmount reaches, and does not use it.
	heir := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `cd / && touch "$0/heir" && exec sleep 1000`, elsewhere)
	gone := []<-chan struct{}{user(t, holds), user(t, inside), user(t, contained)}
	spared := []<-chan struct{}{user(t, bystander), user(t, heir)}
	for _, there := range []string{filepath.Join(elsewhere, "heir"), filepath.Join(path, "there")} {
		await(t, there, func() bool {
			_, err := os.Stat(there)
			return err == nil
		})
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	forget()
	for i, g := range gone {
		select {
		case <-g:
		case <-time.After(patience):
			t.Fatalf("user %d of the volume lives on", i)
		}
	}
	await(t, "unmounted", func() bool { return !p.States()["v"].Mounted })
	await(t, "fenced", func() bool {
		f, err := c.GetFacts(soon(t), &client.GetFactsRequest{})
		return err == nil && len(f.Volumes) == 1 && f.Volumes[0].GetRegistered().GetFence().GetState() == client.Fence_FENCED
	})
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v", "--volumeopts=dvdi.epoch=7"); err == nil {
		t.Error("mounted after the lease was over")
	}
	for _, s := range spared {
		select {
		case <-s:
			t.Error("a bystander was killed")
		default:
		}
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", heir.Process.Pid))
	if err != nil || strings.Contains(string(table), path) {
		t.Errorf("a copy of the mount is left: %v", err)
	}
}

// TestNewEpochWithoutALease: when the framework registers the next epoch without
// a lease, that of the older one ends with it: the volume is not fenced, whether
// it is mounted under the new epoch or without any.
func TestNewEpochWithoutALease(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may look at the processes of others")
	}
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	a := newAgent(t, p)
	b, c := a.forFrameworks()
	lease := 5 * time.Second // which the registration of the next epoch must not outlast
	for volume, options := range map[string][]string{"new": {"--volumeopts=dvdi.epoch=6"}, "none": nil} {
		name := &client.VolumeName{Driver: "test", Name: volume}
		register := func(epoch uint64, lease time.Duration) error {
			_, err := c.Register(soon(t), &client.RegisterRequest{FrameworkId: "f", Volume: name, Epoch: epoch, Lease: durationpb.New(lease)})
			return err
		}
		if err := register(5, lease); err != nil {
			t.Fatal(err)
		}
		if err := register(5, 0); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("the epoch lost its lease: %v", err)
		}
		if err := register(6, 0); err != nil {
			t.Fatal(err)
		}
		path, err := a.dvdcli(append([]string{"mount", "--volumedriver=test", "--volumename=" + volume}, options...)...)
		if err != nil {
			t.Fatal(err)
		}
		task := exec.Command("sleep", "1000")
		task.Dir = path
		gone := user(t, task)
		t.Cleanup(func() {
			select {
			case <-gone:
				t.Errorf("%s: a task was stopped for a lease of before", volume)
			default:
			}
		})
	}
	// A third volume's lease, granted later, is over later.
	last := &client.VolumeName{Driver: "test", Name: "last"}
	if _, err := c.Register(soon(t), &client.RegisterRequest{FrameworkId: "f", Volume: last, Epoch: 1, Lease: durationpb.New(lease)}); err != nil {
		t.Fatal(err)
	}
	await(t, "the last lease to be over", func() bool {
		f, err := c.GetFacts(soon(t), &client.GetFactsRequest{})
		if err != nil {
			return false
		}
		for _, v := range f.Volumes {
			if v.Name.Name == "last" {
				return v.GetRegistered().GetFence().GetState() == client.Fence_FENCED
			}
		}
		return false
	})
	for _, volume := range []string{"new", "none"} {
		if !p.States()[volume].Mounted {
			t.Errorf("%s was unmounted", volume)
		}
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// TestRenewedLeaseOutlivesARestart: the bridge is killed and started again while
// the lease holds; the volume stays mounted, and the lease can be renewed.
func TestRenewedLeaseOutlivesARestart(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	b, c := a.forFrameworks()
	name := &client.VolumeName{Driver: "test", Name: "v"}
	reg, err := c.Register(soon(t), &client.RegisterRequest{FrameworkId: "f", Volume: name, Epoch: 1, Lease: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v", "--volumeopts=dvdi.epoch=1"); err != nil {
		t.Fatal(err)
	}
	b.kill()
	a.start()
	await(t, "renewed", func() bool {
		out, err := c.Renew(soon(t), &client.RenewRequest{FrameworkId: "f", Renewals: []*client.Renewal{{Volume: name, Epoch: 1, Basis: reg.Fence.Basis}}})
		return err == nil && out.Leases[0].Problem == ""
	})
	if !p.States()["v"].Mounted {
		t.Error("unmounted although the lease held")
	}
}

// A volume whose unmount failed for the isolator, and succeeded for the bridge, is
// released, although the agent keeps the checkpoint of the dead container until
// its next recovery (MESOS-10126).
func TestReleasedAfterOwedUnmount(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	b, c := r.forFrameworks()
	name := &client.VolumeName{Driver: "test", Name: "v"}
	if _, err := c.Register(soon(t), &client.RegisterRequest{FrameworkId: "f", Volume: name, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	r.mesos.lists("c1", "another")
	r.checkpoint("c1", "v")
	if _, err := r.dvdcli("mount", "--volumedriver=test", "--volumename=v", "--volumeopts=dvdi.epoch=1"); err != nil {
		t.Fatal(err)
	}
	withdrawn := func() *client.Withdrawn {
		w, err := c.Withdraw(soon(t), &client.WithdrawRequest{FrameworkId: "f", Volume: name, Epoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if w := withdrawn(); w.Released {
		t.Fatalf("released while it is mounted: %v", w)
	}
	r.plugin.Add(volumetest.Rule{Method: "Unmount", Times: 1, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	if _, err := r.dvdcli("unmount", "--volumedriver=test", "--volumename=v"); err == nil {
		t.Fatal("unmounted")
	}
	r.goes("v")
	// The container is listed still, so it may live.
	r.mesos.passes(t, 3)
	if w := withdrawn(); w.Released {
		t.Fatalf("released while a container that named it is listed: %v", w)
	}
	r.mesos.lists("another")
	await(t, "the volume to be released", func() bool { return withdrawn().Released })
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

func TestServesNobodyWithoutCredentials(t *testing.T) {
	a := newAgent(t, volumetest.Start(t, volumetest.Config{}))
	cmd := exec.Command(bridgeBinary, "serve", "--facts-address=127.0.0.1:0")
	cmd.Env = a.env
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "open to everybody") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestMetricsOfABridge(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	address := free(t)
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v"); err != nil {
		t.Fatal(err)
	}
	p.Add(volumetest.Rule{Method: "Unmount", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	if _, err := a.dvdcli("unmount", "--volumedriver=test", "--volumename=v"); err == nil {
		t.Fatal("unmounted")
	}
	_, c := a.forFrameworks("DVDI_BRIDGE_METRICS_ADDRESS=" + address)
	if _, err := c.GetFacts(soon(t), &client.GetFactsRequest{}); err != nil {
		t.Logf("too early: %v", err)
	}
	for _, want := range []string{
		`dvdi_bridge_operations_total{driver="test",kind="unmount",outcome="refused"}`,
		`dvdi_bridge_operation_duration_seconds_bucket{driver="test",kind="unmount",le="0.5"}`,
		`dvdi_bridge_volumes{driver="test",state="pending"} 1`,
		`dvdi_bridge_volumes{driver="test",state="mounted"} 0`,
		`dvdi_bridge_driver_healthy{driver="test"} 1`,
		`dvdi_bridge_leases{state="holding"} 0`,
		`dvdi_bridge_refused_total{reason="wrong_token"} 0`,
	} {
		await(t, want, func() bool { return strings.Contains(scrape(t, address), want) })
	}
	p.Clear()
	await(t, "no volume pending", func() bool {
		return strings.Contains(scrape(t, address), `dvdi_bridge_volumes{driver="test",state="pending"} 0`)
	})
}

func scrape(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return "" // it has not begun to listen
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// The calls that dvdcli makes are counted once each, whether a bridge ran then or
// not, and not again by the next bridge.
func TestMetricsOfDvdcli(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	address := free(t)
	a.env = append(a.env, "DVDI_BRIDGE_METRICS_ADDRESS="+address)
	mount := func(volumes ...string) {
		t.Helper()
		for _, v := range volumes {
			if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename="+v); err != nil {
				t.Fatal(err)
			}
		}
	}
	shows := func(lines ...string) {
		t.Helper()
		for _, want := range lines {
			await(t, want, func() bool { return strings.Contains(scrape(t, address), want+"\n") })
		}
	}
	const mounted = `dvdi_bridge_operations_total{driver="test",kind="mount",outcome="ok"}`
	mount("a", "b")
	p.Add(volumetest.Rule{Method: "Mount", Volume: "bad", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"disk is sick"}`})
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=bad"); err == nil {
		t.Fatal("mounted")
	}
	b := a.start()
	shows(mounted+" 2", `dvdi_bridge_operations_total{driver="test",kind="mount",outcome="refused"} 1`,
		`dvdi_bridge_operation_duration_seconds_count{driver="test",kind="mount"} 3`, `dvdi_bridge_journal_losses_total{reason="overrun"} 0`)
	mount("c")
	shows(mounted + " 3")
	if _, err := a.dvdcli("unmount", "--volumedriver=test", "--volumename=c"); err != nil {
		t.Fatal(err)
	}
	shows(`dvdi_bridge_operations_total{driver="test",kind="unmount",outcome="ok"} 1`)
	b.kill()
	mount("d")
	b = a.start()
	shows(mounted + " 1")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Whatever is wrong with the journal of calls, volumes are mounted, and the
// bridge runs.
func TestJournalFailsNoMount(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	for name, put := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"garbage":   func(path string) error { return os.WriteFile(path, make([]byte, 3<<20), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t, p)
			address := free(t)
			a.env = append(a.env, "DVDI_BRIDGE_METRICS_ADDRESS="+address)
			run := a.variable("DVDCLI_RUN_DIR")
			if err := os.MkdirAll(run, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := put(filepath.Join(run, "calls.log")); err != nil {
				t.Fatal(err)
			}
			b := a.start()
			for _, command := range []string{"mount", "unmount"} {
				if out, err := a.dvdcli(command, "--volumedriver=test", "--volumename=v"); err != nil {
					t.Errorf("%s: %v: %s", command, err, out)
				}
			}
			await(t, "metrics", func() bool { return strings.Contains(scrape(t, address), "dvdi_bridge_build_info") })
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDamagedRegistrationIsFenced: a bridge that cannot read what is registered
// when it starts ends the use of the volume with its lease, and is done then: a
// higher epoch can be registered.
func TestDamagedRegistrationIsFenced(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may look at the processes of others")
	}
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	a := newAgent(t, p)
	b, c := a.forFrameworks()
	name := &client.VolumeName{Driver: "test", Name: "v"}
	register := func(epoch uint64) error {
		_, err := c.Register(soon(t), &client.RegisterRequest{FrameworkId: "f", Volume: name, Epoch: epoch, Lease: durationpb.New(10 * time.Second)})
		return err
	}
	if err := register(7); err != nil {
		t.Fatal(err)
	}
	path, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v", "--volumeopts=dvdi.epoch=7")
	if err != nil {
		t.Fatal(err)
	}
	task := exec.Command("sleep", "1000")
	task.Dir = path
	gone := user(t, task)
	b.kill()
	file := filepath.Join(a.variable("DVDCLI_STATE_DIR"), "epochs", ledger.Key{Driver: "test", Volume: "v"}.FileName()+".json")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b = a.start()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the task lives on after its lease")
	}
	await(t, "unmounted", func() bool { return !p.States()["v"].Mounted })
	b.awaitLog("volume fenced, its registration is damaged")
	await(t, "a higher epoch", func() bool { return register(8) == nil })
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// TestWrongWorkDirIsTold: a bridge that was told another work directory than the
// agent's, as by a symbolic link, does not find the agent's leaks, and says so.
func TestWrongWorkDirIsTold(t *testing.T) {
	t.Parallel()
	r := newLeakRig(t, volumetest.Config{})
	agent := slices.Index(r.env, "DVDCLI_HOLDER=agent")
	r.env[agent] = "DVDCLI_HOLDER=mesos-agent:/real"
	r.run("c1", "v")
	r.mesos.lists("c1")
	r.env[agent] = "DVDI_BRIDGE_AGENT_WORK_DIR=/link"
	b, c := r.forFrameworks()
	await(t, "the problem in the facts", func() bool {
		f, err := c.GetFacts(soon(t), &client.GetFactsRequest{})
		return err == nil && len(f.Volumes) == 1 && strings.Contains(f.Volumes[0].Problem, "mesos-agent:/real") &&
			strings.Contains(f.Volumes[0].Problem, "--agent-work-dir")
	})
	r.stays("v")
	if n := strings.Count(b.logged(), "other agents hold volumes"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}
