// Command dvdcli calls volume drivers for the Mesos agent's docker/volume
// isolator and for people. It is a drop-in for dvdcli 0.2.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(run()) }

func run() int {
	// A reader that went away must give an error, not a death by SIGPIPE.
	signal.Ignore(syscall.SIGPIPE)

	t := terminal{stdout: os.Stdout, stderr: os.Stderr, stdin: os.Stdin, logs: logWriter{to: os.Stderr}}
	return t.exit(execute(context.Background(), &t, os.Args[1:]))
}
