package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Settings may come from a pipe, such as a shell's <(command); one into which
// nobody writes is an error and no endless wait.
func TestSettingsFromAPipe(t *testing.T) {
	t.Parallel()
	serve := func(what, config string, stdin string, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, bridgeBinary, "serve", "--config", config)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err == nil || ctx.Err() != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s", what, err, out)
		}
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	serve("without a writer", fifo, "", "nobody writes")
	// What stands in it shows that it was read.
	serve("standard input", "/dev/stdin", "log-format: from-stdin\n", "from-stdin")
	wrote := make(chan error, 1)
	go func() { wrote <- os.WriteFile(fifo, []byte("log-format: from-fifo\n"), 0) }()
	serve("with a writer", fifo, "", "from-fifo")
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
