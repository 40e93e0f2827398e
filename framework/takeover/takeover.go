package takeover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// Config says who takes over from whom. Zero values mean the defaults in
// brackets.
type Config struct {
	// From is the running Marathon; nil with an Export.
	From *API
	// Export are the apps of a Marathon that was exported. Stopped is the
	// operator's word that none of them runs any more.
	Export  []App
	Stopped bool
	// Unmounted is the operator's word that the volumes of apps without tasks are
	// mounted nowhere.
	Unmounted bool
	// Adopt takes over apps with Mesos persistent volumes, too: the target must
	// run with --adopt and the id of Marathon's framework.
	Adopt bool

	To      *API
	Journal *Journal
	// Options are those with which the target reads definitions.
	Options app.Options

	Poll        time.Duration // between looks at what is waited for [1s]
	Timeout     time.Duration // for an app's tasks to end, or to run [10m]
	UnmountWait time.Duration // on the way back, for volumes to be seen unmounted [1m]

	// Say tells a person what happens.
	Say func(format string, args ...any)
	// beforeStep, where a test sets it, may fail any step.
	beforeStep func() error
}

// Takeover takes apps over, and gives them back. Each app's way is written to
// the journal step by step: after an interruption at any point the same call
// goes on where it was, and Return leads back from any point.
type Takeover struct {
	cfg Config
}

// New makes a Takeover.
func New(cfg Config) *Takeover {
	if cfg.Poll == 0 {
		cfg.Poll = time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Minute
	}
	if cfg.UnmountWait == 0 {
		cfg.UnmountWait = time.Minute
	}
	if cfg.Say == nil {
		cfg.Say = func(string, ...any) {}
	}
	return &Takeover{cfg: cfg}
}

// ReadExport reads the apps from a file that holds what GET /v2/apps answers, a
// list of apps, or a group as GET /v2/groups answers.
func ReadExport(path string) ([]App, error) {
	data, err := inputfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("read the exported apps: %w", err)
	}
	var list []App
	if json.Unmarshal(data, &list) == nil {
		return list, nil
	}
	var g group
	if err := json.Unmarshal(data, &g); err != nil {
		return nil, fmt.Errorf("read the exported apps: %s holds neither apps nor a group: %w", path, err)
	}
	return g.all(), nil
}

// group is a group of apps, or an object with the field apps alone.
type group struct {
	Apps   []App   `json:"apps"`
	Groups []group `json:"groups"`
}

func (g group) all() []App {
	out := g.Apps
	for _, sub := range g.Groups {
		out = append(out, sub.all()...)
	}
	return out
}

// AppReport is what an operator should know of one app.
type AppReport struct {
	ID        string    `json:"id"`
	Instances int       `json:"instances"`
	Volumes   []Volume  `json:"volumes,omitempty"`
	Phase     string    `json:"phase"` // of its take-over
	Findings  []Finding `json:"findings,omitempty"`
}

// Refused tells whether the app cannot be taken over as it is.
func (r AppReport) Refused() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Refused })
}

// Report looks at everything and changes nothing. Pods are reported as findings
// without an app.
func (t *Takeover) Report(ctx context.Context) (reports []AppReport, others []Finding, err error) {
	apps, err := t.apps(ctx)
	if err != nil {
		return nil, nil, err
	}
	here, err := t.cfg.To.Apps(ctx)
	if err != nil {
		return nil, nil, err
	}
	exists := map[string]bool{}
	for _, a := range here {
		exists[a.ID] = true
	}
	for _, a := range apps {
		reports = append(reports, t.reportApp(a, exists[a.ID]))
	}
	if t.cfg.From != nil {
		pods, err := t.cfg.From.Pods(ctx)
		if err != nil {
			return nil, nil, err
		}
		for _, id := range pods {
			others = append(others, Finding{App: id, Refused: true, Text: "it is a pod; there are no pods here"})
		}
	}
	return reports, others, nil
}

