// Command isolator-bridge is the daemon beside a Mesos agent that does for its
// volumes what a program that lives for one call cannot: it settles calls
// without an answer, tries owed unmounts again, and finds mounts that come late.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/dockerplugin"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/server"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := newApp().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "isolator-bridge:", err)
		return 1
	}
	return 0
}

// The flags that name what the bridge shares with dvdcli have dvdcli's
// environment variables, so that one environment file serves both.
const (
	flagRunDir   = "run-dir"
	flagStateDir = "state-dir"
	flagHostDir  = "host-dir"
	flagPlugins  = "plugin-dirs"
	flagPolicy   = "policy"
	flagTimeout  = "call-timeout"
	flagMargin   = "call-margin"
	flagInterval = "interval"
)

func shared(name string) []string {
	return []string{"DVDCLI_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

func newApp() *cli.App {
	return &cli.App{
		Name:           "isolator-bridge",
		Usage:          "keep an agent's volumes right",
		HideVersion:    true,
		ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("unknown command %q; see `isolator-bridge help`", c.Args().First())
			}
			return fmt.Errorf("no command; see `isolator-bridge help`")
		},
		Commands: []*cli.Command{
			{Name: "serve", Usage: "watch over the volumes of one run directory", Flags: serveFlags(), Action: serve},
			{Name: "version", Usage: "print the version", Action: func(c *cli.Context) error {
				_, err := fmt.Fprintf(c.App.Writer, "isolator-bridge %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
				return err
			}},
		},
	}
}

func serveFlags() []cli.Flag {
	text := func(name, value, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: shared(name)}
	}
	return []cli.Flag{
		text(flagRunDir, "", "`directory` of what is mounted (default /run/dvdi for root)"),
		text(flagStateDir, "", "`directory` of what survives a reboot (default /var/lib/dvdi for root)"),
		text(flagHostDir, "", "`directory` in which the ledgers of this host know of each other"),
		text(flagPlugins, "", "`directories` with plugin sockets and specs, separated by colons (default: Docker's)"),
		text(flagPolicy, engine.DefaultPolicyFile, "policy `file` of this agent"),
		&cli.DurationFlag{Name: flagTimeout, Usage: "`time` for one call to a driver (default: Docker's)", EnvVars: shared(flagTimeout)},
		&cli.DurationFlag{Name: flagMargin, Usage: "`time` after which a driver that did not answer in its time is taken to have finished", EnvVars: shared(flagMargin)},
		&cli.DurationFlag{Name: flagInterval, Value: 10 * time.Second, Usage: "longest `time` between two looks at the ledger", EnvVars: []string{"BRIDGE_INTERVAL"}},
	}
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	log, err := zap.NewProduction()
	if err != nil {
		return fmt.Errorf("logging: %w", err)
	}
	// Sync fails on pipes and terminals, which need none.
	defer func() { _ = log.Sync() }()

	dirs := ledger.DefaultDirs(os.Geteuid(), os.Getenv).Or(ledger.Dirs{
		Run: c.String(flagRunDir), State: c.String(flagStateDir), Host: c.String(flagHostDir)})
	led, err := ledger.Open(ledger.Config{RunDir: dirs.Run, StateDir: dirs.State})
	if err != nil {
		return err
	}
	policy, policyErr := engine.LoadPolicy(c.String(flagPolicy))
	if policyErr != nil {
		log.Warn("policy not readable", zap.Error(policyErr))
	}
	drivers := dockerplugin.New(dockerplugin.Config{Dirs: splitDirs(c.String(flagPlugins))})
	defer drivers.Close()
	call := c.Duration(flagTimeout)
	eng := engine.New(engine.Config{
		Ledger: led, Drivers: drivers, Mounts: hostmount.New(), Neighbours: ledger.Neighbours{Dir: dirs.Host},
		Policy: policy, PolicyErr: policyErr, Log: log,
		Timeouts: engine.Timeouts{Create: call, Remove: call, Mount: call, Unmount: call, Query: call, Margin: c.Duration(flagMargin)},
	})
	log.Info("starting", zap.String("version", version), zap.String("runDir", dirs.Run), zap.String("stateDir", dirs.State))
	return server.New(server.Config{Engine: eng, Interval: c.Duration(flagInterval), Log: log}).Run(c.Context)
}

func splitDirs(list string) []string {
	if list == "" {
		return nil
	}
	return filepath.SplitList(list)
}
