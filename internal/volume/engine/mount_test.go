package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

func TestMountCreatesMountsAndUnmounts(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		t.Run(string(m), func(t *testing.T) {
			r := newRig(t, m)
			res := r.mustMount("v")
			if res.Path != "/vol/v" || !res.Created || res.Shared {
				t.Errorf("mount: %+v", res)
			}
			r.mustUnmount("v")
			r.expect("v", 1, 1)
			r.clean("v")
			if again := r.mustMount("v"); again.Created {
				t.Error("created a volume that exists")
			}
			if n := r.plugin.made("create", "v"); n != 1 {
				t.Errorf("%d creates, want 1", n)
			}
		})
	}
}

// Two containers on one agent share a volume: two mounts and one unmount of the
// isolator are one and one for the driver.
func TestSharedVolumeIsMountedOnce(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		t.Run(string(m), func(t *testing.T) {
			r := newRig(t, m)
			first, second := r.mustMount("v"), r.mustMount("v")
			if second.Path != first.Path || !second.Shared {
				t.Errorf("second mount: %+v, first %+v", second, first)
			}
			r.mustUnmount("v")
			r.expect("v", 1, 1)
			r.clean("v")
		})
	}
}

// Any answer of Get but a positive "not found" must not lead to Create: the
// volume may exist, and a new one would be empty.
func TestCreateOnlyOnPositiveNotFound(t *testing.T) {
	for _, kind := range []volume.Kind{volume.Refused, volume.DriverUnreachable, volume.Unsettled} {
		t.Run(string(kind), func(t *testing.T) {
			r := newRig(t, idempotent)
			r.plugin.on = func(call, vol string) error {
				if call == "get" {
					return &volume.Error{Kind: kind, Message: "backend is busy"}
				}
				return nil
			}
			_, err := r.mount("v")
			if !errors.Is(err, kind) {
				t.Errorf("error %v, want %v", err, kind)
			}
			if n := r.plugin.made("create", "v"); n != 0 {
				t.Errorf("%d creates", n)
			}
			r.clean("v")
		})
	}
}

func TestExplicitCreate(t *testing.T) {
	yes := true
	cases := map[string]func(*rig, *MountRequest){
		"request":       func(_ *rig, q *MountRequest) { q.Explicit = true },
		"dvdi.explicit": func(_ *rig, q *MountRequest) { q.Options.Engine = map[string]string{"dvdi.explicit": "true"} },
		"policy":        func(r *rig, _ *MountRequest) { r.policy = &Policy{ExplicitCreate: true} },
		"policy, driver": func(r *rig, _ *MountRequest) {
			r.policy = &Policy{Drivers: map[string]DriverRules{"fake": {ExplicitCreate: &yes}}}
		},
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, idempotent)
			req := MountRequest{Driver: "fake", Volume: "v", Holder: agent}
			set(r, &req)
			_, err := r.engine().Mount(context.Background(), req)
			if !errors.Is(err, volume.NotFound) {
				t.Errorf("error %v, want not found", err)
			}
			if n := r.plugin.made("create", "v"); n != 0 {
				t.Errorf("%d creates", n)
			}
			if err := r.engine().Create(context.Background(), CreateRequest{Driver: "fake", Volume: "v"}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.engine().Mount(context.Background(), req); err != nil {
				t.Errorf("mount of a created volume: %v", err)
			}
		})
	}
}

// A volume mounted by dvdcli 0.2, which sends no mount ID and keeps no record,
// is taken over with the empty ID.
func TestAdoptsMountOfIncumbent(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, by := range []string{"mount", "unmount"} {
			t.Run(fmt.Sprint(m, " ", by), func(t *testing.T) {
				r := newRig(t, m)
				r.plugin.vols["v"] = true
				if _, err := r.plugin.Mount(context.Background(), volume.MountRequest{Volume: volume.Ref{Name: "v"}}); err != nil {
					t.Fatal(err)
				}
				if by == "mount" {
					if res := r.mustMount("v"); res.Path != "/vol/v" || !res.Shared {
						t.Errorf("mount: %+v", res)
					}
				}
				r.mustUnmount("v")
				r.expect("v", 1, 1)
				r.clean("v")
			})
		}
	}
}

