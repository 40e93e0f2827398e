package takeover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The apps of the Marathon that is taken over, and their instances.
var (
	bodies = []string{
		`{"id":"/db","cmd":"run","unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0},"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
			"external":{"provider":"dvdi","name":"vol","options":{"dvdi/driver":"ref"}}}]}}`,
		`{"id":"/group/web","cmd":"serve","instances":2,"labels":{"a":"b"}}`,
		`{"id":"/idle","cmd":"sleep 1","instances":0}`,
	}
	instances = map[string]int{"/db": 1, "/group/web": 2, "/idle": 0}
	ids       = []string{"/db", "/group/web", "/idle"}
)

// scene is a world with a Marathon that runs its apps, and a take-over.
type scene struct {
	t        *testing.T
	w        *world
	from, to *server
	journal  string
}

func newScene(t *testing.T) *scene {
	w := newWorld()
	s := &scene{t: t, w: w, from: w.serve(t, "marathon", false), to: w.serve(t, "dvdi", true), journal: filepath.Join(t.TempDir(), "journal")}
	for _, b := range bodies {
		s.from.define(t, b)
	}
	return s
}

// takeover begins as a new process would, on the journal that is there. hook may
// fail its steps.
func (s *scene) takeover(hook func() error) *Takeover {
	s.t.Helper()
	from, err := NewAPI(s.from.URL, "")
	if err != nil {
		s.t.Fatal(err)
	}
	to, err := NewAPI(s.to.URL, "")
	if err != nil {
		s.t.Fatal(err)
	}
	j, err := OpenJournal(s.journal, from.URL(), to.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { from.Close(); to.Close() })
	wait := 20 * time.Millisecond // in vain
	if s.to.bridge {
		wait = time.Minute
	}
	return New(Config{From: from, To: to, Journal: j, Poll: time.Microsecond, Timeout: time.Minute,
		UnmountWait: wait, beforeStep: hook})
}

func (s *scene) all(do func(id string) error) error {
	for _, id := range ids {
		if err := do(id); err != nil {
			return err
		}
	}
	return nil
}

func (s *scene) take(tk *Takeover) error {
	return s.all(func(id string) error { return tk.Take(s.t.Context(), id) })
}

func (s *scene) giveBack(tk *Takeover) error {
	return s.all(func(id string) error {
		if tk.cfg.Journal.content.Apps[id] == nil {
			return nil // never begun
		}
		return tk.Return(s.t.Context(), id)
	})
}

// check fails the test unless the apps run at one side only, and no volume was
// ever mounted twice.
func (s *scene) check(at, notAt *server) {
	s.t.Helper()
	for id, n := range instances {
		if at.running(id) != n || notAt.running(id) != 0 {
			s.t.Errorf("%s: %d tasks at %s, %d at %s, want %d there", id, at.running(id), at.name, notAt.running(id), notAt.name, n)
		}
	}
	for _, v := range s.w.violations {
		s.t.Error(v)
	}
}

var errInterrupted = errors.New("interrupted by the test")

// failAt makes a hook that fails at one step.
func failAt(n int) func() error {
	return func() error {
		n--
		if n < 0 {
			return errInterrupted
		}
		return nil
	}
}

func TestAllAppsOneByOne(t *testing.T) {
	s := newScene(t)
	if err := s.take(s.takeover(nil)); err != nil {
		t.Fatal(err)
	}
	s.check(s.to, s.from)
	if s.to.apps["/group/web"].def["labels"].(map[string]any)["a"] != "b" {
		t.Errorf("definition %v", s.to.apps["/group/web"].def)
	}
	// Once more: nothing is left to do.
	if err := s.take(s.takeover(nil)); err != nil {
		t.Fatal(err)
	}
	s.check(s.to, s.from)
}

func TestInterruptedAtEachStep(t *testing.T) {
	for n := 0; ; n++ {
		s := newScene(t)
		err := s.take(s.takeover(failAt(n)))
		if err != nil && !errors.Is(err, errInterrupted) {
			t.Fatalf("at step %d: %v", n, err)
		}
		if err := s.take(s.takeover(nil)); err != nil {
			t.Fatalf("continued after step %d: %v", n, err)
		}
		s.check(s.to, s.from)
		if t.Failed() {
			t.Fatalf("after an interruption at step %d", n)
		}
		if err == nil {
			if n < 30 {
				t.Errorf("there were only %d steps", n)
			}
			return
		}
	}
}

