package command

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
)

func listApps(e *env) error {
	fetch := func(api *client.Client) ([]client.App, error) { return api.Apps(e.ctx, e.cli.String("label")) }
	return list(e, fetch, []string{"ID", "RUNNING", "HEALTHY", "DEPLOYING", "VOLUMES", "VERSION"}, func(a client.App) []string {
		return []string{string(a.ID), fmt.Sprintf("%d/%d", a.Running, a.Instances), healthText(a),
			yes(len(a.Deployments) > 0), strings.Join(a.Volumes(), ","), a.Version.String()}
	})
}

func healthText(a client.App) string {
	if len(a.HealthChecks) == 0 {
		return ""
	}
	return strconv.Itoa(a.Healthy)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// appState is an app with what keeps it waiting.
type appState struct {
	App     client.App      `json:"app"`
	Waiting []client.Queued `json:"queue"`
}

func showApp(e *env) error {
	if err := e.exactly(1); err != nil {
		return err
	}
	id, err := app.ResolveID(e.args[0], app.Root)
	if err != nil {
		return usage("%q is no app id: %v", e.args[0], err)
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	state := appState{}
	if state.App, err = api.App(e.ctx, id); err != nil {
		return err
	}
	queue, err := api.Queue(e.ctx)
	if err != nil {
		return err
	}
	state.Waiting = slices.DeleteFunc(queue, func(q client.Queued) bool { return q.App.ID != id })
	if e.json {
		return e.printJSON(state)
	}
	return e.printApp(state)
}

func (e *env) printApp(s appState) error {
	a := s.App
	facts := [][]string{
		{"app", string(a.ID)},
		{"version", a.Version.String()},
		{"running", fmt.Sprintf("%d of %d", a.Running, a.Instances)},
	}
	if len(a.HealthChecks) > 0 {
		facts = append(facts, []string{"healthy", fmt.Sprintf("%d, unhealthy %d", a.Healthy, a.Unhealthy)})
	}
	for _, v := range a.Volumes() {
		facts = append(facts, []string{"volume", v})
	}
	for _, d := range a.Deployments {
		facts = append(facts, []string{"deployment", d.ID})
	}
	if f := a.LastFailure; f != nil {
		facts = append(facts, []string{"last failure", fmt.Sprintf("%s ago on %s: %s %s", age(f.Timestamp.Time()), f.Host, f.State, f.Message)})
	}
	for _, q := range s.Waiting {
		if !q.Delay.Overdue {
			facts = append(facts, []string{"delayed", fmt.Sprintf("%ds, after failures", q.Delay.TimeLeftSeconds)})
		}
		for _, w := range q.Waiting {
			facts = append(facts, []string{"waiting", w.InstanceID + ": " + w.Text})
		}
	}
	if err := e.table(nil, facts); err != nil {
		return err
	}
	if len(a.Tasks) == 0 {
		return nil
	}
	fmt.Fprintln(e.out)
	rows := make([][]string, 0, len(a.Tasks))
	for _, t := range a.Tasks {
		var started string
		if t.StartedAt != nil {
			started = age(t.StartedAt.Time())
		}
		var ports []string
		for _, p := range t.Ports {
			ports = append(ports, strconv.Itoa(int(p)))
		}
		rows = append(rows, []string{t.ID, t.State, t.Host, strings.Join(ports, ","), started})
	}
	return e.table([]string{"TASK", "STATE", "HOST", "PORTS", "AGE"}, rows)
}

func status(e *env) error {
	if err := e.exactly(0); err != nil {
		return err
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	s, err := e.gather(api)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(s)
	}
	return e.printStatus(s)
}

// overview is how the framework is doing.
type overview struct {
	Info        client.Info      `json:"info"`
	Apps        int              `json:"apps"`
	Instances   int              `json:"instances"`
	Running     int              `json:"running"`
	Unhealthy   int              `json:"unhealthy"`
	Deployments []client.Running `json:"deployments"`
	Queue       []client.Queued  `json:"queue"`
	// Volumes are those that are not simply in use.
	Volumes []client.Claim `json:"volumes"`
}

func (e *env) gather(api *client.Client) (s overview, err error) {
	if s.Info, err = api.Info(e.ctx); err != nil {
		return s, err
	}
	apps, err := api.Apps(e.ctx, "")
	if err != nil {
		return s, err
	}
	for _, a := range apps {
		s.Apps++
		s.Instances += a.Instances
		s.Running += a.Running
		s.Unhealthy += a.Unhealthy
	}
	if s.Deployments, err = api.Deployments(e.ctx); err != nil {
		return s, err
	}
	if s.Queue, err = api.Queue(e.ctx); err != nil {
		return s, err
	}
	claims, err := api.Claims(e.ctx)
	s.Volumes = slices.DeleteFunc(claims, func(c client.Claim) bool { return c.State == "held" })
	return s, err
}

func (e *env) printStatus(s overview) error {
	connected := "connected to Mesos"
	if !s.Info.Connected {
		connected = "NOT connected to Mesos"
	}
	facts := [][]string{
		{"framework", fmt.Sprintf("%s %s, id %s", s.Info.Name, s.Info.Version, s.Info.FrameworkID)},
		{"leader", s.Info.Leader},
		{"state", connected},
		{"apps", fmt.Sprintf("%d with %d of %d instances running, %d unhealthy", s.Apps, s.Running, s.Instances, s.Unhealthy)},
	}
	for _, d := range s.Deployments {
		facts = append(facts, []string{"deployment", fmt.Sprintf("%s of %v, step %d of %d", d.ID, d.AffectedApps, d.CurrentStep, d.TotalSteps)})
	}
	for _, q := range s.Queue {
		text := fmt.Sprintf("%s: %d for %s", q.App.ID, q.Count, age(q.Since.Time()))
		if len(q.Waiting) > 0 {
			text += ": " + q.Waiting[0].Text
		}
		facts = append(facts, []string{"waiting", text})
	}
	for _, v := range s.Volumes {
		facts = append(facts, []string{"volume", v.Text})
	}
	return e.table(nil, facts)
}
