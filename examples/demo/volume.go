package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// mountPath asks dvdcli on the host where the volume is.
func (d *demo) mountPath(ctx context.Context, host string) (string, error) {
	out, err := d.cluster.Node(host).DVDCLI(ctx, "path", "--volumedriver="+devcluster.Driver, "--volumename="+d.volume())
	return strings.TrimSpace(out), err
}

// lines reads the log that the task writes, through its own sandbox.
func (d *demo) lines(task devcluster.Task) ([]string, error) {
	path, err := d.mountPath(context.Background(), task.Host)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(path, "log"))
	if err != nil {
		return nil, fmt.Errorf("read what the task wrote: %w", err)
	}
	text := strings.TrimSuffix(string(data), "\n")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// waitLines waits until the task's log has at least n lines.
func (d *demo) waitLines(ctx context.Context, task devcluster.Task, n int) ([]string, error) {
	var lines []string
	err := devcluster.Poll(ctx, fmt.Sprintf("%d lines in the volume", n), func() (bool, string, error) {
		var err error
		if lines, err = d.lines(task); err != nil {
			return false, err.Error(), nil
		}
		return len(lines) >= n, fmt.Sprintf("%d lines", len(lines)), nil
	})
	return lines, err
}
