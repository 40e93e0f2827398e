package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// terminal is where results (stdout) and everything else (stderr) go.
type terminal struct {
	stdout, stderr io.Writer
	stdin          io.Reader
	json           bool
	logs           logWriter
	// until is how long a reader of stdout is waited for; the zero time: as long as
	// it takes.
	until time.Time
}

// result prints a command's result: the value as JSON, or the lines.
func (t *terminal) result(v any, lines ...string) error {
	if t.json {
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		lines = []string{string(data)}
	}
	return t.print(lines...)
}

// readerPatience is the least time that a reader of stdout has, be the deadline
// over or not.
const readerPatience = time.Second

// print writes lines to stdout. A reader that does not read until the deadline is
// given up with volume.Deadline, and the writing with the end of the program.
func (t *terminal) print(lines ...string) error {
	if len(lines) == 0 {
		return nil
	}
	written := make(chan error, 1)
	write := func() {
		_, err := io.WriteString(t.stdout, strings.Join(lines, "\n")+"\n")
		written <- err
	}
	var late <-chan time.Time
	if t.until.IsZero() {
		write()
	} else {
		timer := time.NewTimer(max(time.Until(t.until), readerPatience))
		defer timer.Stop()
		late = timer.C
		go write()
	}
	select {
	case err := <-written:
		if err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	case <-late:
		return &volume.Error{Kind: volume.Deadline, Op: "writing the result", Message: "nobody reads it", Hint: "what was done stays done"}
	}
}

// say tells people something that is no result. Whether anybody listens does
// not matter, nor is it waited for.
func (t *terminal) say(format string, args ...any) {
	text := volume.Secrets(nil).Redact(fmt.Sprintf(format, args...))
	_, _ = fmt.Fprintln(&t.logs, "dvdcli: "+text) // never fails
}

// notes tells what is worth knowing about a result; as JSON they are part of it.
func (t *terminal) notes(notes []string) {
	if t.json {
		return
	}
	for _, n := range notes {
		t.say("note: %s", n)
	}
}

// The exit statuses. The isolator knows zero and non-zero; scripts may tell
// more apart.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnreachable = 4
	exitUnsettled   = 5
	exitForbidden   = 6
	exitInUse       = 7
	exitLedger      = 8
	exitFindings    = 9
)

// exitStatuses tells people what they mean.
var exitStatuses = []struct {
	status  int
	meaning string
}{
	{exitOK, "done"},
	{exitFailure, "failed, such as refused by the driver"},
	{exitUsage, "a mistake on the command line"},
	{exitNotFound, "the volume does not exist, or is not mounted"},
	{exitUnreachable, "the driver is unknown or cannot be reached"},
	{exitUnsettled, "no answer in time; the driver may still be working"},
	{exitForbidden, "forbidden by the agent's policy, or the policy cannot be read"},
	{exitInUse, "somebody else has the volume"},
	{exitLedger, "the ledger cannot be used"},
	{exitFindings, "a check found something"},
}

// errUsage marks mistakes on the command line.
var errUsage = errors.New("see `dvdcli help`")

// errFindings says that a check found something; it was printed already.
var errFindings = errors.New("problems found")

// exitStatus is the one place where errors become exit statuses.
func exitStatus(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errFindings):
		return exitFindings
	}
	switch volume.KindOf(err) {
	case volume.Invalid:
		return exitUsage
	case volume.NotFound, volume.NotMounted:
		return exitNotFound
	case volume.DriverUnknown, volume.DriverUnreachable:
		return exitUnreachable
	case volume.Unsettled, volume.Deadline:
		return exitUnsettled
	case volume.Forbidden, volume.BadPolicy:
		return exitForbidden
	case volume.InUse, volume.OutdatedEpoch:
		return exitInUse
	case volume.BadRecord, volume.LedgerFailed:
		return exitLedger
	}
	return exitFailure
}

// exit tells the error and returns the status. It is the last thing that is said.
func (t *terminal) exit(err error) int {
	defer t.logs.close()
	switch {
	case err == nil:
	case errors.Is(err, errFindings):
	case t.json:
		data, marshalErr := json.Marshal(map[string]string{"error": volume.Secrets(nil).Redact(err.Error()), "kind": string(volume.KindOf(err))})
		if marshalErr != nil {
			data = []byte("an error that cannot be told as JSON")
		}
		_, _ = fmt.Fprintln(&t.logs, string(data)) // never fails
	default:
		t.say("%s", err)
	}
	return exitStatus(err)
}

// logger writes to stderr, for people.
func (t *terminal) logger(verbose bool) *zap.Logger {
	level := zapcore.InfoLevel
	if verbose {
		level = zapcore.DebugLevel
	}
	cfg := zap.NewDevelopmentEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339TimeEncoder
	cfg.CallerKey, cfg.StacktraceKey = zapcore.OmitKey, zapcore.OmitKey
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(cfg), zapcore.AddSync(&t.logs), level))
}

// isTerminal says whether a person sees what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
