package mesos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// commandExecutor names Mesos' own executor, which runs a command.
const commandExecutor = "//cmd"

// taskBuilder translates one task.
type taskBuilder struct {
	config TaskConfig
	task   *core.Task
	app    *app.App
	ports  []port
}

// taskInfo translates a task. The error is a *core.InvalidTaskError.
func (c *Conn) taskInfo(t *core.Task) (mesosgo.TaskInfo, error) {
	b := &taskBuilder{config: c.config.Tasks, task: t, app: t.App}
	if err := b.assignPorts(); err != nil {
		return mesosgo.TaskInfo{}, err
	}
	return b.build()
}

func (b *taskBuilder) build() (mesosgo.TaskInfo, error) {
	info := mesosgo.TaskInfo{
		Name:      b.app.ID.TaskName(),
		TaskID:    mesosgo.TaskID{Value: b.task.ID},
		AgentID:   mesosgo.AgentID{Value: b.task.AgentID},
		Labels:    labelsOf(b.app.Labels),
		Discovery: b.discovery(),
		Limits:    limits(b.app.Limits),
	}
	if b.app.KillGrace != nil {
		info.KillPolicy = killPolicy(time.Duration(*b.app.KillGrace) * time.Second)
	}
	command, err := b.command()
	if err != nil {
		return info, err
	}
	container, err := b.container()
	if err != nil {
		return info, err
	}
	if path := b.executorPath(); path == "" {
		info.Command, info.Container = command, container
		info.Resources = allToWire(b.task.Resources)
	} else if err := b.useExecutor(&info, path, command, container); err != nil {
		return info, err
	}
	if info.HealthCheck, err = b.healthCheck(); err != nil {
		return info, err
	}
	info.Check, err = b.check()
	return info, err
}

func (b *taskBuilder) invalid(format string, args ...any) error {
	return &core.InvalidTaskError{TaskID: b.task.ID, Reason: fmt.Sprintf(format, args...)}
}

func (b *taskBuilder) isDocker() bool {
	return b.app.Container != nil && b.app.Container.Type == app.Docker
}

// hostNetwork tells whether the task uses the agent's own network; no network
// at all means the same.
func (b *taskBuilder) hostNetwork() bool {
	return !slices.ContainsFunc(b.app.Networks, func(n app.Network) bool { return n.Mode != app.HostNetwork })
}

// command is what runs. With args and an image the image's entry point receives
// them; without one the first of them is the program.
func (b *taskBuilder) command() (*mesosgo.CommandInfo, error) {
	env, err := b.environment()
	if err != nil {
		return nil, err
	}
	info := &mesosgo.CommandInfo{Environment: env, User: optional(b.app.User)}
	switch {
	case len(b.app.Args) > 0:
		info.Shell = pointer(false)
		info.Arguments = slices.Clone(b.app.Args)
		if b.image() == nil {
			info.Value = pointer(b.app.Args[0])
		}
	case b.app.Cmd != "":
		info.Shell = pointer(true)
		info.Value = pointer(b.app.Cmd)
	default:
		info.Shell = pointer(false)
	}
	for _, f := range b.app.Fetch {
		info.URIs = append(info.URIs, mesosgo.CommandInfo_URI{
			Value:      f.URI,
			Executable: pointer(f.Executable),
			Extract:    pointer(f.Extract),
			Cache:      pointer(f.Cache),
			OutputFile: optional(f.DestPath),
		})
	}
	return info, nil
}

// executorPath is the program of a custom executor, empty for Mesos' own.
func (b *taskBuilder) executorPath() string {
	executor := b.app.Executor
	if executor == "" {
		executor = b.config.DefaultExecutor
	}
	if executor == commandExecutor {
		return ""
	}
	return executor
}

