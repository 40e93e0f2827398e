package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
)

// difference is a field that a file and the running app do not agree on. A nil
// value means that the field is not there.
type difference struct {
	Path    string `json:"path"`
	Running any    `json:"running,omitempty"`
	File    any    `json:"file,omitempty"`
}

// appDiff is how an app of a file differs from the running one.
type appDiff struct {
	App         app.ID       `json:"app"`
	New         bool         `json:"new"`
	Differences []difference `json:"differences"`
}

func (d appDiff) same() bool { return !d.New && len(d.Differences) == 0 }

func diff(e *env) error {
	if err := e.exactly(1); err != nil {
		return err
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	opts, err := e.onlineOptions(api)
	if err != nil {
		return err
	}
	definitions, err := e.read(e.args[0])
	if err != nil {
		return e.invalid(err)
	}
	diffs := make([]appDiff, 0, len(definitions))
	for _, d := range definitions {
		one, err := e.compare(api, d, opts)
		if err != nil {
			return e.invalid(err)
		}
		diffs = append(diffs, one)
	}
	if err := e.printDiffs(diffs); err != nil {
		return err
	}
	if slices.ContainsFunc(diffs, func(d appDiff) bool { return !d.same() }) {
		return ErrDiffers
	}
	return nil
}

// invalid prints what is wrong with the file where that is the error.
func (e *env) invalid(err error) error {
	var syntax *app.SyntaxError
	var rules *app.ValidationError
	if !errors.As(err, &syntax) && !errors.As(err, &rules) {
		return err
	}
	if printErr := e.printFindings([]finding{found(e.args[0], "", err)}); printErr != nil {
		return printErr
	}
	return ErrInvalid
}

// compare holds a definition against the running app.
func (e *env) compare(api *client.Client, d definition, opts app.Options) (appDiff, error) {
	out := appDiff{Differences: []difference{}}
	u, err := app.ParseUpdate(d.raw, opts)
	if err != nil {
		return out, err
	}
	if out.App = u.ID(); out.App == "" {
		_, err := app.Parse(d.raw, opts) // says so
		return out, err
	}
	running, err := e.running(api, out.App)
	if err != nil {
		return out, err
	}
	if running == nil {
		out.New = true
		_, err := app.Parse(d.raw, opts)
		return out, err
	}
	a, err := u.Apply(out.App, running, false)
	if err != nil {
		return out, err
	}
	// Service ports that the file leaves open stay as they are.
	ports := app.NewServicePorts(slices.Values([]*app.App{running, a}), app.DefaultPortRange)
	if err := ports.Assign(a, running); err != nil {
		return out, err
	}
	was, err := tree(running)
	if err != nil {
		return out, err
	}
	will, err := tree(a)
	if err != nil {
		return out, err
	}
	out.Differences = differences("", was, will)
	return out, nil
}

// running is the definition of an app that runs, nil if there is none.
func (e *env) running(api *client.Client, id app.ID) (*app.App, error) {
	current, err := api.App(e.ctx, id)
	var answer *client.Error
	if errors.As(err, &answer) && answer.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := new(app.App)
	if err := json.Unmarshal(current.Definition, out); err != nil {
		return nil, fmt.Errorf("read the running definition of %s: %w", id, err)
	}
	return out, nil
}

// tree is a definition as plain JSON values, without its version.
func tree(a *app.App) (map[string]any, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", a.ID, err)
	}
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("app %s: %w", a.ID, err)
	}
	delete(v, "version")
	delete(v, "versionInfo")
	return v, nil
}

// differences walks two trees of JSON values. Arrays are compared by position.
func differences(path string, was, will any) []difference {
	a, objects := was.(map[string]any)
	b, ok := will.(map[string]any)
	if objects && ok {
		return memberDifferences(path, a, b)
	}
	x, arrays := was.([]any)
	y, ok := will.([]any)
	if arrays && ok && len(x) == len(y) {
		out := []difference{}
		for i := range x {
			out = append(out, differences(path+"("+strconv.Itoa(i)+")", x[i], y[i])...)
		}
		return out
	}
	if reflect.DeepEqual(was, will) {
		return []difference{}
	}
	return []difference{{Path: path, Running: was, File: will}}
}

func memberDifferences(path string, a, b map[string]any) []difference {
	names := map[string]bool{}
	for name := range a {
		names[name] = true
	}
	for name := range b {
		names[name] = true
	}
	out := []difference{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		out = append(out, differences(path+"/"+name, a[name], b[name])...)
	}
	return out
}

func (e *env) printDiffs(diffs []appDiff) error {
	if e.json {
		return e.printJSON(diffs)
	}
	for _, d := range diffs {
		switch {
		case d.New:
			fmt.Fprintf(e.out, "%s: new\n", d.App)
		case d.same():
			fmt.Fprintf(e.out, "%s: no differences\n", d.App)
		default:
			fmt.Fprintf(e.out, "%s:\n", d.App)
		}
		for _, one := range d.Differences {
			switch {
			case one.Running == nil:
				fmt.Fprintf(e.out, "  + %s: %s\n", one.Path, compact(one.File))
			case one.File == nil:
				fmt.Fprintf(e.out, "  - %s: %s\n", one.Path, compact(one.Running))
			default:
				fmt.Fprintf(e.out, "  ~ %s: %s -> %s\n", one.Path, compact(one.Running), compact(one.File))
			}
		}
	}
	return nil
}

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v) // values of JSON always marshal
	}
	return string(b)
}
