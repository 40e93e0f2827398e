// Package explain holds the subcommands that say why instances wait: explain
// asks a running framework, replay makes logged decisions again.
package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
)

// UsageError is a mistake in the arguments of a subcommand.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

func usage(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Commands returns the subcommands.
func Commands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "explain", ArgsUsage: "APP", Action: explain,
			Usage: "say for each waiting instance of an app what it waits for, and which agent comes closest",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "url", Value: "http://127.0.0.1:8080", Usage: "`URL` of the framework's API", EnvVars: []string{"DVDI_URL"}},
				&cli.StringFlag{Name: "credentials", Usage: "`USER:PASSWORD` for the API; prefer the environment", EnvVars: []string{"DVDI_CREDENTIALS"}},
				&cli.StringFlag{Name: "ca", Usage: "`FILE` with the certificates to trust instead of the system's", EnvVars: []string{"DVDI_CA"}},
				output(),
			},
		},
		{
			Name: "replay", ArgsUsage: "FILE", Action: replay,
			Usage: "make the decisions in a log of --decision_log again and say whether the plans are the same",
			Description: "FILE may be - for standard input. The command fails if a plan differs or a line cannot be read.\n" +
				"Nothing is contacted and nothing changed.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "instance", Usage: "show of each decision only what it says of the instance with this `ID`"},
				output(),
			},
		},
	}
}

func output() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT` of what is printed: text or json"}
}

// wantsJSON reads --output.
func wantsJSON(c *cli.Context) (bool, error) {
	switch format := c.String("output"); format {
	case "text", "table":
		return false, nil
	case "json":
		return true, nil
	default:
		return false, usage("--output %q is neither text nor json", format)
	}
}

func argument(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 || strings.HasPrefix(c.Args().First(), "-") && c.Args().First() != "-" {
		return "", usage("usage: %s [flags] %s (flags come first)", c.Command.HelpName, c.Command.ArgsUsage)
	}
	return c.Args().First(), nil
}

func explain(c *cli.Context) error {
	name, err := argument(c)
	if err != nil {
		return err
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	id, err := app.ResolveID(name, app.Root)
	if err != nil {
		return usage("%q is no app id: %v", name, err)
	}
	api, err := connect(c)
	if err != nil {
		return err
	}
	defer api.Close()
	queued, err := waitingOf(c.Context, api, id)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(c.App.Writer, queued)
	}
	return print(c.App.Writer, id, queued)
}

func connect(c *cli.Context) (*client.Client, error) {
	cfg := client.Config{URL: c.String("url"), CA: c.String("ca")}
	if credentials := c.String("credentials"); credentials != "" {
		var ok bool
		if cfg.User, cfg.Password, ok = strings.Cut(credentials, ":"); !ok {
			return nil, usage("--credentials: they are not of the form USER:PASSWORD")
		}
	}
	api, err := client.New(cfg)
	if err != nil {
		return nil, usage("--url, --ca: %v", err)
	}
	return api, nil
}

// waitingOf returns the queue's entry of an app, nil if nothing of it waits.
func waitingOf(ctx context.Context, api *client.Client, id app.ID) (*client.Queued, error) {
	queue, err := api.Queue(ctx)
	if err != nil {
		return nil, err
	}
	for i := range queue {
		if queue[i].App.ID == id {
			return &queue[i], nil
		}
	}
	// The difference between an app that runs and a misspelt one matters.
	if _, err := api.App(ctx, id); err != nil {
		return nil, err
	}
	return nil, nil
}

func printJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// print writes for people. Instances of which the same is to be said share
// their lines: there may be hundreds.
func print(w io.Writer, id app.ID, q *client.Queued) error {
	if q == nil {
		_, err := fmt.Fprintf(w, "nothing of %s waits\n", id)
		return err
	}
	errs := []error{printf(w, "%s: %d waiting since %s\n", id, q.Count, q.Since.Time().Format(time.RFC3339))}
	if !q.Delay.Overdue {
		errs = append(errs, printf(w, "delayed for another %d s after failures; the delay ends early with DELETE /v2/queue%s/delay\n", q.Delay.TimeLeftSeconds, id))
	}
	for _, g := range grouped(q) {
		errs = append(errs, g.print(w))
	}
	return errors.Join(errs...)
}

func printf(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

// group are instances that wait for the same reasons.
type group struct {
	client.Waiting
	ids []string
}

func grouped(q *client.Queued) []*group {
	var order []*group
	known := map[string]*group{}
	for _, w := range q.Waiting {
		plain := w
		plain.InstanceID = ""
		key := fmt.Sprintf("%+v", plain)
		if w.Until != nil {
			key += w.Until.String()
		}
		g := known[key]
		if g == nil {
			g = &group{Waiting: w}
			known[key] = g
			order = append(order, g)
		}
		g.ids = append(g.ids, w.InstanceID)
	}
	return order
}

const mostIDs = 3

func (g *group) print(w io.Writer) error {
	ids := strings.Join(g.ids[:min(len(g.ids), mostIDs)], ", ")
	if more := len(g.ids) - mostIDs; more > 0 {
		ids += fmt.Sprintf(" and %d more", more)
	}
	errs := []error{printf(w, "\n%s\n  %s\n", ids, g.Text)}
	for _, r := range g.Reasons {
		errs = append(errs, printf(w, "  %-32s %d agents\n", r.Reason, r.Agents))
	}
	if g.Best != "" {
		errs = append(errs, printf(w, "  closest: %s, which lacks %s\n", g.Best, strings.Join(g.Lacks, "; ")))
	}
	if g.Until != nil {
		errs = append(errs, printf(w, "  by time alone until %s\n", g.Until.Time().Format(time.RFC3339)))
	}
	return errors.Join(errs...)
}
