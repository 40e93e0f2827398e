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
	// SIGTERM and SIGINT end the waiting, not the writing of the ledger. A
	// reader that went away must give an error, not a death by SIGPIPE.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A second signal ends the program whatever it waits for.
	context.AfterFunc(ctx, stop)
	signal.Ignore(syscall.SIGPIPE)

	t := terminal{stdout: os.Stdout, stderr: os.Stderr, stdin: os.Stdin, logs: logWriter{to: os.Stderr}}
	return t.exit(execute(ctx, &t, os.Args[1:]))
}
