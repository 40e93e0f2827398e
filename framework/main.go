// Command dvdi-framework is a Mesos framework with Marathon's REST API that runs
// stateful apps and keeps them where their volumes are.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/command"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/explain"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// version is set by the linker.
var version = "dev"

func main() {
	embeddedmesos.Main() // does not return in the executors of embedded agents
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run runs the command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a := &cli.App{
		Name:  "dvdi-framework",
		Usage: "run stateful apps on Mesos, with Marathon's API",
		Description: "Without a command it runs the framework; the commands operate one that runs.\n" +
			"Every flag can be given in the environment as DVDI_ and its name in upper case.",
		Version:         version,
		Flags:           config.Flags(),
		Commands:        slices.Concat(command.Commands(), explain.Commands(), maintenanceCommands()),
		HideHelpCommand: true,
		Writer:          stdout,
		ErrWriter:       stderr,
		// The exit code is decided here, not inside the library.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return &config.Error{Err: config.Explain(err)}
		},
		Action: func(c *cli.Context) error {
			cfg, err := config.FromCLI(c)
			if err != nil {
				return err
			}
			if c.Bool("new-framework-id") {
				return newFrameworkID(ctx, cfg, c.Bool(confirmFlag), stdout, stderr)
			}
			return serve(ctx, cfg, stderr)
		},
	}
	for _, c := range a.Commands {
		if c.OnUsageError == nil { // the library would print its help and tell of no kind of error
			c.OnUsageError = wrongUsage
		}
	}
	err := a.RunContext(ctx, args)
	if err != nil {
		fmt.Fprintf(stderr, "dvdi-framework: %v\n", err)
	}
	return exitCode(err)
}

// wrongUsage tells of a command's flags what is wrong with them.
func wrongUsage(c *cli.Context, err error, _ bool) error {
	return &config.Error{Err: fmt.Errorf("%w; see %s --help", config.Explain(err), c.Command.HelpName)}
}
