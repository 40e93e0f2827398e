package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// The flags. Each has an environment variable: DVDCLI_ and its name in capitals,
// dashes as underscores.
const (
	flagDriver   = "volumedriver"
	flagName     = "volumename"
	flagOpts     = "volumeopts"
	flagExplicit = "explicitcreate"
	flagStrict   = "strict"
	flagForce    = "force"
	flagOutput   = "output"
	flagVerbose  = "verbose"
	flagDeadline = "deadline"
	flagTimeout  = "call-timeout"
	flagMargin   = "call-margin"
	flagRunDir   = "run-dir"
	flagStateDir = "state-dir"
	flagHostDir  = "host-dir"
	flagPlugins  = "plugin-dirs"
	flagDocker   = "docker-root"
	flagHolder   = "holder"
	flagPolicy   = "policy"
	flagYes      = "yes"
	flagNow      = "now"
	flagShell    = "shell"
)

// env is the environment variable that stands for a flag.
func env(name string) []string {
	return []string{"DVDCLI_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
}

func stringFlag(name, value, usage string) cli.Flag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func boolFlag(name, usage string, aliases ...string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name), Aliases: aliases, DisableDefaultText: true}
}

// timeFlag's standard tells people what no value means.
func timeFlag(name string, value time.Duration, standard, usage string) cli.Flag {
	return &cli.DurationFlag{Name: name, Value: value, DefaultText: standard, Usage: usage, EnvVars: env(name)}
}

// flagsEverywhere go with every command.
func flagsEverywhere() []cli.Flag {
	return []cli.Flag{
		stringFlag(flagOutput, "text", "`format` of the result: text or json"),
		boolFlag(flagVerbose, "tell on stderr what is asked of drivers"),
		stringFlag(flagRunDir, "", "`directory` of what is mounted, lost at a reboot (default /run/dvdi for root)"),
		stringFlag(flagStateDir, "", "`directory` of what survives a reboot (default /var/lib/dvdi for root)"),
		stringFlag(flagHostDir, "", "`directory` in which the ledgers of one user on this host know of each other; users do not know of each other's (default /run/dvdi/ledgers for root)"),
		stringFlag(flagPlugins, "", "`directories` with plugin sockets and specs, separated by colons (default: Docker's)"),
		stringFlag(flagDocker, "", "data `directory` of the Docker daemon, for its managed plugins (default /var/lib/docker; none with --plugin-dirs)"),
		stringFlag(flagHolder, "", "`name` of who holds the volume (default: the calling agent, else the user)"),
		stringFlag(flagPolicy, engine.DefaultPolicyFile, "policy `file` of this agent"),
	}
}

// flagsForCalls go with commands that call drivers; deadline is the default for
// the whole command.
func flagsForCalls(deadline time.Duration) []cli.Flag {
	return append(flagsEverywhere(),
		stringFlag(flagDriver, "", "volume driver `name`"),
		timeFlag(flagDeadline, deadline, "", "`time` for the whole command"),
		timeFlag(flagTimeout, 0, "90s for create and mount, else 1m", "`time` for one call to a driver"),
		timeFlag(flagMargin, 0, "10s", "`time` after which a driver that did not answer in its time is taken to have finished"),
	)
}

func flagsForVolume(deadline time.Duration, more ...cli.Flag) []cli.Flag {
	return append(append(flagsForCalls(deadline), stringFlag(flagName, "", "volume `name`")), more...)
}

func optsFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: flagOpts, Usage: "volume option `key=value`, may be repeated", EnvVars: env(flagOpts), KeepSpace: true}
}