func (t *Takeover) reportApp(a App, exists bool) AppReport {
	r := AppReport{ID: a.ID, Instances: a.Instances, Phase: string(planned)}
	r.Volumes, r.Findings = examine(a, t.cfg.Options, t.cfg.Adopt && t.cfg.From != nil)
	e := t.cfg.Journal.content.Apps[a.ID]
	if e != nil && e.Phase != returned {
		r.Phase, r.Instances = string(e.Phase), e.Instances
		return r
	}
	if exists {
		r.Findings = append(r.Findings, Finding{App: a.ID, Refused: true, Text: "an app with this id exists here already"})
	}
	if agents := agentsOf(a.active()); len(r.Volumes) > 0 && len(agents) > 1 {
		r.Findings = append(r.Findings, Finding{App: a.ID, Refused: true, Text: fmt.Sprintf("it has exclusive volumes and tasks on %d agents (%v): "+
			"bring it to one agent at Marathon first", len(agents), slices.Sorted(maps.Keys(agents)))})
	}
	if len(r.Volumes) > 0 && len(a.Tasks) == 0 {
		r.Findings = append(r.Findings, t.noTasks(a))
	}
	return r
}

// noTasks is about an app with exclusive volumes and no task, so that nobody can
// tell where they are mounted, or still are: one that fails again and again has
// none between two attempts, and the agent of the last may be unmounting. An app
// that is suspended is left to the operator's care, as nothing starts by itself.
func (t *Takeover) noTasks(a App) Finding {
	f := Finding{App: a.ID, Refused: a.Instances > 0 && !t.cfg.Unmounted, Text: "it has no tasks: where its volumes were used last is not known; " +
		"make sure that they are mounted nowhere"}
	if last := a.LastFailure; last != nil {
		f.Text += fmt.Sprintf(" (its last failure was on %s)", last.Host)
	}
	switch {
	case !f.Refused:
	case t.cfg.From == nil:
		f.Text += ", and say so with --unmounted, or export the apps with their tasks (/v2/apps?embed=apps.tasks)"
	default:
		f.Text += ", and say so with --unmounted, or take it over while it runs"
	}
	return f
}

func (t *Takeover) apps(ctx context.Context) ([]App, error) {
	list := t.cfg.Export
	if t.cfg.From != nil {
		var err error
		if list, err = t.cfg.From.Apps(ctx); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b App) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list, nil
}

// ErrRefused means that an app cannot be taken over as it is.
var ErrRefused = errors.New("it cannot be taken over as it is")

// Take takes one app over, or goes on with it.
func (t *Takeover) Take(ctx context.Context, id string) error {
	if err := t.take(ctx, id); err != nil {
		return fmt.Errorf("take over %s: %w", id, err)
	}
	return nil
}

func (t *Takeover) take(ctx context.Context, id string) error {
	e := t.cfg.Journal.content.Apps[id]
	if e == nil || e.Phase == returned {
		var err error
		if e, err = t.begin(ctx, id); err != nil {
			return err
		}
	}
	steps := map[phase]func(context.Context, string, *entry) (phase, error){
		planned: t.create, created: t.suspend, suspending: t.awaitSuspended,
		suspended: t.unlessRestarted(t.claim), claimed: t.unlessRestarted(t.start), starting: t.awaitRunning,
	}
	for e.Phase != taken {
		step := steps[e.Phase]
		if step == nil {
			return errors.New("it is on its way back; finish that with --revert")
		}
		if err := t.advance(ctx, id, e, step); err != nil {
			return err
		}
	}
	t.cfg.Say("%s: runs here", id)
	return nil
}

// advance makes one step and writes how far that led.
func (t *Takeover) advance(ctx context.Context, id string, e *entry, step func(context.Context, string, *entry) (phase, error)) error {
	if err := t.step(); err != nil {
		return err
	}
	next, err := step(ctx, id, e)
	if err != nil {
		return err
	}
	if err := t.step(); err != nil {
		return err
	}
	e.Phase = next
	return t.cfg.Journal.save()
}

func (t *Takeover) step() error {
	if t.cfg.beforeStep != nil {
		return t.cfg.beforeStep()
	}
	return nil
}

// begin examines an app and enters it into the journal.
func (t *Takeover) begin(ctx context.Context, id string) (*entry, error) {
	a, err := t.source(ctx, id)
	if err != nil {
		return nil, err
	}
	_, exists, err := t.cfg.To.App(ctx, id)
	if err != nil {
		return nil, err
	}
	report := t.reportApp(a, exists)
	for _, f := range report.Findings {
		if f.Refused {
			return nil, fmt.Errorf("%w: %s", ErrRefused, f.Text)
		}
	}
	e := &entry{Phase: planned, Instances: a.Instances, Volumes: report.Volumes}
	if a.LastFailure != nil {
		e.LastFailure = a.LastFailure.ID
	}
	t.cfg.Journal.content.Apps[id] = e
	return e, t.cfg.Journal.save()
}