// What another agent's ledger on this host has mounted is not ownerless.
func TestDoesNotAdoptMountOfAnotherLedger(t *testing.T) {
	r := newRig(t, refusing)
	r.mustMount("v")
	other := *r
	other.run, other.state = t.TempDir(), t.TempDir()
	res := other.mustUnmount("v")
	if res.Unmounted {
		t.Error("unmounted what the other agent has mounted")
	}
	r.expect("v", 1, 0)
	other.mustMount("v")
	r.mustUnmount("v")
	if r.host.stacked("/vol/v") != 1 {
		t.Error("the other agent's mount is gone")
	}
	other.mustUnmount("v")
	r.expect("v", 2, 2)
	r.clean("v")
	other.clean("v")
}

// A mount that no ledger knows is taken over by one of the host's agents only.
func TestOneLedgerAdopts(t *testing.T) {
	r := newRig(t, counting)
	r.plugin.vols["v"] = true
	if _, err := r.plugin.Mount(t.Context(), volume.MountRequest{Volume: volume.Ref{Name: "v"}}); err != nil { // by dvdcli 0.2
		t.Fatal(err)
	}
	other := *r
	other.run, other.state = t.TempDir(), t.TempDir()
	r.mustMount("v")
	other.mustMount("v")
	r.expect("v", 2, 0)
	r.mustUnmount("v")
	if r.host.stacked("/vol/v") != 1 {
		t.Error("the other agent's mount is gone")
	}
	other.mustUnmount("v")
	r.expect("v", 2, 2)
	r.clean("v")
	other.clean("v")
}

// Two ledgers, one driver, one path: whoever gives the volume up first takes
// nothing from the other, and the driver gets one Unmount for each Mount in the
// end, by whoever is last.
func TestTwoLedgersOneMount(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		t.Run(string(m), func(t *testing.T) {
			r := newRig(t, m)
			other := *r
			other.run, other.state = t.TempDir(), t.TempDir()
			r.mustMount("v")
			other.mustMount("v")
			r.expect("v", 2, 0)
			if res := r.mustUnmount("v"); res.Unmounted || len(res.Notes) == 0 || r.host.stacked("/vol/v") != 1 {
				t.Fatalf("%+v, %d mounts", res, r.host.stacked("/vol/v"))
			}
			r.expect("v", 2, 0)
			if list := r.records(); len(list) != 1 || list[0].Record.Phase != ledger.PhasePending {
				t.Errorf("records %+v", list)
			}
			if res := r.mustMount("v"); !res.Shared { // again, while the other one has it
				t.Errorf("%+v", res)
			}
			r.mustUnmount("v")
			if res := other.mustUnmount("v"); !res.Unmounted {
				t.Errorf("%+v", res)
			}
			r.expect("v", 2, 2)
			r.clean("v")
			other.clean("v")
		})
	}
}

// A record that the run directory lost is there again with the next mount, where
// the bridge looks for it.
func TestLostRecordIsWrittenAnew(t *testing.T) {
	r := newRig(t, counting)
	r.mustMount("v")
	for _, file := range r.records() {
		if err := os.Remove(file.File); err != nil {
			t.Fatal(err)
		}
	}
	if list := r.records(); len(list) != 1 || !list[0].Hint {
		t.Fatalf("records %+v", list)
	}
	r.mustMount("v")
	if list := r.records(); len(list) != 1 || list[0].Hint || list[0].Record.Phase != ledger.PhaseMounted {
		t.Errorf("records %+v", list)
	}
	r.mustUnmount("v")
	r.expect("v", 1, 1)
	r.clean("v")
}

// What tells of the other ledgers cannot be used any more: mounting fails, and
// the container ends, but its unmount is owed until nobody else can be working
// with the mount.
func TestUnmountWithoutTheHostsDirectory(t *testing.T) {
	r := newRig(t, refusing)
	r.mustMount("v")
	if err := os.RemoveAll(r.hostDir); err != nil {
		t.Fatal(err)
	}
	overwrite(t, r.hostDir, "")
	if _, err := r.mount("w"); !errors.Is(err, volume.LedgerFailed) {
		t.Errorf("%v", err)
	}
	if res := r.mustUnmount("v"); res.Unmounted || len(res.Notes) == 0 {
		t.Errorf("%+v", res)
	}
	r.expect("v", 1, 0)
	if err := os.Remove(r.hostDir); err != nil {
		t.Fatal(err)
	}
	if res := r.mustUnmount("v"); !res.Unmounted {
		t.Errorf("%+v", res)
	}
	r.expect("v", 1, 1)
	r.clean("v")
}