// useExecutor runs the task by a custom executor of its own, which gets the
// container, the command line and its share of the resources.
func (b *taskBuilder) useExecutor(info *mesosgo.TaskInfo, path string, command *mesosgo.CommandInfo, container *mesosgo.ContainerInfo) error {
	program := shellQuote(path)
	words := []string{"chmod ug+rx " + program + " && exec " + program}
	if b.app.Cmd != "" {
		words = append(words, b.app.Cmd)
	}
	for _, arg := range b.app.Args {
		words = append(words, shellQuote(arg))
	}
	command.Shell = pointer(true)
	command.Value = pointer(strings.Join(words, " "))
	command.Arguments = nil
	own, rest, err := b.splitExecutorResources()
	if err != nil {
		return err
	}
	info.Resources = allToWire(rest)
	info.Executor = &mesosgo.ExecutorInfo{
		Type:       mesosgo.ExecutorInfo_CUSTOM,
		ExecutorID: mesosgo.ExecutorID{Value: "marathon-" + b.task.ID},
		Command:    command,
		Container:  container,
		Resources:  allToWire(own),
	}
	return nil
}

// splitExecutorResources cuts the executor's share from the resources that the
// scheduler chose for the task and its executor together.
func (b *taskBuilder) splitExecutorResources() (own, rest []resource.Resource, err error) {
	rest = slices.Clone(b.task.Resources)
	if b.app.ExecutorRes == nil {
		return nil, rest, nil
	}
	for _, want := range []struct {
		name   string
		amount float64
	}{
		{"cpus", b.app.ExecutorRes.CPUs},
		{"mem", b.app.ExecutorRes.Mem},
		{"disk", b.app.ExecutorRes.Disk},
	} {
		left := resource.FromFloat(want.amount)
		for i := range rest {
			r := &rest[i]
			if r.Name != want.name || r.Kind != resource.Scalar || r.Disk != nil {
				continue
			}
			cut := min(left, r.Scalar)
			if cut > 0 {
				own = append(own, r.WithScalar(cut))
				r.Scalar -= cut
				left -= cut
			}
		}
		if left > 0 {
			return nil, nil, b.invalid("the chosen resources lack %s %s for the executor", left, want.name)
		}
	}
	rest = slices.DeleteFunc(rest, func(r resource.Resource) bool { return r.Kind == resource.Scalar && r.Scalar == 0 })
	return own, rest, nil
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// limits are the bounds above the requested resources; infinity means none.
// They reach agents since Mesos 1.10.
func limits(l *app.Limits) map[string]mesosgo.Value_Scalar {
	if l == nil {
		return nil
	}
	all := map[string]mesosgo.Value_Scalar{}
	if l.CPUs != nil {
		all["cpus"] = mesosgo.Value_Scalar{Value: *l.CPUs}
	}
	if l.Mem != nil {
		all["mem"] = mesosgo.Value_Scalar{Value: *l.Mem}
	}
	return all
}

// labelsOf translates labels sorted by key, with more keys and values behind.
func labelsOf(labels map[string]string, more ...string) *mesosgo.Labels {
	if len(labels) == 0 && len(more) == 0 {
		return nil
	}
	w := &mesosgo.Labels{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		w.Labels = append(w.Labels, mesosgo.Label{Key: key, Value: pointer(labels[key])})
	}
	for i := 0; i+1 < len(more); i += 2 {
		w.Labels = append(w.Labels, mesosgo.Label{Key: more[i], Value: pointer(more[i+1])})
	}
	return w
}

// secret is a secret of the app: its value where we know it, otherwise a
// reference for the agent's secret resolver.
func (b *taskBuilder) secret(name string) (*mesosgo.Secret, error) {
	if value, known := b.task.SecretValues[name]; known {
		return &mesosgo.Secret{Type: mesosgo.Secret_VALUE, Value: &mesosgo.Secret_Value{Data: []byte(value)}}, nil
	}
	source, defined := b.app.Secrets[name]
	if !defined {
		return nil, b.invalid("the secret %q is not defined: add it to secrets", name)
	}
	return &mesosgo.Secret{
		Type:      mesosgo.Secret_REFERENCE,
		Reference: &mesosgo.Secret_Reference{Name: source.Source},
	}, nil
}