// source returns the app as it is at Marathon.
func (t *Takeover) source(ctx context.Context, id string) (App, error) {
	if t.cfg.From == nil {
		for _, a := range t.cfg.Export {
			if a.ID == id {
				return a, nil
			}
		}
		return App{}, errors.New("the export has no such app")
	}
	a, found, err := t.cfg.From.App(ctx, id)
	if err == nil && !found {
		err = errors.New("there is no such app at Marathon any more")
	}
	return a, err
}

// create defines the app here, without instances, so that a definition that is
// refused does no harm.
func (t *Takeover) create(ctx context.Context, id string, e *entry) (phase, error) {
	a, err := t.source(ctx, id)
	if err != nil {
		return "", err
	}
	// What an interrupted call of this step made has no instances.
	here, exists, err := t.cfg.To.App(ctx, id)
	if err != nil {
		return "", err
	}
	if exists && (here.Instances > 0 || len(here.active()) > 0) {
		return "", fmt.Errorf("%w: an app with this id runs here already", ErrRefused)
	}
	d := definition(a)
	d["instances"] = 0
	if err := t.cfg.To.Define(ctx, id, d); err != nil {
		return "", err
	}
	e.see(a)
	t.cfg.Say("%s: defined here without instances", id)
	return created, nil
}

// see adds an app's tasks to those that are known, and one that failed between
// two looks: it may have been on another agent.
func (e *entry) see(a App) (changed bool) {
	tasks := a.Tasks
	if last := a.LastFailure; last != nil && last.ID != e.LastFailure {
		tasks = append(slices.Clone(tasks), *last)
	}
	for _, task := range tasks {
		if !slices.ContainsFunc(e.Tasks, func(k Task) bool { return k.ID == task.ID }) {
			e.Tasks = append(e.Tasks, Task{ID: task.ID, Agent: task.Agent, Host: task.Host})
			changed = true
		}
	}
	return changed
}

// suspend only says that the tasks are about to end: it is written down before
// Marathon is asked.
func (t *Takeover) suspend(_ context.Context, id string, e *entry) (phase, error) {
	if t.cfg.From == nil && !t.cfg.Stopped && len(e.Volumes) > 0 {
		return "", errors.New("it has volumes and Marathon is not asked: once it runs nowhere any more, go on with --stopped")
	}
	return suspending, nil
}

// awaitSuspended has Marathon end the app's tasks, and waits for that. Every task
// that is seen meanwhile is noted before it can be gone.
func (t *Takeover) awaitSuspended(ctx context.Context, id string, e *entry) (phase, error) {
	if t.cfg.From == nil {
		return suspended, nil
	}
	err := t.poll(ctx, "the tasks to end at Marathon", func(ctx context.Context) (bool, error) {
		a, err := t.source(ctx, id)
		if err != nil {
			return false, err
		}
		if e.see(a) {
			if err := t.cfg.Journal.save(); err != nil {
				return false, err
			}
		}
		if a.Instances != 0 {
			t.cfg.Say("%s: suspending at Marathon (%d instances)", id, a.Instances)
			return false, t.ignoreLocked(t.cfg.From.Update(ctx, id, map[string]any{"instances": 0}))
		}
		if n := a.keptVolumes(); n > e.Kept {
			e.Kept = n
			if err := t.cfg.Journal.save(); err != nil {
				return false, err
			}
		}
		return len(a.active()) == 0 && a.Deployments == 0, nil
	})
	return suspended, err
}

// ignoreLocked takes a running deployment for a reason to wait.
func (t *Takeover) ignoreLocked(err error) error {
	if isStatus(err, http.StatusConflict) {
		return nil
	}
	return err
}

// restarted tells whether Marathon runs the app again although it was suspended,
// which an operator may have asked for while the take-over was interrupted. An app
// that is gone there runs nowhere.
func (t *Takeover) restarted(ctx context.Context, id string) (bool, error) {
	if t.cfg.From == nil {
		return false, nil
	}
	a, found, err := t.cfg.From.App(ctx, id)
	if err != nil || !found || a.Instances == 0 && len(a.active()) == 0 {
		return false, err
	}
	t.cfg.Say("%s: was started again at Marathon; it is suspended once more", id)
	return true, nil
}

// unlessRestarted makes a step, or goes back to suspending the app.
func (t *Takeover) unlessRestarted(step func(context.Context, string, *entry) (phase, error)) func(context.Context, string, *entry) (phase, error) {
	return func(ctx context.Context, id string, e *entry) (phase, error) {
		again, err := t.restarted(ctx, id)
		if err != nil {
			return "", err
		}
		if again {
			return suspending, nil
		}
		return step(ctx, id, e)
	}
}

