// Command demo shows, on one machine and in about a minute, what the project is
// for: a task with a volume loses its host and comes back elsewhere with its
// data, and at no time do two tasks have the volume.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

func main() {
	embeddedmesos.Main()
	os.Exit(run(os.Args))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var d demo
	c := &cli.App{
		Name:            "demo",
		Usage:           "run a stateful task on an embedded Mesos and lose its host",
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bin", Value: "bin", Usage: "directory with dvdcli, dvdi-framework and volume-plugin", Destination: &d.bin},
			&cli.StringFlag{Name: "app", Value: "examples/hello-volume.json", Usage: "app JSON to post", Destination: &d.appFile},
			&cli.BoolFlag{Name: "keep", Usage: "leave everything running until Ctrl-C", Destination: &d.keep},
			&cli.BoolFlag{Name: "verbose", Usage: "print the logs of the framework and the plugins", Destination: &d.verbose},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("unexpected argument %q; see --help", c.Args().First())
			}
			return d.run(c.Context)
		},
		ExitErrHandler: func(*cli.Context, error) {},
	}
	switch err := c.RunContext(ctx, args); {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; everything was stopped")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "demo: failed:", err)
		return 1
	}
}