// An Unmount that waits for another ledger is made by its own one, too, once
// that one is gone.
func TestOwedUnmountAfterTheOtherLedger(t *testing.T) {
	r := newRig(t, idempotent)
	other := *r
	other.run, other.state = t.TempDir(), t.TempDir()
	r.mustMount("v")
	other.mustMount("v")
	r.mustUnmount("v")
	if err := other.engine().Forget(t.Context(), ledger.Key{Driver: "fake", Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.engine().Reconcile(t.Context(), ReconcileRequest{Now: true}); err != nil {
		t.Fatal(err)
	}
	r.clean("v")
}

// A mount that fails is undone without taking the volume from another ledger.
func TestFailedMountSparesOtherLedgers(t *testing.T) {
	r := newRig(t, idempotent)
	other := *r
	other.run, other.state = t.TempDir(), t.TempDir()
	other.mustMount("v")
	r.policy = &Policy{Drivers: map[string]DriverRules{"fake": {Root: "/elsewhere"}}}
	if _, err := r.mount("v"); !errors.Is(err, volume.BadPath) {
		t.Errorf("%v", err)
	}
	r.mustUnmount("v")
	if r.host.stacked("/vol/v") != 1 {
		t.Error("the other agent's mount is gone")
	}
	other.mustUnmount("v")
	r.clean("v")
	other.clean("v")
}

// A mount that somebody unmounts by hand: the driver still counts it, and gets
// its Unmount before the next Mount where it turns out to need one.
func TestUnmountedByHand(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprint(m, " restarted ", restarted), func(t *testing.T) {
				r := newRig(t, m)
				r.mustMount("v")
				r.host.umount("/vol/v")
				if restarted {
					r.plugin.restart(false)
				}
				if res := r.mustMount("v"); r.host.stacked(res.Path) != 1 {
					t.Errorf("%+v", res)
				}
				r.mustUnmount("v")
				r.leavesNothing()
			})
		}
	}
}

// A driver that keeps its count when its own umount fails never mounts again what
// somebody unmounted by hand. The error ends with the only thing that helps.
func TestUnmountedByHandForADriverThatKeepsItsCount(t *testing.T) {
	r := newRig(t, counting)
	r.mustMount("v")
	r.host.umount("/vol/v")
	r.plugin.on = func(call, vol string) error {
		if call == "unmount" && r.host.stacked("/vol/"+vol) == 0 {
			return r.plugin.refuse("umount: not mounted")
		}
		return nil
	}
	for range 2 {
		_, err := r.mount("v")
		if !errors.Is(err, volume.BadPath) || !strings.HasSuffix(err.Error(), "restart the plugin") {
			t.Errorf("%v", err)
		}
	}
	r.plugin.restart(false)
	r.mustMount("v")
	r.mustUnmount("v")
	r.leavesNothing()
}

func TestUnmountIsForgiving(t *testing.T) {
	cases := map[string]struct {
		driver string
		set    func(*rig)
		strict volume.Kind
	}{
		"nothing mounted": {"fake", func(*rig) {}, volume.NotMounted},
		"driver unknown":  {"nosuch", func(*rig) {}, volume.NotMounted},
		"driver down":     {"fake", func(r *rig) { r.drivers.down = true }, volume.NotMounted},
		"driver removed while mounted": {"fake", func(r *rig) {
			r.mustMount("v")
			r.drivers.known = nil
		}, volume.DriverUnknown},
	}
	for name, c := range cases {
		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " strict ", strict), func(t *testing.T) {
				r := newRig(t, idempotent)
				c.set(r)
				res, err := r.engine().Unmount(context.Background(), UnmountRequest{Driver: c.driver, Volume: "v", Holder: agent, Strict: strict})
				if strict != errors.Is(err, c.strict) || !strict && err != nil {
					t.Errorf("error %v", err)
				}
				if len(res.Notes) == 0 {
					t.Error("no note")
				}
			})
		}
	}
}