// TestGivenBackFromEachStep goes back from every point. Whether the agents report
// what they unmount alternates from step to step; with DVDI_LONG each step has
// both.
func TestGivenBackFromEachStep(t *testing.T) {
	for n := 0; ; n++ {
		done := false
		for _, bridge := range []bool{false, true} {
			if bridge == (n%2 == 0) && os.Getenv("DVDI_LONG") == "" && !done {
				continue
			}
			done = giveBackFrom(t, n, bridge) || done
			if t.Failed() {
				t.Fatalf("bridge %v, given back after step %d", bridge, n)
			}
		}
		if done {
			return
		}
	}
}

// giveBackFrom interrupts a take-over at step n and goes back; whole tells
// whether it had come to its end before.
func giveBackFrom(t *testing.T, n int, bridge bool) (whole bool) {
	s := newScene(t)
	s.to.bridge = bridge
	err := s.take(s.takeover(failAt(n)))
	if backErr := s.giveBack(s.takeover(nil)); backErr != nil {
		t.Fatalf("given back after step %d: %v", n, backErr)
	}
	s.check(s.from, s.to)
	if len(s.to.apps) > 0 || len(s.to.claims) > 0 {
		t.Errorf("left behind: apps %v, claims %v", s.to.apps, s.to.claims)
	}
	_, pinned := s.from.apps["/db"].def["constraints"]
	if err == nil && pinned == bridge {
		t.Errorf("bridge %v: bound to a host: %v", bridge, pinned)
	}
	return err == nil
}

func TestGivingBackInterruptedAtEachStep(t *testing.T) {
	for n := 0; ; n++ {
		s := newScene(t)
		if err := s.take(s.takeover(nil)); err != nil {
			t.Fatal(err)
		}
		err := s.giveBack(s.takeover(failAt(n)))
		if err != nil && !errors.Is(err, errInterrupted) {
			t.Fatalf("at step %d: %v", n, err)
		}
		if err := s.giveBack(s.takeover(nil)); err != nil {
			t.Fatalf("continued after step %d: %v", n, err)
		}
		s.check(s.from, s.to)
		if t.Failed() || err == nil {
			return
		}
	}
}

func TestTakenAgainAfterItWasGivenBack(t *testing.T) {
	s := newScene(t)
	s.to.bridge = true
	for _, do := range []func(*Takeover) error{s.take, s.giveBack, s.take} {
		if err := do(s.takeover(nil)); err != nil {
			t.Fatal(err)
		}
	}
	s.check(s.to, s.from)
}

