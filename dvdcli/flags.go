package main

import (
	"time"

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

func stringFlag(name, value, usage string) option {
	return option{name: name, value: value, usage: usage}
}

func boolFlag(name, usage string) option { return option{name: name, value: false, usage: usage} }

func timeFlag(name string, value time.Duration, usage string) option {
	return option{name: name, value: value, usage: usage}
}

// flagsEverywhere go with every command.
func flagsEverywhere() []option {
	return []option{
		stringFlag(flagOutput, "text", "`format` of the result: text or json"),
		boolFlag(flagVerbose, "tell on stderr what is asked of drivers"),
		stringFlag(flagRunDir, "", "`directory` of what is mounted, lost at a reboot (default /run/dvdi for root)"),
		stringFlag(flagStateDir, "", "`directory` of what survives a reboot (default /var/lib/dvdi for root)"),
		stringFlag(flagHostDir, "", "`directory` in which the ledgers of this host know of each other"),
		stringFlag(flagPlugins, "", "`directories` with plugin sockets and specs, separated by colons (default: Docker's)"),
		stringFlag(flagDocker, "", "data `directory` of the Docker daemon, for its managed plugins (default /var/lib/docker; none with --plugin-dirs)"),
		stringFlag(flagHolder, "", "`name` of who holds the volume (default: the calling agent, else the user)"),
		stringFlag(flagPolicy, engine.DefaultPolicyFile, "policy `file` of this agent"),
	}
}

// flagsForCalls go with commands that call drivers; deadline is the default for
// the whole command.
func flagsForCalls(deadline time.Duration) []option {
	return append(flagsEverywhere(),
		stringFlag(flagDriver, "", "volume driver `name`"),
		timeFlag(flagDeadline, deadline, "`time` for the whole command"),
		timeFlag(flagTimeout, 0, "`time` for one call to a driver (default: Docker's, 2m for create and mount, else 1m)"),
		timeFlag(flagMargin, 0, "`time` after which a driver that did not answer in its time is taken to have finished (default 10s)"),
	)
}

func flagsForVolume(deadline time.Duration, more ...option) []option {
	return append(append(flagsForCalls(deadline), stringFlag(flagName, "", "volume `name`")), more...)
}

func optsFlag() option {
	return option{name: flagOpts, value: []string(nil), usage: "volume option `key=value`, may be repeated"}
}