// A failed unmount is remembered and tried again, with a pause that grows.
func TestFailedUnmountStaysOwed(t *testing.T) {
	r := newRig(t, refusing)
	r.mustMount("v")
	busy := true
	r.plugin.on = func(call, vol string) error {
		if call == "unmount" && busy {
			return r.plugin.refuse("device is busy")
		}
		return nil
	}
	if _, err := r.unmount("v"); !errors.Is(err, volume.Refused) {
		t.Fatalf("error %v, want refused", err)
	}
	items := r.records()
	if len(items) != 1 || items[0].Record.Phase != ledger.PhasePending || !strings.Contains(items[0].Record.LastError, "busy") {
		t.Fatalf("record: %+v", items)
	}
	reconcile := func() Finding {
		t.Helper()
		found, err := r.engine().Reconcile(context.Background(), ReconcileRequest{})
		if err != nil || len(found) != 1 {
			t.Fatalf("findings %v, error %v", found, err)
		}
		return found[0]
	}
	if f := reconcile(); f.After <= 0 || r.plugin.made("unmount", "v") != 1 {
		t.Errorf("tried again at once: %+v", f)
	}
	r.clock.advance(time.Minute)
	if f := reconcile(); f.Problem == "" || r.plugin.made("unmount", "v") != 2 {
		t.Errorf("did not try again, or not tell: %+v", f)
	}
	busy = false
	r.clock.advance(time.Minute)
	if f := reconcile(); f.Action != "unmounted" {
		t.Errorf("finding %+v", f)
	}
	r.clean("v")
}

// The task comes back to the agent where the unmount failed: the volume is
// still there and is used again.
func TestMountCancelsOwedUnmount(t *testing.T) {
	r := newRig(t, refusing)
	r.mustMount("v")
	r.plugin.on = func(call, vol string) error {
		if call == "unmount" {
			return r.plugin.refuse("device is busy")
		}
		return nil
	}
	if _, err := r.unmount("v"); err == nil {
		t.Fatal("unmount succeeded")
	}
	if res := r.mustMount("v"); !res.Shared {
		t.Errorf("mount: %+v", res)
	}
	r.plugin.on = nil
	r.clock.advance(time.Hour)
	if _, err := r.engine().Reconcile(context.Background(), ReconcileRequest{}); err != nil {
		t.Fatal(err)
	}
	r.expect("v", 1, 1)
	r.mustUnmount("v")
	r.clean("v")
}

func TestPathOfMountIsChecked(t *testing.T) {
	cases := map[string]struct {
		path string
		set  func(*rig)
	}{
		"empty":              {path: ""},
		"relative":           {path: "vol/v"},
		"missing":            {path: "/missing", set: func(r *rig) { r.plugin.plain = true; r.host.dead["/missing"] = fs.ErrNotExist }},
		"dead":               {path: "/dead", set: func(r *rig) { r.host.dead["/dead"] = syscall.ENOTCONN }},
		"with newline":       {path: "/vol/a\nb"},
		"outside the root":   {path: "/elsewhere", set: func(r *rig) { r.policy = &Policy{Defaults: DriverRules{Root: "/vol"}} }},
		"no mount point":     {path: "/vol/v", set: func(r *rig) { r.plugin.plain = true; r.policy = &Policy{Defaults: DriverRules{MountPoint: "required"}} }},
		"no mount any more":  {path: "/vol/v", set: func(r *rig) { r.mustMount("w"); r.mustUnmount("w"); r.plugin.plain = true }},
		"chown not possible": {path: "/vol/v", set: func(r *rig) { r.policy = &Policy{Defaults: DriverRules{Chown: "1:1"}} }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, counting)
			if c.set != nil {
				c.set(r)
			}
			r.plugin.pathFor = func(string) string { return c.path }
			res, err := r.mount("v")
			if !errors.Is(err, volume.BadPath) || res.Path != "" {
				t.Errorf("path %q, error %v", res.Path, err)
			}
			r.expect("v", 1, 1)
			r.clean("v")
		})
	}
}

