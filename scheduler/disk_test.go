package scheduler_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

var ours = scheduler.LabelFormat{FrameworkKey: "fw", FrameworkID: "F1", InstanceKey: "inst"}

// labels are those that our framework puts on what it reserves.
func labels(instance string) []resource.Label {
	return []resource.Label{{Key: "fw", Value: "F1"}, {Key: "inst", Value: instance}}
}

func owned(r resource.Resource, instance string) resource.Resource {
	return r.Reserve(resource.Reservation{Role: schedtest.Role, Principal: "me", Dynamic: true, Labels: labels(instance)})
}

func volume(mib float64, instance, path string) resource.Resource {
	return owned(schedtest.Scalar("disk", mib), instance).Persist(instance+"#"+path, "me", path)
}

func reserving() *schedtest.World {
	w := schedtest.New()
	w.Policy.Ours = []scheduler.LabelFormat{ours}
	w.Policy.Principal = "me"
	return w
}

func resident(w *schedtest.World, id string) *schedtest.Instance {
	i := w.Pending(id)
	i.Labels = labels(id)
	return i
}

func kinds(p scheduler.Plan) string {
	var out []string
	names := map[scheduler.OperationKind]string{
		scheduler.OpLaunch: "launch", scheduler.OpReserve: "reserve", scheduler.OpUnreserve: "unreserve",
		scheduler.OpCreate: "create", scheduler.OpDestroy: "destroy",
	}
	for _, a := range p.Accepts {
		for _, o := range a.Operations {
			out = append(out, names[o.Kind])
		}
	}
	return strings.Join(out, " ")
}

// apply does to an offer's resources what Mesos does for the operations of an
// accept, and fails where Mesos would.
func apply(t *testing.T, offered []resource.Resource, ops []scheduler.Operation) resource.Resources {
	t.Helper()
	return applyTo(t, offered, ops)
}

// failer is what fails a test: *testing.T or *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func applyTo(t failer, offered []resource.Resource, ops []scheduler.Operation) resource.Resources {
	t.Helper()
	have := resource.Resources(nil)
	for _, r := range offered {
		have = have.Add(r)
	}
	replace := func(old, with resource.Resource) {
		t.Helper()
		rest, ok := have.Subtract(old)
		if !ok {
			t.Fatalf("operation on %+v, of which there is none in %+v", old, have)
		}
		have = rest.Add(with)
	}
	for _, o := range ops {
		for _, r := range o.Resources {
			switch o.Kind {
			case scheduler.OpReserve:
				replace(r.Unreserve(), r)
			case scheduler.OpUnreserve:
				replace(r, r.Unreserve())
			case scheduler.OpCreate:
				replace(r.WithoutPersistence(), r)
			case scheduler.OpDestroy:
				replace(r, r.WithoutPersistence())
			}
		}
		if o.Kind == scheduler.OpLaunch {
			for _, r := range o.Launch.Resources {
				rest, ok := have.Subtract(r)
				if !ok {
					t.Fatalf("launch uses %+v, of which there is none in %+v", r, have)
				}
				have = rest
			}
		}
	}
	return have
}

func TestReserveCreateLaunchInOneAccept(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").Usual()
	i := resident(w, "db").Needs(0.5, 256).Port(0).Persists(resource.SourceRoot, 1024, "data")
	i.Disk = 64_000
	plan := w.Decide()
	if got := kinds(plan); got != "reserve create launch" {
		t.Fatalf("operations %q, waiting %+v", got, plan.Waiting)
	}
	ops := plan.Accepts[0].Operations
	rest := apply(t, o.Resources, ops)
	if rest.Scalar("disk") != (10240-1024-64)*1000 {
		t.Errorf("disk left %s", rest.Scalar("disk"))
	}
	used := resource.Resources(ops[2].Launch.Resources)
	for i := range used {
		if got := used[i].ReservationLabels(); !slices.Equal(got, labels("db")) || used[i].Role() != schedtest.Role || used[i].Reservations[0].Principal != "me" {
			t.Errorf("launch uses %+v, want it reserved for the instance", used[i])
		}
	}
	create := ops[1].Resources
	if len(create) != 1 || create[0].Disk.PersistenceID != "db#data" || create[0].Disk.ContainerPath != "data" ||
		create[0].Scalar != 1024_000 || create[0].Disk.PersistencePrincipal != "me" {
		t.Errorf("creates %+v", create)
	}
	if used.Scalar("cpus") != 500 || used.Scalar("mem") != 256_000 || used.Scalar("disk") != 1088_000 {
		t.Errorf("launch uses %+v", used)
	}
}

