package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A file may be a pipe, such as a shell's <(command); one into which nobody
// writes is an error and no endless wait.
func TestFilesThatArePipes(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args        []string
		stdin, says string
	}{
		"settings":          {[]string{"--config=" + fifo}, "", "nobody writes"},
		"certificates":      {[]string{"backup", "--url=https://127.0.0.1:1", "--ca=" + fifo, "-"}, "", "nobody writes"},
		"backup":            {[]string{"restore", "--data-dir=" + dir, fifo}, "", "nobody writes"},
		"definition":        {[]string{"app", "validate", fifo}, "", "nobody writes"},
		"decisions":         {[]string{"replay", fifo}, "", "nobody writes"},
		"settings, written": {[]string{"--config=/dev/stdin"}, "surprise: 1\n", "surprise"},
		"backup, written":   {[]string{"restore", "--data-dir=" + dir, "/dev/stdin"}, "surprise", "does not begin as a backup"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], c.args...)
			cmd.Env = append(os.Environ(), "DVDI_TEST_AS_PROGRAM=1")
			cmd.Stdin = strings.NewReader(c.stdin)
			out, err := cmd.CombinedOutput()
			if err == nil || ctx.Err() != nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%v, %s", err, out)
			}
		})
	}
}
