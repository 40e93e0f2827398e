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
		if p, ok := v.(client.PersistentVolume); ok {
			return []string{"", p.ID, stateOf(p), p.Hostname, string(p.App), ""}
		}
		c := v.(client.Claim)
		return []string{c.Driver, c.Name, c.State, c.Hostname, joinIDs(c.Apps), since(c)}
	})
}

// volumes are each a client.Claim or, after those, a client.PersistentVolume: a
// program that reads the list finds the volumes of drivers where they always were.
func (e *env) volumes(api *client.Client) ([]any, error) {
	claims, err := api.Claims(e.ctx)
	if err != nil {
		return nil, err
	}
	persistent, err := api.PersistentVolumes(e.ctx)
	if err != nil {
		return nil, err
	}
	out := make([]any, 0, len(claims)+len(persistent))
	for _, c := range claims {
		out = append(out, c)
	}
	for _, p := range persistent {
		out = append(out, p)
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
		return usage("usage: %s [flags] [DRIVER] NAME", e.cli.Command.HelpName)
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	claims, err := api.Claims(e.ctx)
	if err != nil {
		return err
	}
	name := e.args[len(e.args)-1]
	claims = slices.DeleteFunc(claims, func(c client.Claim) bool {
		return c.Name != name || len(e.args) == 2 && c.Driver != e.args[0]
	})
	if len(claims) == 0 {
		return &client.Error{Status: 404, Message: fmt.Sprintf("Nobody holds a volume %s. If its kind binds it to a host or zone, `dvdi-framework explain` of its app says so", strings.Join(e.args, " "))}
	}
	if e.json {
		return e.printJSON(claims)
	}
	for _, c := range claims {
		rows := [][]string{
			{"volume", c.Name}, {"driver", c.Driver}, {"state", c.State}, {"access", c.Access},
			{"host", c.Hostname}, {"agent", c.AgentID}, {"apps", joinIDs(c.Apps)},
			{"instances", strings.Join(c.Instances, ",")}, {"epoch", strconv.FormatUint(c.Epoch, 10)},
			{"age", since(c)},
		}
		if r := c.Removal; r != nil {
			rows = append(rows, []string{"to be removed", r.Why})
			if r.Problem != "" {
				rows = append(rows, []string{"not removed yet", r.Problem})
			}
		}
		if err := e.table(nil, append(rows, []string{"explanation", c.Text})); err != nil {
			return err
		}
	}
	return nil
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
