// Package command holds the subcommands of dvdi-framework with which a person
// or a script operates a running framework: they validate and deploy apps, show
// what runs, and release volumes.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/client"
)

// UsageError is a mistake in the arguments of a subcommand.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

func usage(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// ErrInvalid means that a file holds no valid definitions; what is wrong has
// been printed.
var ErrInvalid = errors.New("not all definitions are valid")

// ErrDiffers means that a file and the running app are not the same; the
// differences have been printed.
var ErrDiffers = errors.New("the definitions differ")

// DeploymentError means that a deployment ended without success or not in time.
type DeploymentError struct {
	ID     string
	Reason string
}

func (e *DeploymentError) Error() string { return "deployment " + e.ID + " " + e.Reason }

// Commands returns the subcommands. They end early when the context of the run
// ends.
func Commands() []*cli.Command {
	commands := []*cli.Command{
		{Name: "app", Usage: "validate, compare, deploy and show apps", Subcommands: []*cli.Command{
			{Name: "validate", Usage: "check definitions without a running framework", ArgsUsage: "FILE...",
				Flags: append(definitionFlags(), output()), Action: run(validate)},
			{Name: "diff", Usage: "compare definitions with what runs (exit code 1: they differ)", ArgsUsage: "FILE",
				Flags: connection(), Action: run(diff)},
			{Name: "deploy", Usage: "make definitions the current ones", ArgsUsage: "FILE", Action: run(deploy),
				Flags: append(connection(),
					&cli.BoolFlag{Name: "wait", Usage: "show progress and wait until the deployment has ended"},
					&cli.BoolFlag{Name: "force", Usage: "cancel deployments that change the same apps"},
					&cli.DurationFlag{Name: "timeout", Usage: "longest `TIME` to wait, 0 for no bound"})},
			{Name: "list", Usage: "list apps", Action: run(listApps),
				Flags: append(connection(), &cli.StringFlag{Name: "label", Usage: "only apps that this `SELECTOR` of labels fits"})},
			{Name: "show", Usage: "show an app, its tasks and what keeps it waiting", ArgsUsage: "ID",
				Flags: connection(), Action: run(showApp)},
		}},
		{Name: "volume", Usage: "show, release and keep exclusive volumes", Subcommands: []*cli.Command{
			{Name: "list", Usage: "list who holds which exclusive volume, which are to be removed, the Mesos persistent volumes, and what of those is left over", Flags: connection(), Action: run(listVolumes)},
			{Name: "show", Usage: "show who holds a volume and what would end that, or who has a Mesos persistent volume", ArgsUsage: "[DRIVER] NAME | PERSISTENCE-ID",
				Flags: connection(), Action: run(showVolume)},
			{Name: "classes", Usage: "list the volume classes that apps may name", Flags: connection(), Action: run(listClasses)},
			{Name: "release", Usage: "end the claim on a volume: its holder must be dead, or data is lost", ArgsUsage: "DRIVER NAME",
				Flags: append(connection(), &cli.BoolFlag{Name: "force", Usage: "confirm that the holder is dead"}), Action: run(releaseVolume)},
			{Name: "keep", Usage: "keep a volume that is to be removed because its class says delete", ArgsUsage: "DRIVER NAME",
				Flags: connection(), Action: run(keepVolume)},
		}},
		{Name: "status", Usage: "show how the framework is doing", Flags: connection(), Action: run(status)},
	}
	for _, c := range commands {
		prepare(c)
	}
	return commands
}

// prepare has a command and those below it report mistakes as errors of this
// package, instead of printing their usage.
func prepare(c *cli.Command) {
	c.HideHelpCommand = true
	c.OnUsageError = func(c *cli.Context, err error, _ bool) error {
		return usage("%v; see %s --help", err, c.Command.HelpName)
	}
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
	if len(c.Subcommands) > 0 {
		c.Action = func(c *cli.Context) error {
			if c.Args().Present() {
				return usage("there is no command %q; see %s --help", c.Args().First(), c.Command.HelpName)
			}
			return cli.ShowSubcommandHelp(c)
		}
	}
}

const (
	formatTable = "table"
	formatJSON  = "json"
)

func output() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: formatTable, Usage: "`FORMAT` of what is printed: table or json"}
}

// connection are the flags of all subcommands that call the API.
func connection() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "url", Value: "http://127.0.0.1:8080", Usage: "`URL` of the framework's API", EnvVars: []string{"DVDI_URL"}},
		&cli.StringFlag{Name: "credentials", Usage: "`USER:PASSWORD` for the API; prefer the environment, which other users do not see", EnvVars: []string{"DVDI_CREDENTIALS"}},
		&cli.StringFlag{Name: "ca", Usage: "`FILE` with the certificates to trust instead of the system's", EnvVars: []string{"DVDI_CA"}},
		output(),
	}
}

// env is what a subcommand works with.
type env struct {
	ctx    context.Context
	cli    *cli.Context
	args   []string
	in     io.Reader
	out    io.Writer
	errOut io.Writer
	json   bool
}

// run makes an action of a subcommand: it checks what all have in common.
func run(action func(*env) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		e := &env{ctx: c.Context, cli: c, args: c.Args().Slice(), in: os.Stdin, out: c.App.Writer, errOut: c.App.ErrWriter}
		if c.App.Reader != nil {
			e.in = c.App.Reader
		}
		switch c.String("output") {
		case formatTable:
		case formatJSON:
			e.json = true
		default:
			return usage("--output %q is neither %s nor %s", c.String("output"), formatTable, formatJSON)
		}
		for _, a := range e.args {
			if strings.HasPrefix(a, "-") && a != "-" {
				return usage("%s stands after an argument: flags come first, as in %s %s ...", a, c.Command.HelpName, a)
			}
		}
		return action(e)
	}
}

// api connects to the framework.
func (e *env) api() (*client.Client, error) {
	cfg := client.Config{URL: e.cli.String("url"), CA: e.cli.String("ca")}
	if credentials := e.cli.String("credentials"); credentials != "" {
		var ok bool
		if cfg.User, cfg.Password, ok = strings.Cut(credentials, ":"); !ok {
			return nil, usage("--credentials: they are not of the form USER:PASSWORD")
		}
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, usage("--url, --ca: %v", err)
	}
	return c, nil
}

// exactly demands a number of arguments.
func (e *env) exactly(n int) error {
	if len(e.args) != n {
		return usage("usage: %s [flags] %s", e.cli.Command.HelpName, e.cli.Command.ArgsUsage)
	}
	return nil
}

// list prints what the API answers to a command without arguments: as JSON, or as
// a table with one row for each item.
func list[T any](e *env, fetch func(*client.Client) ([]T, error), header []string, row func(T) []string) error {
	if err := e.exactly(0); err != nil {
		return err
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	items, err := fetch(api)
	if err != nil {
		return err
	}
	rows := make([][]string, 0, len(items))
	for _, item := range items {
		rows = append(rows, row(item))
	}
	return e.print(items, header, rows)
}

// print writes v as JSON, or as a table with the given header and rows.
func (e *env) print(v any, header []string, rows [][]string) error {
	if e.json {
		return e.printJSON(v)
	}
	return e.table(header, rows)
}

func (e *env) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	_, err = fmt.Fprintf(e.out, "%s\n", b)
	return err
}

func (e *env) table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	if len(header) > 0 {
		rows = append([][]string{header}, rows...)
	}
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// age renders how long ago something was, as people say it.
func age(t time.Time) string {
	d := time.Since(t).Round(time.Second)
	switch {
	case t.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
