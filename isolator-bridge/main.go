// Command isolator-bridge is the daemon beside a Mesos agent that does for its
// volumes what a program that lives for one call cannot: it settles calls
// without an answer, tries owed unmounts again, finds mounts that come late and
// volumes that no container uses any more, and gives containerizers the life
// cycle of an isolator over a socket.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A second signal ends the program whatever it waits for.
	context.AfterFunc(ctx, stop)
	if err := newApp().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "isolator-bridge:", err)
		return 1
	}
	return 0
}

func newApp() *cli.App {
	return &cli.App{
		Name:  "isolator-bridge",
		Usage: "keep an agent's volumes right",
		Description: "Settings come from flags, from the environment (DVDI_BRIDGE_ and the flag's name in capitals; those that dvdcli has too " +
			"also from its DVDCLI_ variables), and from a YAML file, in this order.",
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("unknown command %q; see `isolator-bridge help`", c.Args().First())
			}
			return fmt.Errorf("no command; see `isolator-bridge help`")
		},
		Commands: append([]*cli.Command{
			{Name: "serve", Usage: "watch over the volumes of one run directory", Flags: flags(), Action: serve},
			{Name: "version", Usage: "print the version", Action: func(c *cli.Context) error {
				_, err := fmt.Fprintf(c.App.Writer, "isolator-bridge %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}},
		}, remoteCommands()...),
	}
}
