package command

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
)

func listVolumes(e *env) error {
	if err := e.exactly(0); err != nil {
		return err
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
	rows := make([][]string, 0, len(claims))
	for _, c := range claims {
		rows = append(rows, []string{c.Driver, c.Name, c.State, c.Hostname, joinIDs(c.Apps), since(c)})
	}
	return e.print(claims, []string{"DRIVER", "NAME", "STATE", "HOST", "APPS", "AGE"}, rows)
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
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.Release(e.ctx, driver, name); err != nil {
		return err
	}
	return e.print(map[string]string{"driver": driver, "name": name, "state": "released"}, nil,
		[][]string{{"released", driver + " " + name}})
}

func keepVolume(e *env) error {
	if err := e.exactly(2); err != nil {
		return err
	}
	driver, name := e.args[0], e.args[1]
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.Keep(e.ctx, driver, name); err != nil {
		return err
	}
	return e.print(map[string]string{"driver": driver, "name": name, "state": "kept"}, nil, [][]string{{"kept", driver + " " + name}})
}

func listClasses(e *env) error {
	if err := e.exactly(0); err != nil {
		return err
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	classes, err := api.VolumeClasses(e.ctx)
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(classes))
	for _, c := range classes {
		var options []string
		for _, key := range slices.Sorted(maps.Keys(c.Options)) {
			options = append(options, key+"="+c.Options[key])
		}
		rows = append(rows, []string{c.Name, c.Driver, c.Access, c.Reclaim, strings.Join(options, ",")})
	}
	return e.print(classes, []string{"NAME", "DRIVER", "ACCESS", "RECLAIM", "OPTIONS"}, rows)
}
