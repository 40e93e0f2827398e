package takeover

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// Volume names an external volume.
type Volume struct {
	Driver string `json:"driver"`
	Name   string `json:"name"`
}

// readOnly are the fields of an answer that are no part of a definition.
var readOnly = []string{
	"version", "versionInfo", "tasks", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy", "deployments",
	"lastTaskFailure", "readinessCheckResults", "tasksStats", "taskStats",
}

// definition is an app's definition without what only answers hold.
func definition(a App) map[string]any {
	d := maps.Clone(a.Definition)
	for _, field := range readOnly {
		delete(d, field)
	}
	return d
}

// Finding is what an operator should know of an app before it is taken over.
type Finding struct {
	App string `json:"app"`
	// Refused: the app cannot be taken over as it is.
	Refused bool   `json:"refused,omitempty"`
	Text    string `json:"text"`
}

// examine reads a definition as the target will, and says what differs here.
func examine(a App, opts app.Options, adopt bool) (volumes []Volume, findings []Finding) {
	note := func(refused bool, format string, args ...any) {
		findings = append(findings, Finding{App: a.ID, Refused: refused, Text: fmt.Sprintf(format, args...)})
	}
	given := definition(a)
	data, err := json.Marshal(given)
	if err != nil {
		note(true, "its definition cannot be written: %v", err)
		return nil, findings
	}
	parsed, err := app.Parse(data, opts)
	if err != nil {
		note(true, "its definition is not valid here: %v", err)
		return nil, findings
	}
	switch n := len(parsed.PersistentVolumes()); {
	case n > 0 && adopt:
		note(false, "its reservations and %d persistent volumes per instance are taken over", n)
	case n > 0:
		note(true, "it has Mesos persistent volumes, which are reserved by Marathon's framework; take them over with --adopt from the running Marathon")
	}
	for _, n := range parsed.ExternalVolumes() {
		v := parsed.Container.Volumes[n]
		if v.External.Provider != app.DVDI {
			note(true, "its volume %s is of provider %s, which is not supported here", v.External.Name, v.External.Provider)
			continue
		}
		if strings.EqualFold(v.Mode, "RO") || v.External.Access() == app.AccessManyReaders || v.External.Access() == app.AccessManyWriters {
			continue
		}
		volumes = append(volumes, Volume{Driver: v.External.Driver(), Name: v.External.Name})
	}
	if len(volumes) > 0 && !parsed.Unreachable.Disabled {
		note(false, "while its agent is unreachable no replacement starts, whatever unreachableStrategy says: "+
			"its volume may still be written to there")
	}
	canonical, err := json.Marshal(parsed)
	var here map[string]any
	if err == nil {
		decoder := json.NewDecoder(strings.NewReader(string(canonical)))
		decoder.UseNumber()
		err = decoder.Decode(&here)
	}
	if err != nil {
		note(true, "its definition cannot be compared: %v", err)
		return volumes, findings
	}
	for _, d := range differences("", given, here) {
		note(false, "%s", d)
	}
	return volumes, findings
}

// differences lists what a definition says and this framework understands in
// another way. Fields that are only here are defaults.
func differences(path string, there, here map[string]any) []string {
	var out []string
	for _, field := range slices.Sorted(maps.Keys(there)) {
		at := path + "/" + field
		a, b := there[field], here[field]
		if empty(a) && empty(b) || translated[at] {
			continue
		}
		if b == nil {
			out = append(out, fmt.Sprintf("%s is not known here and is dropped", at))
			continue
		}
		x, isObject := a.(map[string]any)
		y, bothObjects := b.(map[string]any)
		if isObject && bothObjects {
			out = append(out, differences(at, x, y)...)
			continue
		}
		if !alike(a, b) {
			out = append(out, fmt.Sprintf("%s is %s here instead of %s", at, text(b), text(a)))
		}
	}
	return out
}

// translated are fields in old forms, whose meaning stands in other fields.
var translated = map[string]bool{
	"/uris": true, "/ports": true, "/ipAddress": true, "/container/docker/network": true,
	"/container/docker/portMappings": true, "/residency": true, "/id": true,
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	case string:
		return v == ""
	case bool:
		return !v
	}
	return false
}

// alike compares values; lists of objects may have more fields here, which are
// defaults.
func alike(a, b any) bool {
	x, list := a.([]any)
	y, both := b.([]any)
	if list && both {
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			p, isObject := x[i].(map[string]any)
			q, bothObjects := y[i].(map[string]any)
			if isObject && bothObjects {
				if len(differences("", p, q)) > 0 {
					return false
				}
			} else if !alike(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	n, isNumber := a.(json.Number)
	m, bothNumbers := b.(json.Number)
	if isNumber && bothNumbers {
		f, err1 := n.Float64()
		g, err2 := m.Float64()
		return err1 == nil && err2 == nil && f == g
	}
	return reflect.DeepEqual(a, b)
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