// A driver that names a directory of the system, or of the ledger, would hand it
// to a container. Nothing is learned from that either.
func TestPathOfTheSystem(t *testing.T) {
	for name, set := range map[string]func(*rig) string{
		"root of the host": func(*rig) string { return "/" },
		"of the system":    func(*rig) string { return "/sys/fs/cgroup" },
		"link to the root": func(r *rig) string { r.host.links["/vol/link"] = "/"; return "/vol/link" },
		"the ledger's":     func(r *rig) string { return r.run },
		"above the ledger": func(r *rig) string { return filepath.Dir(r.state) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, idempotent)
			r.plugin.plain = true
			path := set(r)
			r.host.mount("/", "root")
			if path != "/" {
				r.host.mount(path, "system")
			}
			r.plugin.pathFor = func(string) string { return path }
			if res, err := r.mount("v"); !errors.Is(err, volume.BadPath) || res.Path != "" {
				t.Errorf("path %q, error %v", res.Path, err)
			}
			r.expect("v", 1, 1)
			r.plugin.pathFor = nil
			r.mustMount("w")
			r.mustUnmount("w")
			if n := len(r.records()); n != 0 {
				t.Errorf("%d records left", n)
			}
		})
	}
}

// What a driver says of a volume by Get and Path is a claim: it is not handed on
// where its answer to Mount would not be.
func TestClaimsAreCheckedAsAnswersAre(t *testing.T) {
	for name, claim := range map[string]string{"system": "/", "outside": "/elsewhere", "newline": "/vol/a\nb", "file": "/vol/file"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, idempotent)
			r.plugin.vols["v"] = true
			r.policy = &Policy{Defaults: DriverRules{Root: "/vol"}}
			r.host.mount(claim, "something")
			if name == "file" {
				r.host.files = map[string]bool{claim: true}
			}
			r.plugin.claims = true
			r.plugin.pathFor = func(string) string { return claim }
			if path, err := r.engine().Path(t.Context(), "fake", "v"); !errors.Is(err, volume.NotMounted) || path != "" {
				t.Errorf("path: %q, %v", path, err)
			}
			r.mustUnmount("v")
			r.expect("v", 0, 0)
			r.plugin.on = func(call, _ string) error {
				if call == "mount" {
					r.plugin.pathFor = nil
				}
				return nil
			}
			if res := r.mustMount("v"); res.Path != "/vol/v" {
				t.Errorf("path %q", res.Path)
			}
			r.expect("v", 1, 0)
		})
	}
}

// Two volumes with one path would share their data and end each other's mount.
func TestPathOfAnotherVolume(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("a")
	r.plugin.pathFor = func(string) string { return "/vol/a" }
	if _, err := r.mount("b"); !errors.Is(err, volume.BadPath) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("error %v", err)
	}
	r.plugin.claims = true
	if res, err := r.engine().Adopt(t.Context(), AdoptRequest{Driver: "fake", Volume: "c", Holder: agent}); err != nil || res.Adopted {
		t.Errorf("adopted: %+v, %v", res, err)
	}
	for _, i := range r.records() {
		if i.Record.Volume != "a" {
			t.Errorf("record %+v", i.Record)
		}
	}
}

// A driver that is called by another of its names is the same driver: for the
// records and for the policy.
func TestDriverByAnyName(t *testing.T) {
	r := newRig(t, counting)
	for _, name := range []string{"fake:latest", "fake"} {
		if _, err := r.engine().Mount(t.Context(), MountRequest{Driver: name, Volume: "v", Holder: agent}); err != nil {
			t.Fatal(err)
		}
	}
	r.expect("v", 1, 0)
	if path, err := r.engine().Path(t.Context(), "fake:latest", "v"); err != nil || path != "/vol/v" {
		t.Errorf("%q %v", path, err)
	}
	if _, err := r.engine().Unmount(t.Context(), UnmountRequest{Driver: "fake:latest", Volume: "v", Holder: agent}); err != nil {
		t.Fatal(err)
	}
	r.expect("v", 1, 1)
	r.clean("v")
	r.drivers.ids = map[string]string{"0123456789ab": "fake"}
	for _, key := range []string{"fake", "fake:latest", "0123456789ab"} {
		r.policy = &Policy{Drivers: map[string]DriverRules{key: {ForbiddenOptions: []string{"evil"}}}}
		for _, name := range []string{"fake:latest", "fake"} {
			req := MountRequest{Driver: name, Volume: "v", Holder: agent, Options: Options{Driver: map[string]string{"evil": "1"}}}
			if _, err := r.engine().Mount(t.Context(), req); !errors.Is(err, volume.Forbidden) {
				t.Errorf("rules of %s, called %s: %v", key, name, err)
			}
		}
		r.policy = &Policy{AllowedDrivers: []string{key}}
		r.mustMount("v")
		r.mustUnmount("v")
		if err := (*Policy)(nil).AllowsDriver(r.drivers, "other"); err != nil {
			t.Errorf("without a policy: %v", err)
		}
		for name, want := range map[string]bool{"fake": true, "fake:latest": true, "other": false} {
			if err := r.policy.AllowsDriver(r.drivers, name); (err == nil) != want || !want && !errors.Is(err, volume.Forbidden) {
				t.Errorf("%s alone is allowed, asked for %s: %v", key, name, err)
			}
		}
	}
}

