// Package clustertest runs the clusters of package devcluster in tests: it ends with
// the test what it has started.
package clustertest

import (
	"context"
	"os"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// Dir makes a directory whose path leaves room for the names of sockets, which
// t.TempDir with a long test name does not. It is removed when the test ends; that
// this fails, because something in it is still mounted, fails the test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dvdi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something was left in use: %v", err)
		}
	})
	return dir
}

// Start starts a cluster and stops it when the test ends. The end of ctx does not
// stop it. A cluster that cannot be started or stopped fails the test.
func Start(ctx context.Context, t testing.TB, cfg devcluster.Config) *devcluster.Cluster {
	t.Helper()
	c, err := devcluster.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	return c
}
