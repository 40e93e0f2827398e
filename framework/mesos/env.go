package mesos

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// A label is shown in the environment only if its variable stays below these
// lengths (Marathon's limits: a name of 512 with its prefix, a value of 512).
const (
	labelPrefix   = "MARATHON_APP_LABEL_"
	maxLabelKey   = 512 - len(labelPrefix)
	maxLabelValue = 512
)

// environment is what the task finds in its environment, in Marathon's blocks
// of which a later one wins: the app, its labels, its ports and host, and the
// app's own variables. Sorted by name.
func (b *taskBuilder) environment() (*mesosgo.Environment, error) {
	vars := appEnv(b.task, b.config)
	maps.Copy(vars, labelEnv(b.app.Labels))
	for name, value := range portEnv(b.ports, b.task.Hostname) {
		vars[b.config.EnvPrefix+name] = value
	}
	env := &mesosgo.Environment{}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if _, own := b.app.Env[name]; !own {
			env.Variables = append(env.Variables, mesosgo.Environment_Variable{Name: name, Value: pointer(vars[name])})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.app.Env)) {
		variable, err := b.ownVariable(name, b.app.Env[name])
		if err != nil {
			return nil, err
		}
		env.Variables = append(env.Variables, variable)
	}
	slices.SortFunc(env.Variables, func(x, y mesosgo.Environment_Variable) int { return strings.Compare(x.Name, y.Name) })
	return env, nil
}

// ownVariable is a variable that the app defines. A secret is sent as such, so
// that the master shows it to nobody, except to the Docker containerizer, which
// does not resolve secrets (src/docker/docker.cpp).
func (b *taskBuilder) ownVariable(name string, v app.EnvVar) (mesosgo.Environment_Variable, error) {
	variable := mesosgo.Environment_Variable{Name: name}
	if v.Secret == "" {
		variable.Value = pointer(v.Value)
		return variable, nil
	}
	secret, err := b.secret(v.Secret)
	if err != nil {
		return variable, err
	}
	if b.isDocker() {
		if secret.Value == nil {
			return variable, b.invalid("the secret %q of variable %s has no known value, and DOCKER containers cannot resolve a reference: use a MESOS container", v.Secret, name)
		}
		variable.Value = pointer(string(secret.Value.Data))
		return variable, nil
	}
	variable.Type = mesosgo.Environment_Variable_SECRET.Enum()
	variable.Secret = secret
	return variable, nil
}

func appEnv(t *core.Task, config TaskConfig) map[string]string {
	a := t.App
	enforced := config.EnforceGroupRole != nil && config.EnforceGroupRole(string(a.ID))
	vars := map[string]string{
		"MESOS_TASK_ID":                   t.ID,
		"MARATHON_APP_ID":                 string(a.ID),
		"MARATHON_APP_VERSION":            a.Version.String(),
		"MARATHON_APP_RESOURCE_CPUS":      double(a.CPUs),
		"MARATHON_APP_RESOURCE_MEM":       double(a.Mem),
		"MARATHON_APP_RESOURCE_DISK":      double(a.Disk),
		"MARATHON_APP_RESOURCE_GPUS":      strconv.Itoa(a.GPUs),
		"MARATHON_APP_ENFORCE_GROUP_ROLE": strings.ToUpper(strconv.FormatBool(enforced)),
	}
	if c := a.Container; c != nil && c.Type == app.Docker && c.Docker != nil {
		vars["MARATHON_APP_DOCKER_IMAGE"] = c.Docker.Image
	}
	return vars
}

// double prints a number with at least one digit after the point.
func double(v float64) string {
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

var notInVariableName = regexp.MustCompile(`[^A-Za-z0-9_]+`)

// labelEnv shows the app's labels. Of keys that become the same name the last in
// alphabetical order counts.
func labelEnv(labels map[string]string) map[string]string {
	vars := map[string]string{}
	var names []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := labels[key]
		if len(key) >= maxLabelKey || len(value) >= maxLabelValue {
			continue
		}
		name := strings.ToUpper(notInVariableName.ReplaceAllString(key, "_"))
		if _, seen := vars[labelPrefix+name]; !seen {
			names = append(names, name)
		}
		vars[labelPrefix+name] = value
	}
	vars["MARATHON_APP_LABELS"] = strings.Join(names, " ")
	return vars
}

// portEnv tells the task its host and its ports: by position, by the number
// that the app asked for, and by name.
func portEnv(ports []port, hostname string) map[string]string {
	vars := map[string]string{"HOST": hostname}
	var all []string
	for i, p := range ports {
		number := strconv.FormatUint(uint64(p.effective()), 10)
		all = append(all, number)
		vars["PORT"+strconv.Itoa(i)] = number
		if p.requested != 0 {
			vars["PORT_"+strconv.Itoa(p.requested)] = number
		} else {
			vars["PORT_"+number] = number
		}
		if p.name != "" {
			vars["PORT_"+strings.ToUpper(p.name)] = number
		}
	}
	if len(all) > 0 {
		vars["PORT"] = all[0]
		vars["PORTS"] = strings.Join(all, ",")
	}
	return vars
}