// agentsOf are the agents on which tasks were seen, each with one of them.
func agentsOf(tasks []Task) map[string]Task {
	agents := map[string]Task{}
	for _, task := range tasks {
		if task.Agent != "" {
			agents[task.Agent] = task
		}
	}
	return agents
}

// claim records here where the volumes were used last: that a task has ended does
// not mean that its volumes are unmounted.
func (t *Takeover) claim(ctx context.Context, id string, e *entry) (phase, error) {
	agents := agentsOf(e.Tasks)
	if len(e.Volumes) > 0 && len(agents) > 1 {
		return "", fmt.Errorf("its tasks ran on %d agents (%v) while it was being suspended: make sure that its volumes are mounted "+
			"nowhere, remove the agents that do not have them from the journal, and go on; or give it back with --revert", len(agents), slices.Sorted(maps.Keys(agents)))
	}
	for _, v := range e.Volumes {
		for _, task := range agents {
			if err := t.cfg.To.ClaimUsed(ctx, v, id, task); err != nil {
				return "", err
			}
			t.cfg.Say("%s: volume %s of driver %s stays on %s until it is known to be unmounted", id, v.Name, v.Driver, task.Host)
		}
	}
	return claimed, nil
}

// start only says that instances are about to start here. Persistent volumes must
// have been taken over before: otherwise new ones would be made, without the
// data.
func (t *Takeover) start(ctx context.Context, id string, e *entry) (phase, error) {
	if e.Kept == 0 {
		return starting, nil
	}
	t.cfg.Say("%s: waiting for the agents to offer its persistent volumes", id)
	err := t.poll(ctx, "the persistent volumes to be offered here", func(ctx context.Context) (bool, error) {
		a, found, err := t.cfg.To.App(ctx, id)
		return found && a.keptVolumes() >= e.Kept, err
	})
	return starting, err
}

// CheckAdoption tells why the target could not take persistent volumes over.
func CheckAdoption(ctx context.Context, from, to *API) error {
	theirs, _, err := from.Settings(ctx)
	if err != nil {
		return err
	}
	_, adopted, err := to.Settings(ctx)
	if err != nil {
		return err
	}
	if theirs == "" || !slices.Contains(adopted, theirs) {
		return fmt.Errorf("this framework does not take over reservations of Marathon's framework %s: "+
			"start it with --adopt=%s, and with the role and principal that Marathon has", theirs, theirs)
	}
	return nil
}

// awaitRunning starts the instances here and waits until they run.
func (t *Takeover) awaitRunning(ctx context.Context, id string, e *entry) (phase, error) {
	next := taken
	err := t.poll(ctx, "the instances to run here", func(ctx context.Context) (bool, error) {
		a, found, err := t.cfg.To.App(ctx, id)
		switch {
		case err != nil:
			return false, err
		case !found:
			return false, errors.New("it was deleted here meanwhile; go back with --revert")
		case a.Instances != e.Instances:
			if again, err := t.restarted(ctx, id); again || err != nil {
				next = suspending
				return again, err
			}
			t.cfg.Say("%s: starting here (%d instances)", id, e.Instances)
			return false, t.ignoreLocked(t.cfg.To.Update(ctx, id, map[string]any{"instances": e.Instances}))
		}
		return a.Running >= e.Instances && a.Deployments == 0, nil
	})
	return next, err
}

// timeoutError means that what was waited for did not come.
type timeoutError struct{ after time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("not within %s", e.after) }

// steppedLooks is how many looks of a wait are steps of their own for tests: what
// is asked for is asked for in the first ones.
const steppedLooks = 3

// poll waits until done, at most for the time-out. Connections that fail are
// tried again.
func (t *Takeover) poll(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.cfg.Timeout, &timeoutError{t.cfg.Timeout})
	defer cancel()
	var last error
	for n := 0; ; n++ {
		if n < steppedLooks {
			if err := t.step(); err != nil {
				return err
			}
		}
		ok, err := done(ctx)
		var refused *StatusError
		switch {
		case ok && err == nil:
			return nil
		case err != nil && ctx.Err() == nil && errors.As(err, &refused) && refused.Status < 500:
			return err
		case err != nil && ctx.Err() == nil && !isTransport(err) && refused == nil:
			return err
		case err != nil:
			last = err
		}
		select {
		case <-time.After(t.cfg.Poll):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w; the same command goes on from here", what, context.Cause(ctx)), last)
		}
	}
}
