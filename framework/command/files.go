package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// definition is an app of a file.
type definition struct {
	file string
	raw  json.RawMessage
	app  *app.App
}

// definitionFlags are the settings of a framework that definitions depend on,
// for checks without one. Names and environment are those of the framework.
func definitionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "mesos_role", Value: "*", Usage: "default `ROLE` of apps", EnvVars: []string{"DVDI_MESOS_ROLE"}},
		&cli.StringFlag{Name: "enable_features", Value: "external_volumes", Usage: "features of the framework, separated by commas", EnvVars: []string{"DVDI_ENABLE_FEATURES"}},
		&cli.StringFlag{Name: "default_network_name", Usage: "network of apps that join a container network without naming it", EnvVars: []string{"DVDI_DEFAULT_NETWORK_NAME"}},
		&cli.StringFlag{Name: "volume-classes", Usage: "`FILE` with the framework's volume classes", EnvVars: []string{"DVDI_VOLUME_CLASSES"}},
		&cli.StringFlag{Name: "new_group_enforce_role", Value: "off", Usage: "\"top\": apps in a group have its name as their role", EnvVars: []string{"DVDI_NEW_GROUP_ENFORCE_ROLE"}},
	}
}

func optionsOf(role, network, groupRole string, features []string) app.Options {
	on := func(name string) bool { return slices.Contains(features, name) }
	return app.Options{
		Role: role, DefaultNetwork: network, GroupRole: groupRole == "top",
		NoExternalVolumes: !on("external_volumes"), Secrets: on("secrets"), GPUs: on("gpu_resources"),
	}
}

func offlineOptions(c *cli.Context) (app.Options, error) {
	o := optionsOf(c.String("mesos_role"), c.String("default_network_name"), c.String("new_group_enforce_role"),
		strings.Split(c.String("enable_features"), ","))
	if path := c.String("volume-classes"); path != "" {
		var err error
		if o.Classes, err = config.LoadVolumeClasses(path); err != nil {
			return o, usage("%v", err)
		}
	}
	return o, nil
}

// onlineOptions are those of a running framework.
func (e *env) onlineOptions(api *client.Client) (app.Options, error) {
	i, err := api.Info(e.ctx)
	if err != nil {
		return app.Options{}, err
	}
	o := optionsOf(i.Setting("mesos_role"), i.Setting("default_network_name"), i.Setting("new_group_enforce_role"), i.Features())
	classes, err := api.VolumeClasses(e.ctx)
	if err != nil {
		return o, err
	}
	o.Classes = map[string]app.VolumeClass{}
	for _, c := range classes {
		o.Classes[c.Name] = c
	}
	return o, nil
}

// read returns the definitions of a file: one app, or an array of apps. "-" is
// the standard input. They are not checked yet.
func (e *env) read(file string) ([]definition, error) {
	data, err := e.contents(file)
	if err != nil {
		return nil, err
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 || data[0] != '[' {
		return []definition{{file: file, raw: data}}, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, &app.SyntaxError{Message: "Invalid JSON", Details: err.Error()}
	}
	out := make([]definition, 0, len(list))
	for _, raw := range list {
		out = append(out, definition{file: file, raw: raw})
	}
	return out, nil
}

func (e *env) contents(file string) ([]byte, error) {
	if file == "-" {
		data, err := io.ReadAll(e.in)
		if err != nil {
			return nil, fmt.Errorf("read the standard input: %w", err)
		}
		return data, nil
	}
	data, err := inputfile.Read(file)
	if err != nil {
		return nil, usage("%v", err)
	}
	return data, nil
}

// finding is what is wrong with a definition.
type finding struct {
	File    string       `json:"file"`
	App     app.ID       `json:"app,omitempty"`
	Valid   bool         `json:"valid"`
	Message string       `json:"message,omitempty"`
	Details []app.Detail `json:"details,omitempty"`
}

// found turns an error of package app into a finding.
func found(file string, id app.ID, err error) finding {
	f := finding{File: file, App: id, Valid: err == nil}
	var invalid *app.ValidationError
	var syntax *app.SyntaxError
	switch {
	case err == nil:
	case errors.As(err, &invalid):
		f.Message, f.Details = invalid.Message, invalid.Details
	case errors.As(err, &syntax):
		f.Message, f.Details = syntax.Message, []app.Detail{{Path: "/", Errors: []string{syntax.Details}}}
	default:
		f.Message = err.Error()
	}
	return f
}

// check parses the definitions of files and holds them against each other.
func (e *env) check(files []string, opts app.Options) ([]definition, []finding, error) {
	var definitions []definition
	var findings []finding
	all := map[app.ID]*app.App{}
	var ids []app.ID
	for _, file := range files {
		list, err := e.read(file)
		var mistake *UsageError
		if errors.As(err, &mistake) {
			return nil, nil, err
		}
		if err != nil {
			findings = append(findings, found(file, "", err))
			continue
		}
		for _, d := range list {
			d.app, err = app.Parse(d.raw, opts)
			if err == nil && all[d.app.ID] != nil {
				err = &app.ValidationError{Message: "Object is not valid", Details: []app.Detail{{Path: "/id", Errors: []string{"is defined twice"}}}}
			}
			if err != nil {
				findings = append(findings, found(file, claimedID(d.raw), err))
				continue
			}
			all[d.app.ID] = d.app
			ids = append(ids, d.app.ID)
			definitions = append(definitions, d)
			findings = append(findings, found(file, d.app.ID, nil))
		}
	}
	if err := app.ValidateAll(all, ids); err != nil {
		findings = append(findings, found(strings.Join(files, ", "), "", err))
	}
	return definitions, findings, nil
}

// claimedID is the id that a broken definition gives itself.
func claimedID(raw []byte) app.ID {
	var d struct{ ID app.ID }
	if json.Unmarshal(raw, &d) != nil {
		return ""
	}
	return d.ID
}

func valid(findings []finding) bool {
	return !slices.ContainsFunc(findings, func(f finding) bool { return !f.Valid })
}

func (e *env) printFindings(findings []finding) error {
	if e.json {
		return e.printJSON(findings)
	}
	for _, f := range findings {
		name := f.File
		if f.App != "" {
			name += " " + string(f.App)
		}
		if f.Valid {
			fmt.Fprintf(e.out, "%s: valid\n", name)
			continue
		}
		fmt.Fprintf(e.out, "%s: %s\n", name, f.Message)
		for _, d := range f.Details {
			fmt.Fprintf(e.out, "  %s: %s\n", d.Path, strings.Join(d.Errors, "; "))
		}
	}
	return nil
}

func validate(e *env) error {
	if len(e.args) == 0 {
		return usage("usage: %s [flags] FILE...", e.cli.Command.HelpName)
	}
	opts, err := offlineOptions(e.cli)
	if err != nil {
		return err
	}
	_, findings, err := e.check(e.args, opts)
	if err != nil {
		return err
	}
	if err := e.printFindings(findings); err != nil {
		return err
	}
	if !valid(findings) {
		return ErrInvalid
	}
	return nil
}