func TestAnExportedMarathon(t *testing.T) {
	s := newScene(t)
	to, err := NewAPI(s.to.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	file := filepath.Join(t.TempDir(), "export")
	export := `{"id":"/","groups":[{"id":"/group","apps":[` + bodies[1] + `]}],"apps":[` + bodies[2] + `,` +
		strings.Replace(bodies[0], `"cmd"`, `"tasks":[{"id":"t","slaveId":"S2","host":"host-S2"}],"cmd"`, 1) + `]}`
	if err := os.WriteFile(file, []byte(export), 0o600); err != nil {
		t.Fatal(err)
	}
	apps, err := ReadExport(file)
	if err != nil || len(apps) != 3 {
		t.Fatalf("%d apps, %v", len(apps), err)
	}
	s.from.apps = map[string]*served{} // it is down
	s.w.mounts = map[string]map[string]int{}
	run := func(stopped bool) error {
		j, err := OpenJournal(s.journal, file, to.URL())
		if err != nil {
			t.Fatal(err)
		}
		tk := New(Config{Export: apps, Stopped: stopped, To: to, Journal: j, Poll: time.Microsecond, Timeout: time.Minute})
		return s.take(tk)
	}
	if err := run(false); err == nil || !strings.Contains(err.Error(), "--stopped") || s.to.running("/db") != 0 {
		t.Errorf("taken over although nobody says that it is stopped: %v", err)
	}
	if err := run(true); err != nil {
		t.Fatal(err)
	}
	s.check(s.to, s.from)
	if got := s.to.apps["/db"].tasks[0].Agent; got != "S2" {
		t.Errorf("/db runs on %s, its volume was on S2", got)
	}
}

// TestPersistentVolumesAreTakenOver interrupts the take-over of a resident app at
// each step: it never starts without its data, and can go back.
func TestPersistentVolumesAreTakenOver(t *testing.T) {
	for n := 0; ; n++ {
		s := newScene(t)
		s.to.marathon = s.from
		s.from.define(t, `{"id":"/resident","cmd":"x","role":"r","instances":2,"container":{"type":"MESOS","volumes":[
			{"containerPath":"d","mode":"RW","persistent":{"size":10}}]}}`)
		start := func(hook func() error) *Takeover {
			tk := s.takeover(hook)
			tk.cfg.Options, tk.cfg.Adopt = app.Options{Role: "r"}, true
			return tk
		}
		err := start(failAt(n)).Take(t.Context(), "/resident")
		if err != nil && !errors.Is(err, errInterrupted) {
			t.Fatalf("at step %d: %v", n, err)
		}
		if n%2 == 0 {
			if err := start(nil).Take(t.Context(), "/resident"); err != nil {
				t.Fatalf("continued after step %d: %v", n, err)
			}
			if s.to.running("/resident") != 2 || s.from.running("/resident") != 0 {
				t.Errorf("step %d: %d run here, %d there", n, s.to.running("/resident"), s.from.running("/resident"))
			}
		} else if n > 2 { // before, the journal does not know of it
			if err := start(nil).Return(t.Context(), "/resident"); err != nil {
				t.Fatalf("given back after step %d: %v", n, err)
			}
			if s.to.running("/resident") != 0 || s.from.running("/resident") != 2 {
				t.Errorf("step %d: %d run here, %d there", n, s.to.running("/resident"), s.from.running("/resident"))
			}
		}
		if len(s.w.violations) > 0 || t.Failed() {
			t.Fatalf("step %d: %v", n, s.w.violations)
		}
		if err == nil {
			return
		}
	}
}

func TestAdoptionNeedsTheTargetsConsent(t *testing.T) {
	s := newScene(t)
	tk := s.takeover(nil)
	err := CheckAdoption(t.Context(), tk.cfg.From, tk.cfg.To)
	if err == nil || !strings.Contains(err.Error(), "--adopt=marathon-id") {
		t.Errorf("got %v", err)
	}
	s.to.marathon = s.from
	if err := CheckAdoption(t.Context(), tk.cfg.From, tk.cfg.To); err != nil {
		t.Error(err)
	}
}

func TestReport(t *testing.T) {
	s := newScene(t)
	s.from.pods = []string{"/pod"}
	s.from.define(t, `{"id":"/resident","cmd":"x","role":"r","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","persistent":{"size":10}}]}}`)
	s.from.define(t, `{"id":"/strange","cmd":"x","surprise":{"a":1},"cpus":0.5,"healthChecks":[{"protocol":"HTTP","path":"/"}],"uris":["http://x/a.tgz"]}`)
	s.from.define(t, `{"id":"/wrong","cmd":"x","cpus":-1}`)
	s.from.define(t, `{"id":"/there","cmd":"x"}`)
	s.to.define(t, `{"id":"/there","cmd":"x"}`)
	tk := s.takeover(nil)
	tk.cfg.Options = app.Options{Role: "r"}
	reports, others, err := tk.Report(t.Context())
	if err != nil || len(others) != 1 || others[0].App != "/pod" {
		t.Fatalf("%v, %v", others, err)
	}
	for id, want := range map[string]struct {
		refused bool
		text    string
	}{
		"/db":       {false, "no replacement starts"},
		"/resident": {true, "persistent volumes"},
		"/strange":  {false, "/surprise is not known here"},
		"/wrong":    {true, "/cpus"},
		"/there":    {true, "exists here already"},
	} {
		found := false
		for _, r := range reports {
			if r.ID != id {
				continue
			}
			found = true
			if text := fmt.Sprint(r.Findings); r.Refused() != want.refused || !strings.Contains(text, want.text) {
				t.Errorf("%s: refused %v: %s", id, r.Refused(), text)
			}
			if id == "/strange" && len(r.Findings) != 1 {
				t.Errorf("%s: findings about what is the same: %v", id, r.Findings)
			}
		}
		if !found {
			t.Errorf("%s is not in the report", id)
		}
	}
	if err := tk.Take(t.Context(), "/wrong"); !errors.Is(err, ErrRefused) {
		t.Errorf("taken over: %v", err)
	}
	if err := tk.Take(t.Context(), "/nowhere"); err == nil {
		t.Error("an app that does not exist is taken over")
	}
}

func TestJournalOfAnotherTakeover(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := OpenJournal(path, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, "a", "c"); err == nil || !strings.Contains(err.Error(), "--journal") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, "a", "b"); err == nil || !strings.Contains(err.Error(), "no journal") {
		t.Errorf("got %v", err)
	}
}
