package command

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
)

func listVolumes(e *env) error {
	return list(e, e.volumes, []string{"DRIVER", "NAME", "STATE", "HOST", "APPS", "AGE"}, func(v any) []string {
		switch v := v.(type) {
		case client.PersistentVolume:
			return []string{"", v.ID, stateOf(v), v.Hostname, string(v.App), ""}
		case client.Leftover:
			return []string{"", strings.Join(v.PersistenceIDs, ","), "left over", v.Hostname, "", ""}
		default:
			c := v.(client.Claim)
			return []string{c.Driver, c.Name, c.State, c.Hostname, joinIDs(c.Apps), since(c)}
		}
	})
}

// volumes are each a client.Claim or, after those, a client.PersistentVolume or a
// client.Leftover: a program that reads the list finds the volumes of drivers where
// they always were.
func (e *env) volumes(api *client.Client) ([]any, error) {
	known, err := api.Volumes(e.ctx)
	if err != nil {
		return nil, err
	}
	out := make([]any, 0, len(known.Claims)+len(known.Persistent)+len(known.Leftovers))
	for _, c := range known.Claims {
		out = append(out, c)
	}
	for _, p := range known.Persistent {
		out = append(out, p)
	}
	for _, l := range known.Leftovers {
		out = append(out, l)
	}
	return out, nil
}

// stateOf says what a Mesos persistent volume is, where volumes of drivers have
// the state of their claim.
func stateOf(p client.PersistentVolume) string {
	if p.Shared {
		return "persistent, shared"
	}
	return "persistent"
}

func since(c client.Claim) string {
	if c.Since == nil {
		return ""
	}
	return age(c.Since.Time())
}

func joinIDs(ids []app.ID) string {
	var out []string
	for _, id := range ids {
		out = append(out, string(id))
	}
	return strings.Join(out, ",")
}

func showVolume(e *env) error {
	if len(e.args) != 1 && len(e.args) != 2 {
		return usage("usage: %s [flags] [DRIVER] NAME, or a persistence id", e.cli.Command.HelpName)
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	all, err := e.volumes(api)
	if err != nil {
		return err
	}
	named := slices.DeleteFunc(all, func(v any) bool { return !isNamed(v, e.args) })
	if len(named) == 0 {
		return &client.Error{Status: 404, Message: fmt.Sprintf("Nobody holds a volume %s. If its kind binds it to a host or zone, `dvdi-framework explain` of its app says so", strings.Join(e.args, " "))}
	}
	if e.json {
		return e.printJSON(named)
	}
	for _, v := range named {
		if err := e.table(nil, factsOf(v)); err != nil {
			return err
		}
	}
	return nil
}

// isNamed tells whether args name the volume: a driver's by its name with or
// without the driver, Mesos's by its persistence id.
func isNamed(v any, args []string) bool {
	name := args[len(args)-1]
	switch v := v.(type) {
	case client.Claim:
		return v.Name == name && (len(args) == 1 || v.Driver == args[0])
	case client.PersistentVolume:
		return len(args) == 1 && v.ID == name
	case client.Leftover:
		return len(args) == 1 && slices.Contains(v.PersistenceIDs, name)
	default:
		return false
	}
}

// factsOf are what there is to tell about a volume.
func factsOf(v any) [][]string {
	switch v := v.(type) {
	case client.PersistentVolume:
		return [][]string{
			{"volume", v.ID}, {"state", stateOf(v)}, {"host", v.Hostname}, {"agent", v.AgentID}, {"apps", string(v.App)},
			{"container path", v.ContainerPath}, {"instances", strings.Join(v.Instances, ",")},
		}
	case client.Leftover:
		return [][]string{
			{"volume", strings.Join(v.PersistenceIDs, ",")}, {"state", "left over"}, {"host", v.Hostname}, {"agent", v.AgentID},
			{"instances", v.InstanceID}, {"explanation", v.Text},
		}
	default:
		return claimFacts(v.(client.Claim))
	}
}

func claimFacts(c client.Claim) [][]string {
	rows := [][]string{
		{"volume", c.Name}, {"driver", c.Driver}, {"state", c.State}, {"access", c.Access},
		{"host", c.Hostname}, {"agent", c.AgentID}, {"apps", joinIDs(c.Apps)},
		{"instances", strings.Join(c.Instances, ",")}, {"epoch", strconv.FormatUint(c.Epoch, 10)},
		{"age", since(c)},
	}
	if c.Zone != "" {
		rows = append(rows, []string{"zone", c.Zone})
	}
	if r := c.Removal; r != nil {
		rows = append(rows, []string{"to be removed", r.Why})
		if r.Problem != "" {
			rows = append(rows, []string{"not removed yet", r.Problem})
		}
	}
	return append(rows, []string{"explanation", c.Text})
}

func releaseVolume(e *env) error {
	if err := e.exactly(2); err != nil {
		return err
	}
	driver, name := e.args[0], e.args[1]
	if !e.cli.Bool("force") {
		return usage("releasing volume %s of driver %s lets another task write to it. Make sure that its holder is dead, then repeat with --force", name, driver)
	}
	return e.setVolume(driver, name, "released", (*client.Client).Release)
}

func keepVolume(e *env) error {
	if err := e.exactly(2); err != nil {
		return err
	}
	return e.setVolume(e.args[0], e.args[1], "kept", (*client.Client).Keep)
}

// setVolume has the framework bring a volume into a state by a call, and prints
// that it did.
func (e *env) setVolume(driver, name, state string, call func(c *client.Client, ctx context.Context, driver, name string) error) error {
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	if err := call(api, e.ctx, driver, name); err != nil {
		return err
	}
	return e.print(map[string]string{"driver": driver, "name": name, "state": state}, nil, [][]string{{state, driver + " " + name}})
}

func listClasses(e *env) error {
	fetch := func(api *client.Client) ([]app.VolumeClass, error) { return api.VolumeClasses(e.ctx) }
	return list(e, fetch, []string{"NAME", "DRIVER", "ACCESS", "RECLAIM", "OPTIONS"}, func(c app.VolumeClass) []string {
		var options []string
		for _, key := range slices.Sorted(maps.Keys(c.Options)) {
			options = append(options, key+"="+c.Options[key])
		}
		return []string{c.Name, c.Driver, c.Access, c.Reclaim, strings.Join(options, ",")}
	})
}