// A driver in another mount namespace: its mount exists and is not seen here.
func TestMountInAnotherNamespace(t *testing.T) {
	r := newRig(t, idempotent)
	r.plugin.plain = true
	r.host.elsewhere[7] = volume.MountTable{Namespace: "mnt:[2]", Mounts: []volume.MountPoint{{Path: "/vol/v"}}}
	d := &withPID{plugin: r.plugin, pid: 7}
	r.drivers.known["fake"] = d
	_, err := r.mount("v")
	if !errors.Is(err, volume.BadPath) || !strings.Contains(err.Error(), "mnt:[2]") {
		t.Errorf("error %v", err)
	}
	r.expect("v", 1, 1)
}

type withPID struct {
	*plugin
	pid int
}

func (p *withPID) Mount(ctx context.Context, req volume.MountRequest) (volume.Mounted, error) {
	m, err := p.plugin.Mount(ctx, req)
	m.ServerPID = p.pid
	return m, err
}

// A driver that returns plain directories is taken as it is, until it once
// returned a mount point.
func TestPlainDirectories(t *testing.T) {
	r := newRig(t, counting)
	r.plugin.plain = true
	r.mustMount("v")
	if res := r.mustMount("v"); !res.Shared {
		t.Error("not shared")
	}
	r.mustUnmount("v")
	r.expect("v", 1, 1)
	for _, i := range r.records() {
		t.Errorf("record left: %+v", i.Record)
	}
}

func TestSharedPathIsStillTrue(t *testing.T) {
	cases := map[string]struct {
		change func(*rig)
		ok     bool
		mounts int
	}{
		"unmounted behind our back":    {func(r *rig) { r.plugin.restart(true) }, true, 2},
		"unmounted by hand":            {func(r *rig) { r.host.umount("/vol/v") }, true, 3},
		"driver forgot, mount stays":   {func(r *rig) { r.plugin.restart(false) }, true, 1},
		"mounted again by its driver":  {func(r *rig) { r.host.umount("/vol/v"); r.host.mount("/vol/v", "v") }, true, 1},
		"something else mounted there": {func(r *rig) { r.host.umount("/vol/v"); r.host.mount("/vol/v", "other") }, false, 1},
		"dead":                         {func(r *rig) { r.host.dead["/vol/v"] = syscall.ENOTCONN }, false, 1},
		"agent in another namespace":   {func(r *rig) { r.host.namespace = "mnt:[2]"; r.host.umount("/vol/v") }, false, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, refusing)
			r.mustMount("v")
			c.change(r)
			res, err := r.mount("v")
			if c.ok != (err == nil) || !c.ok && !errors.Is(err, volume.BadPath) {
				t.Errorf("%+v, error %v", res, err)
			}
			if n := r.plugin.made("mount", "v"); n != c.mounts {
				t.Errorf("%d mounts, want %d", n, c.mounts)
			}
			if n := r.host.stacked("/vol/v"); n > 1 {
				t.Errorf("%d mounts stacked", n)
			}
		})
	}
}