// TestDisks gives the disks that are chosen, as path:size in MiB in the order
// of the volumes' sizes; empty if there are none.
func TestDisks(t *testing.T) {
	type inst = schedtest.Instance
	like := func(i *inst, n int, op scheduler.Operator, v string) {
		i.Persistent[n].Constraints = append(i.Persistent[n].Constraints, scheduler.Constraint{Field: "path", Operator: op, Value: v})
	}
	cases := []struct {
		name  string
		offer func(o *schedtest.Offer)
		inst  func(i *inst)
		want  string
	}{
		{"root", func(o *schedtest.Offer) {}, func(i *inst) { i.Persists(resource.SourceRoot, 100, "d") }, ":100"},
		{"root too small", func(o *schedtest.Offer) {}, func(i *inst) { i.Persists(resource.SourceRoot, 10241, "d") }, ""},
		{"root shared with the task", func(o *schedtest.Offer) {}, func(i *inst) {
			i.Persists(resource.SourceRoot, 10240, "d").Disk = 1
		}, ""},
		{"no path disk", func(o *schedtest.Offer) {}, func(i *inst) { i.Persists(resource.SourcePath, 100, "d") }, ""},
		{"the largest path disk", func(o *schedtest.Offer) {
			o.Source(resource.SourcePath, "/p1", 500).Source(resource.SourcePath, "/p2", 900)
		}, func(i *inst) { i.Persists(resource.SourcePath, 100, "d") }, "/p2:100"},
		{"a path disk is split", func(o *schedtest.Offer) { o.Source(resource.SourcePath, "/p1", 300) }, func(i *inst) {
			i.Persists(resource.SourcePath, 100, "d").Persists(resource.SourcePath, 200, "e")
		}, "/p1:200 /p1:100"},
		{"the smallest mount disk, whole", func(o *schedtest.Offer) {
			o.Source(resource.SourceMount, "/m1", 900).Source(resource.SourceMount, "/m2", 500)
		}, func(i *inst) { i.Persists(resource.SourceMount, 100, "d") }, "/m2:500"},
		{"a mount disk is not split", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 900) }, func(i *inst) {
			i.Persists(resource.SourceMount, 100, "d").Persists(resource.SourceMount, 100, "e")
		}, ""},
		{"a mount disk above maxSize", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 900) }, func(i *inst) {
			i.Persists(resource.SourceMount, 100, "d").Persistent[0].MaxSize = 899_000
		}, ""},
		{"a mount disk of maxSize", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 900) }, func(i *inst) {
			i.Persists(resource.SourceMount, 100, "d").Persistent[0].MaxSize = 900_000
		}, "/m1:900"},
		{"path LIKE", func(o *schedtest.Offer) {
			o.Source(resource.SourcePath, "/ssd1", 500).Source(resource.SourcePath, "/hdd1", 900)
		}, func(i *inst) {
			i.Persists(resource.SourcePath, 100, "d")
			like(i, 0, scheduler.Like, "/ssd.*")
		}, "/ssd1:100"},
		{"path UNLIKE", func(o *schedtest.Offer) {
			o.Source(resource.SourcePath, "/ssd1", 500).Source(resource.SourcePath, "/hdd1", 900)
		}, func(i *inst) {
			i.Persists(resource.SourcePath, 100, "d")
			like(i, 0, scheduler.Unlike, "/hdd.*")
		}, "/ssd1:100"},
		{"path LIKE has to match the whole path", func(o *schedtest.Offer) { o.Source(resource.SourcePath, "/ssd1", 500) }, func(i *inst) {
			i.Persists(resource.SourcePath, 100, "d")
			like(i, 0, scheduler.Like, "/ssd")
		}, ""},
		{"profile", func(o *schedtest.Offer) {
			o.Source(resource.SourceMount, "/m1", 500).Source(resource.SourceMount, "/m2", 900)
			o.Resources[len(o.Resources)-1].Disk.Profile = "fast"
		}, func(i *inst) {
			i.Persists(resource.SourceMount, 100, "d").Persistent[0].Profile = "fast"
		}, "/m2:900"},
		{"a disk with a profile is not for those without", func(o *schedtest.Offer) {
			o.Source(resource.SourceMount, "/m2", 900)
			o.Resources[len(o.Resources)-1].Disk.Profile = "fast"
		}, func(i *inst) { i.Persists(resource.SourceMount, 100, "d") }, ""},
		{"the choice of one leaves room for the other", func(o *schedtest.Offer) {
			o.Source(resource.SourceMount, "/m1", 300).Source(resource.SourceMount, "/m2", 900)
		}, func(i *inst) {
			i.Persists(resource.SourceMount, 200, "d").Persists(resource.SourceMount, 100, "e")
			like(i, 1, scheduler.Like, "/m1")
		}, "/m2:900 /m1:300"},
		{"all or none", func(o *schedtest.Offer) {}, func(i *inst) {
			i.Persists(resource.SourceRoot, 100, "d").Persists(resource.SourcePath, 100, "e")
		}, ""},
		{"block disks are not used", func(o *schedtest.Offer) { o.Source(resource.SourceBlock, "", 900) }, func(i *inst) {
			i.Persists(resource.SourceMount, 100, "d")
		}, ""},
		{"raw disks are not used", func(o *schedtest.Offer) { o.Source(resource.SourceRaw, "", 900) }, func(i *inst) {
			i.Persists(resource.SourceRoot, 10241, "d")
		}, ""},
		{"a mount disk is no path disk", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 900) }, func(i *inst) {
			i.Persists(resource.SourcePath, 100, "d")
		}, ""},
		{"a mount disk of the size", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 900) }, func(i *inst) {
			i.Persists(resource.SourceMount, 900, "d")
		}, "/m1:900"},
		{"a mount disk below the size", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 899.999) }, func(i *inst) {
			i.Persists(resource.SourceMount, 900, "d")
		}, ""},
		{"a profile that no disk has", func(o *schedtest.Offer) { o.Source(resource.SourceMount, "/m1", 900) }, func(i *inst) {
			i.Persists(resource.SourceMount, 100, "d").Persistent[0].Profile = "fast"
		}, ""},
		{"a pattern that is none matches no path", func(o *schedtest.Offer) { o.Source(resource.SourcePath, "/p1", 900) }, func(i *inst) {
			i.Persists(resource.SourcePath, 100, "d")
			like(i, 0, scheduler.Unlike, "[")
		}, ""},
		{"a disk that holds somebody's volume", func(o *schedtest.Offer) {
			o.Source(resource.SourceMount, "/m1", 900)
			last := &o.Resources[len(o.Resources)-1]
			*last = last.Reserve(resource.Reservation{Role: schedtest.Role, Dynamic: true}).Persist("theirs", "them", "data")
		}, func(i *inst) { i.Persists(resource.SourceMount, 100, "d") }, ""},
		{"a path disk reserved for the role by the operator", func(o *schedtest.Offer) {
			o.Source(resource.SourcePath, "/p1", 300)
			o.Resources[len(o.Resources)-1] = schedtest.Static(o.Resources[len(o.Resources)-1], schedtest.Role)
		}, func(i *inst) { i.Persists(resource.SourcePath, 100, "d") }, ""},
		{"reserved for the role by the operator", func(o *schedtest.Offer) {
			o.Resources = o.Resources[:2]
			o.Add(schedtest.Static(schedtest.Scalar("disk", 900), schedtest.Role))
		}, func(i *inst) { i.Persists(resource.SourceRoot, 100, "d") }, ""}, // no second level for the same role
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := reserving()
			o := w.Offer("a1").Usual()
			c.offer(o)
			i := resident(w, "db")
			c.inst(i)
			plan := w.Decide()
			var got []string
			for _, a := range plan.Accepts {
				apply(t, o.Resources, a.Operations)
				for _, op := range a.Operations {
					if op.Kind != scheduler.OpCreate {
						continue
					}
					for _, r := range op.Resources {
						got = append(got, r.Disk.Root+":"+r.Scalar.String())
					}
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("created %v, want %q", got, c.want)
			}
			if c.want == "" && schedtest.Reasons(plan, "db")[scheduler.InsufficientDisk] != 1 {
				t.Errorf("waits for %+v, want InsufficientDisk", plan.Waiting)
			}
		})
	}
}

func TestReservationOnTopOfOneForARoleAbove(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").Usual()
	o.Add(schedtest.Static(schedtest.Scalar("cpus", 8), "eng")).For("eng/db")
	i := resident(w, "db").Needs(10, 128).Persists(resource.SourceRoot, 100, "data")
	i.Role = "eng/db"
	plan := w.Decide()
	if kinds(plan) != "reserve create launch" {
		t.Fatalf("operations %q, waiting %+v", kinds(plan), plan.Waiting)
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
	if first := plan.Accepts[0].Operations[0].Resources[0]; len(first.Reservations) != 2 || first.Reservations[0].Role != "eng" || first.Reservations[1].Role != "eng/db" {
		t.Errorf("reserves %+v, want a refinement", first.Reservations)
	}
}

func TestOneOperationPerProvider(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").Usual().Source(resource.SourceMount, "/m1", 500)
	o.Resources[len(o.Resources)-1].ProviderID = "p1"
	resident(w, "db").Persists(resource.SourceMount, 100, "data").Persists(resource.SourceRoot, 50, "log")
	plan := w.Decide()
	if kinds(plan) != "reserve reserve create create launch" {
		t.Fatalf("operations %q, want one per provider", kinds(plan))
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
}

// relaunched is a world whose agent a1 offers what db has reserved there, next
// to little else.
func relaunched() (*schedtest.World, *schedtest.Offer, *schedtest.Instance) {
	w := reserving()
	o := w.Offer("a1").CPUs(0.1).Mem(32)
	o.Add(owned(schedtest.Scalar("cpus", 1), "db")).Add(owned(schedtest.Scalar("mem", 128), "db")).Add(volume(1024, "db", "data"))
	i := resident(w, "db").Persists(resource.SourceRoot, 1024, "data")
	i.Reservation = &scheduler.ReservationState{AgentID: "a1", PersistenceIDs: []string{"db#data"}}
	return w, o, i
}

func TestRelaunchOnTheReservation(t *testing.T) {
	w, o, _ := relaunched()
	w.Agents("a2")
	plan := w.Decide()
	if kinds(plan) != "launch" || schedtest.On(plan)["db"] != "a1" {
		t.Fatalf("operations %q on %v, want a launch on a1", kinds(plan), schedtest.On(plan))
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
	used := schedtest.Launched(plan, "db").Resources
	if got := resource.Resources(used).Scalar("disk"); got != 1024_000 {
		t.Errorf("uses %s of disk, want the volume", got)
	}
}

// TestRelaunchTakesItsReservedPorts has an instance with more ports than its
// reservation, on an agent with many others: the reserved ones would lie idle.
func TestRelaunchTakesItsReservedPorts(t *testing.T) {
	w, o, i := relaunched()
	i.Port(0, 31001, 0)
	o.Ports(31000, 31999).Add(owned(portsOf(32000, 32000), "db"))
	plan := w.Decide()
	l := schedtest.Launched(plan, "db")
	if l == nil || len(l.Ports) != 3 || l.Ports[0] != 32000 || l.Ports[1] != 31001 || l.Ports[2] == 31001 {
		t.Fatalf("launched %+v, want the reserved port 32000, 31001 and another one", l)
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
}

// TestRelaunchGoesFirst has an instance that waits for longer want what a relaunch
// needs beside its reservation: where its volumes are is decided, the other may go
// anywhere.
func TestRelaunchGoesFirst(t *testing.T) {
	w, o, i := relaunched()
	i.Needs(1.1, 128)
	older := w.Pending("older").Needs(0.1, 16)
	older.Since = w.Now.Add(-time.Hour)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 1 || on["db"] != "a1" {
		t.Errorf("launched %v, want db alone", on)
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
}

// TestReservationBesidePlainLaunches needs the books of what plain instances of the
// same plan have taken, which are kept as totals at first.
func TestReservationBesidePlainLaunches(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").CPUs(2).Mem(1024).Disk(1000).Ports(31000, 31003)
	for _, id := range []string{"a", "b"} {
		w.Pending(id).Needs(0.5, 128).Port(0).Since = w.Now.Add(-time.Hour)
	}
	resident(w, "db").Needs(1, 256).Port(0, 0).Persists(resource.SourceRoot, 900, "data")
	w.Pending("z").Needs(0.1, 1).Since = w.Now.Add(time.Second)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 3 || on["db"] != "a1" {
		t.Fatalf("launched %v, want all but z; waiting %+v", on, plan.Waiting)
	}
	rest := apply(t, o.Resources, plan.Accepts[0].Operations)
	if rest.Scalar("cpus") != 0 || rest.Scalar("mem") != 512_000 || rest.Scalar("disk") != 100_000 {
		t.Errorf("left %+v", rest)
	}
}

func TestAVolumeNamedTwiceIsUsedOnce(t *testing.T) {
	w, o, i := relaunched()
	i.Reservation.PersistenceIDs = []string{"db#data", "db#data"}
	apply(t, o.Resources, w.Decide().Accepts[0].Operations)
}

func TestRelaunchIsNotKeptOffAGPUAgent(t *testing.T) {
	w, o, _ := relaunched()
	w.Policy.RestrictGPUAgents = true
	o.GPUs(1)
	if on := schedtest.On(w.Decide()); on["db"] != "a1" {
		t.Errorf("launched %v, want db where it is already", on)
	}
}

func TestRelaunchThatNeedsMoreThanItReserved(t *testing.T) {
	w, _, i := relaunched()
	w.Agents("a2")
	i.Needs(1, 500)
	plan := w.Decide()
	waits := schedtest.Waits(plan, "db")
	if waits == nil || waits.Best != "a1.test" || schedtest.Reasons(plan, "db")[scheduler.InsufficientMemory] != 1 {
		t.Fatalf("waits %+v, want memory on a1", waits)
	}
	if !strings.Contains(waits.Text, "a1.test lacks 340 MiB of memory (has 160, needs 500)") {
		t.Errorf("text %q", waits.Text)
	}
}

func TestReservationIsNotForOthers(t *testing.T) {
	w, _, i := relaunched()
	i.NotBefore = w.Now.Add(time.Hour)
	w.Pending("other").Needs(0.5, 64)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 0 {
		t.Errorf("launched %v on what db has reserved", on)
	}
}

func TestReservationThatIsNotOffered(t *testing.T) {
	w, o, i := relaunched()
	o.Resources = o.Resources[:4] // without the volume
	w.Agents("a2")
	i.Reservation.Deadline = w.Now.Add(time.Second)
	plan := w.Decide()
	if len(plan.Expired) != 0 || kinds(plan) != "" {
		t.Fatalf("expired %v, operations %q, want to wait", plan.Expired, kinds(plan))
	}
	if got := schedtest.Reasons(plan, "db"); got[scheduler.NoReservationFound] != 2 {
		t.Errorf("reasons %v, want NoCorrespondingReservationFound for both", got)
	}
	if text := schedtest.Waits(plan, "db").Text; !strings.Contains(text, "until agent a1.test offers what was reserved") {
		t.Errorf("text %q", text)
	}
	w.Now = i.Reservation.Deadline
	if plan = w.Decide(); !slices.Equal(plan.Expired, []string{"db"}) {
		t.Errorf("expired %v at the deadline, want db", plan.Expired)
	}
	// It has given up and starts afresh: what is left of the first attempt
	// goes, but no volume.
	i.Reservation = nil
	plan = w.Decide()
	if got := kinds(plan); got != "unreserve reserve create launch" && got != "reserve create launch unreserve" {
		t.Errorf("operations %q, want the rest unreserved and a new attempt", got)
	}
}

func TestReservationThatCameLateIsUsed(t *testing.T) {
	w, _, i := relaunched()
	i.Reservation = nil
	w.Agents("a2")
	plan := w.Decide()
	if kinds(plan) != "launch" || schedtest.On(plan)["db"] != "a1" {
		t.Errorf("operations %q on %v, want a launch on what exists", kinds(plan), schedtest.On(plan))
	}
}

func TestWipeDestroysOnlyWhatIsNamed(t *testing.T) {
	w, o, i := relaunched()
	i.NotBefore = w.Now.Add(time.Hour) // keeps its volume
	o.Add(owned(schedtest.Scalar("cpus", 2), "gone")).Add(volume(512, "gone", "data"))
	stranger := schedtest.Scalar("disk", 99).Reserve(resource.Reservation{
		Role: schedtest.Role, Dynamic: true, Labels: []resource.Label{{Key: "fw", Value: "F2"}, {Key: "inst", Value: "gone"}},
	}).Persist("gone#data", "me", "data")
	o.Add(stranger)
	bare := schedtest.Scalar("disk", 77).Reserve(resource.Reservation{Role: schedtest.Role, Dynamic: true}).Persist("gone#data", "me", "data")
	o.Add(bare)
	w.Wiped = []string{"gone"}
	plan := w.Decide()
	if got := kinds(plan); got != "destroy unreserve" {
		t.Fatalf("operations %q", got)
	}
	rest := apply(t, o.Resources, plan.Accepts[0].Operations)
	if !rest.Contains([]resource.Resource{stranger, bare, volume(1024, "db", "data")}) {
		t.Errorf("left %+v, want what is not ours or not wiped untouched", rest)
	}
	if rest.Scalar("cpus") != 3100 {
		t.Errorf("cpus left %s", rest.Scalar("cpus"))
	}
	for _, r := range rest {
		if l, _ := resource.LabelValue(r.ReservationLabels(), "inst"); l == "gone" && !resource.SameKind(&r, &stranger) {
			t.Errorf("left of the wiped instance: %+v", r)
		}
	}
}

func TestAWipedInstanceIsNotLaunched(t *testing.T) {
	w, _, _ := relaunched()
	w.Wiped = []string{"db"}
	plan := w.Decide()
	if got := kinds(plan); got != "destroy unreserve" {
		t.Errorf("operations %q", got)
	}
	if text := schedtest.Waits(plan, "db").Text; !strings.Contains(text, "destroyed") {
		t.Errorf("text %q", text)
	}
}

func TestLeftovers(t *testing.T) {
	build := func() (*schedtest.World, *schedtest.Offer) {
		w := reserving()
		o := w.Offer("a1").Add(owned(schedtest.Scalar("cpus", 1), "bare")).
			Add(owned(schedtest.Scalar("cpus", 1), "data")).Add(volume(10, "data", "d"))
		return w, o
	}
	t.Run("are reported", func(t *testing.T) {
		w, _ := build()
		plan := w.Decide()
		if len(plan.Leftovers) != 2 || kinds(plan) != "" {
			t.Fatalf("leftovers %+v, operations %q", plan.Leftovers, kinds(plan))
		}
		if l := plan.Leftovers[1]; l.InstanceID != "data" || !slices.Equal(l.PersistenceIDs, []string{"data#d"}) || l.Hostname != "a1.test" {
			t.Errorf("leftover %+v", l)
		}
	})
	t.Run("without data are released where the policy says so", func(t *testing.T) {
		w, o := build()
		w.Policy.ReleaseUnknown = true
		plan := w.Decide()
		if kinds(plan) != "unreserve" || len(plan.Leftovers) != 1 || plan.Leftovers[0].InstanceID != "data" {
			t.Fatalf("operations %q, leftovers %+v", kinds(plan), plan.Leftovers)
		}
		if rest := apply(t, o.Resources, plan.Accepts[0].Operations); !rest.Contains([]resource.Resource{volume(10, "data", "d")}) {
			t.Error("the volume is gone")
		}
	})
	t.Run("of known instances are kept", func(t *testing.T) {
		w, _ := build()
		w.Policy.ReleaseUnknown = true
		w.Known = []string{"bare"}
		w.Placed("data", "a1")
		if plan := w.Decide(); kinds(plan) != "" || len(plan.Leftovers) != 0 {
			t.Errorf("operations %q, leftovers %+v", kinds(plan), plan.Leftovers)
		}
	})
}

func TestAdoptedLabels(t *testing.T) {
	marathon := []resource.Label{{Key: "marathon_framework_id", Value: "M"}, {Key: "marathon_task_id", Value: "db"}}
	v := schedtest.Scalar("disk", 10).Reserve(resource.Reservation{Role: schedtest.Role, Dynamic: true, Labels: marathon}).
		Persist("db#data#1", "marathon", "data")
	w := reserving()
	w.Agents("a1")
	w.Offer("a1").Add(v)
	i := resident(w, "db").Persists(resource.SourceRoot, 10, "data")
	i.Reservation = &scheduler.ReservationState{AgentID: "a1", PersistenceIDs: []string{"db#data#1"}}
	if on := schedtest.On(w.Decide()); len(on) != 0 {
		t.Fatalf("launched %v on what belongs to another framework", on)
	}
	w.Policy.Ours = append(w.Policy.Ours, scheduler.LabelFormat{
		FrameworkKey: "marathon_framework_id", FrameworkID: "M", InstanceKey: "marathon_task_id",
	})
	if on := schedtest.On(w.Decide()); on["db"] != "a1" {
		t.Errorf("launched %v once adopted, want db on a1", on)
	}
}

func TestSharedPersistentVolumeStaysOffered(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").Usual()
	resident(w, "db").Persists(resource.SourceRoot, 10, "data").Persistent[0].Shared = true
	plan := w.Decide()
	rest := apply(t, o.Resources, plan.Accepts[0].Operations)
	if !slices.ContainsFunc(rest, func(r resource.Resource) bool { return r.Shared && r.IsPersistent() }) {
		t.Errorf("left %+v, want the shared volume in it", rest)
	}
}

// sharing adds an instance that shares volume "shared" with others.
func sharing(w *schedtest.World, id string) *schedtest.Instance {
	i := resident(w, id).Persists(resource.SourceRoot, 10, "data")
	i.Persistent[0].Shared, i.Persistent[0].PersistenceID = true, "shared"
	return i
}

// sharedVolume is the volume as the instance "first" has made it.
func sharedVolume(on *schedtest.Offer) *schedtest.Offer {
	v := schedtest.Scalar("disk", 10).Reserve(resource.Reservation{
		Role: schedtest.Role, Principal: "me", Dynamic: true, Labels: labels("first"),
	}).Persist("shared", "me", "data")
	v.Shared = true
	return on.Add(v)
}

// TestSharedPersistentVolumeIsJoined: who names a shared volume that exists runs
// where it is, with the volume as it is offered, and nothing is created; of those
// that name one that does not exist yet the first makes it.
func TestSharedPersistentVolumeIsJoined(t *testing.T) {
	uses := func(p scheduler.Plan, id string) bool {
		l := schedtest.Launched(p, id)
		return l != nil && slices.ContainsFunc(l.Resources, func(r resource.Resource) bool {
			return r.Shared && r.IsPersistent() && r.Disk.PersistenceID == "shared" && r.ReservationLabels()[1].Value == "first"
		})
	}
	t.Run("in the round that makes it", func(t *testing.T) {
		w := reserving()
		w.Agents("a1", "a2")
		sharing(w, "first")
		sharing(w, "second").Since = w.Now.Add(time.Second)
		plan := w.Decide()
		on := schedtest.On(plan)
		if kinds(plan) != "reserve create launch reserve launch" || on["first"] != on["second"] || !uses(plan, "first") || !uses(plan, "second") {
			t.Fatalf("%s: %v", kinds(plan), on)
		}
		for i, a := range []string{"a1", "a2"} {
			if a == on["first"] {
				apply(t, w.At(i).Resources, plan.Accepts[0].Operations)
			}
		}
	})
	t.Run("while others use it", func(t *testing.T) {
		w := reserving()
		w.Agents("a1")
		o := sharedVolume(w.Offer("a2").Usual())
		w.Placed("first", "a2")
		sharing(w, "second")
		plan := w.Decide()
		if kinds(plan) != "reserve launch" || schedtest.On(plan)["second"] != "a2" || !uses(plan, "second") {
			t.Fatalf("%s on %v", kinds(plan), schedtest.On(plan))
		}
		apply(t, o.Resources, plan.Accepts[0].Operations)
	})
	t.Run("where its agent has no room", func(t *testing.T) {
		w := reserving()
		w.Agents("a1")
		sharedVolume(w.Offer("a2").CPUs(0.5).Mem(4096).Disk(100))
		w.Placed("first", "a2")
		sharing(w, "second")
		plan := w.Decide()
		if waits := schedtest.Waits(plan, "second"); kinds(plan) != "" || waits == nil || !strings.Contains(waits.Text, "on agent a2.test") {
			t.Fatalf("%s: %+v", kinds(plan), waits)
		}
	})
	t.Run("where its agent makes no offer", func(t *testing.T) {
		w := reserving()
		w.Agents("a1")
		sharing(w, "second").Persistent[0].AgentID = "a2"
		plan := w.Decide()
		if kinds(plan) != "" || schedtest.Reasons(plan, "second")[scheduler.NoReservationFound] != 1 {
			t.Fatalf("%s: %v", kinds(plan), schedtest.Waits(plan, "second"))
		}
	})
	t.Run("on its own reservation", func(t *testing.T) {
		w := reserving()
		own := resource.Reservation{Role: schedtest.Role, Principal: "me", Dynamic: true, Labels: labels("second")}
		sharedVolume(w.Offer("a2").Add(schedtest.Scalar("cpus", 1).Reserve(own)).Add(schedtest.Scalar("mem", 128).Reserve(own)))
		w.Placed("first", "a2")
		sharing(w, "second").Reservation = &scheduler.ReservationState{AgentID: "a2", PersistenceIDs: []string{"shared"}}
		plan := w.Decide()
		if kinds(plan) != "launch" || !uses(plan, "second") {
			t.Fatalf("%s", kinds(plan))
		}
	})
}

// TestWhatIsLeftOfAnAttemptElsewhere has something of an instance show on another
// agent than its own: reservations go, data stays and is told of.
func TestWhatIsLeftOfAnAttemptElsewhere(t *testing.T) {
	here := scheduler.ReservationState{AgentID: "a1", Hostname: schedtest.Host("a1"), PersistenceIDs: []string{"db#data"}}
	beside := here // another agent on the host, where an attempt was given up
	beside.Hostname, beside.GivenUp = schedtest.Host("a2"), []string{"a2"}
	again := here // the same host under another id
	again.Hostname = schedtest.Host("a2")
	cases := []struct {
		name     string
		set      func(w *schedtest.World)
		kinds    string
		reported bool
	}{
		{"of a stopped instance", func(w *schedtest.World) {
			w.Known, w.Homes = []string{"db"}, map[string]scheduler.ReservationState{"db": here}
		}, "unreserve", true},
		{"of one that runs", func(w *schedtest.World) {
			w.Placed("db", "a1")
			w.Homes = map[string]scheduler.ReservationState{"db": here}
		}, "unreserve", true},
		{"of one that waits", func(w *schedtest.World) {
			resident(w, "db").Persists(resource.SourceRoot, 1024, "data").Reservation = &here
		}, "unreserve", true},
		{"on another agent of the host", func(w *schedtest.World) {
			w.Known, w.Homes = []string{"db"}, map[string]scheduler.ReservationState{"db": beside}
		}, "unreserve", true},
		{"on the agent under another id", func(w *schedtest.World) {
			w.Known, w.Homes = []string{"db"}, map[string]scheduler.ReservationState{"db": again}
		}, "", false},
		{"nobody says where its own is", func(w *schedtest.World) { w.Known = []string{"db"} }, "", false},
		{"of one with other volumes", func(w *schedtest.World) {
			i := resident(w, "db").Persists(resource.SourceRoot, 1024, "data")
			i.Persistent[0].PersistenceID = "db#new"
			i.NotBefore = w.Now.Add(time.Minute)
		}, "unreserve", true},
		{"to be wiped", func(w *schedtest.World) {
			w.Wiped, w.Homes = []string{"db"}, map[string]scheduler.ReservationState{"db": here}
		}, "destroy unreserve", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := reserving()
			o := w.Offer("a2").Add(owned(schedtest.Scalar("cpus", 1), "db")).Add(volume(1024, "db", "data"))
			c.set(w)
			plan := w.Decide()
			if kinds(plan) != c.kinds || (len(plan.Leftovers) == 1) != c.reported {
				t.Fatalf("operations %q, leftovers %+v; want %q, reported %t", kinds(plan), plan.Leftovers, c.kinds, c.reported)
			}
			if !c.reported {
				return
			}
			if l := plan.Leftovers[0]; l.AgentID != "a2" || l.InstanceID != "db" || !slices.Equal(l.PersistenceIDs, []string{"db#data"}) || len(l.Resources) != 1 {
				t.Errorf("leftover %+v", l)
			}
			if rest := apply(t, o.Resources, plan.Accepts[0].Operations); !rest.Contains([]resource.Resource{volume(1024, "db", "data")}) {
				t.Error("the volume is gone")
			}
		})
	}
	t.Run("without data", func(t *testing.T) {
		w := reserving()
		w.Offer("a2").Add(owned(schedtest.Scalar("cpus", 1), "db"))
		w.Known, w.Homes = []string{"db"}, map[string]scheduler.ReservationState{"db": here}
		if plan := w.Decide(); kinds(plan) != "unreserve" || len(plan.Leftovers) != 0 {
			t.Errorf("operations %q, leftovers %+v", kinds(plan), plan.Leftovers)
		}
	})
}