func TestHolders(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, idempotent)
	r.mustMount("v")
	person := Holder{Name: "user:0", Person: true}
	req := UnmountRequest{Driver: "fake", Volume: "v", Holder: person}
	if _, err := r.engine().Unmount(ctx, req); !errors.Is(err, volume.InUse) || !strings.Contains(err.Error(), "agent") {
		t.Errorf("a person took the agent's volume: %v", err)
	}
	if _, err := r.engine().Mount(ctx, MountRequest{Driver: "fake", Volume: "v", Holder: person}); err != nil {
		t.Fatal(err)
	}
	if res, err := r.engine().Unmount(ctx, req); err != nil || res.Unmounted || len(res.HeldBy) != 1 {
		t.Errorf("release: %+v, %v", res, err)
	}
	r.expect("v", 1, 0)
	other := UnmountRequest{Driver: "fake", Volume: "v", Holder: Holder{Name: "other agent"}}
	if res, err := r.engine().Unmount(ctx, other); err != nil || res.Unmounted || len(res.Notes) == 0 {
		t.Errorf("another agent's unmount: %+v, %v", res, err)
	}
	req.Force = true
	if res, err := r.engine().Unmount(ctx, req); err != nil || !res.Unmounted {
		t.Errorf("forced: %+v, %v", res, err)
	}
	r.clean("v")
}

func TestRemove(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, counting)
	r.mustMount("v")
	if err := r.engine().Remove(ctx, RemoveRequest{Driver: "fake", Volume: "v"}); !errors.Is(err, volume.InUse) {
		t.Errorf("removed while mounted: %v", err)
	}
	r.mustUnmount("v")
	if err := r.engine().Remove(ctx, RemoveRequest{Driver: "fake", Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	if err := r.engine().Remove(ctx, RemoveRequest{Driver: "fake", Volume: "v"}); !errors.Is(err, volume.NotFound) {
		t.Errorf("error %v, want not found", err)
	}
	r.clean("v")
}

func TestPathIsOnlyToldWhenMounted(t *testing.T) {
	ctx := context.Background()
	r := newRig(t, idempotent)
	r.plugin.vols["v"] = true
	r.plugin.claims = true
	if p, err := r.engine().Path(ctx, "fake", "v"); !errors.Is(err, volume.NotMounted) {
		t.Errorf("path %q, error %v", p, err)
	}
	if p, err := r.engine().Path(ctx, "fake", "nothing"); !errors.Is(err, volume.NotFound) {
		t.Errorf("path %q, error %v", p, err)
	}
	r.mustMount("v")
	if p, err := r.engine().Path(ctx, "fake", "v"); err != nil || p != "/vol/v" {
		t.Errorf("path %q, error %v", p, err)
	}
}

// Names never become paths; each has its own record.
func TestStrangeNames(t *testing.T) {
	long := strings.Repeat("x", 4000)
	names := []string{"../../etc/passwd", "a/b", "a/", "/", "..", "new\nline", "name=x,size=10", "ünïcode-卷", long, long + "y", "a", "A", " "}
	r := newRig(t, refusing)
	n := 0
	r.plugin.pathFor = func(vol string) string { return fmt.Sprintf("/vol/%d-%x", len(vol), vol[:1]) }
	seen := map[string]bool{}
	for _, name := range names {
		n++
		path := fmt.Sprintf("/vol/%d", n)
		r.plugin.pathFor = func(string) string { return path }
		r.mustMount(name)
		seen[ledger.Key{Driver: "fake", Volume: name}.FileName()] = true
	}
	if len(seen) != len(names) {
		t.Errorf("%d file names for %d volumes", len(seen), len(names))
	}
	if got := len(r.records()); got != len(names) {
		t.Errorf("%d records for %d volumes", got, len(names))
	}
	for _, name := range []string{"", "a\x00b", strings.Repeat("x", 5000)} {
		if _, err := r.mount(name); !errors.Is(err, volume.Invalid) {
			t.Errorf("name %.10q: error %v", name, err)
		}
	}
	escaped, err := filepath.Glob(filepath.Join(filepath.Dir(r.run), "*"))
	if err != nil || len(escaped) != 3 {
		t.Errorf("files beside the ledger: %v %v", escaped, err)
	}
}

// Secrets reach the driver, and nothing else.
func TestSecretsStayOutOfSight(t *testing.T) {
	r := newRig(t, idempotent)
	r.policy = &Policy{Defaults: DriverRules{SecretOptions: []string{"Pin"}}}
	var got volume.CreateRequest
	r.drivers.known["fake"] = &spy{plugin: r.plugin, create: func(q volume.CreateRequest) { got = q }}
	r.plugin.on = func(call, vol string) error {
		if call == "mount" {
			return r.plugin.refuse("login with hunter2 and 4711x failed")
		}
		return nil
	}
	_, err := r.mount("v", "password=hunter2", "pin=4711x", "size=5")
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "4711x") || !strings.Contains(err.Error(), "failed") {
		t.Errorf("error text: %v", err)
	}
	if got.Secrets["password"] != "hunter2" || got.Secrets["pin"] != "4711x" || got.Options["size"] != "5" || len(got.Options) != 1 {
		t.Errorf("driver got %v and %d secrets", got.Options, len(got.Secrets))
	}
	r.plugin.on = nil
	r.mustMount("v", "password=hunter2", "pin=4711x")
	for _, dir := range []string{r.run, r.state} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if strings.Contains(string(data), "hunter2") || strings.Contains(string(data), "4711x") {
				t.Errorf("%s holds a secret", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

type spy struct {
	*plugin
	create func(volume.CreateRequest)
}

func (s *spy) Create(ctx context.Context, q volume.CreateRequest) (volume.Volume, error) {
	s.create(q)
	return s.plugin.Create(ctx, q)
}

func TestReservedOptionsStayHere(t *testing.T) {
	r := newRig(t, idempotent)
	var got volume.CreateRequest
	r.drivers.known["fake"] = &spy{plugin: r.plugin, create: func(q volume.CreateRequest) { got = q }}
	r.mustMount("v", "dvdi.instance=app.1", "dvdi.unheard=x", "size=1")
	if len(got.Options) != 1 || got.Options["size"] != "1" {
		t.Errorf("driver got %v", got.Options)
	}
	if h := r.records()[0].Record.Holders[0]; h.Instance != "app.1" {
		t.Errorf("holder %+v", h)
	}
}

// Calls to a driver that gets one at a time do not overlap, those to others do.
func TestOneCallAtATime(t *testing.T) {
	for _, one := range []bool{true, false} {
		r := newRig(t, idempotent)
		r.policy = &Policy{Drivers: map[string]DriverRules{"fake": {OneCallAtATime: one}}}
		var inside, most atomic.Int32
		both := make(chan struct{})
		r.plugin.on = func(string, string) error {
			n := inside.Add(1)
			defer inside.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if one {
				return nil
			}
			select { // two must be inside at once
			case both <- struct{}{}:
			case <-both:
			case <-time.After(10 * time.Second):
				t.Error("calls to different volumes wait for each other")
			}
			return nil
		}
		var wg sync.WaitGroup
		for _, vol := range []string{"a", "b"} {
			wg.Go(func() {
				if _, err := r.engine().Mount(context.Background(), MountRequest{Driver: "fake", Volume: vol, Holder: agent}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if one && most.Load() != 1 {
			t.Errorf("%d calls at once", most.Load())
		}
	}
}

// A Create that was done, though its answer was lost, is seen by Get: nobody
// waits for the end of its time.
func TestLostCreateIsSeenAtOnce(t *testing.T) {
	r := newRig(t, idempotent)
	r.lost("create", "after")
	if _, err := r.mount("v"); !errors.Is(err, volume.Unsettled) {
		t.Fatal(err)
	}
	r.mustMount("v")
	if n := r.plugin.made("create", "v"); n != 1 {
		t.Errorf("%d creates", n)
	}
}

// A driver that links: the path is a symbolic link, and it is the link that must
// still be there, not only what it led to.
func TestLinkThatIsGone(t *testing.T) {
	r := newRig(t, refusing)
	r.plugin.plain = true
	r.host.dirs["/store/v"] = true
	r.host.links = map[string]string{"/vol/v": "/store/v"}
	if res := r.mustMount("v"); res.Path != "/vol/v" {
		t.Errorf("%+v", res)
	}
	if res := r.mustMount("v"); res.Path != "/vol/v" || !res.Shared {
		t.Errorf("%+v", res)
	}
	r.plugin.restart(false)
	r.host.links = nil
	delete(r.host.dirs, "/vol/v")
	if res := r.mustMount("v"); res.Shared {
		t.Errorf("a link that is gone was taken for mounted: %+v", res)
	}
}
