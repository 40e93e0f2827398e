package mesostest

import (
	"context"
	"net/http/httptest"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/store"
)

// Framework is a core on a simulated cluster with its API on a real socket.
type Framework struct {
	*Cluster
	Core *core.Core
	URL  string
}

// Start runs a framework until the test ends. Its state is in a real file.
func Start(t testing.TB, cfg Config, coreConfig core.Config, apiConfig api.Config) *Framework {
	t.Helper()
	log := zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))
	st, err := store.OpenBolt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cluster := New(cfg)
	c, err := core.New(coreConfig, cluster, st, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	srv := httptest.NewServer(api.New(apiConfig, c, log))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("the core ended with %v", err)
		}
		srv.Close()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Framework{Cluster: cluster, Core: c, URL: srv.URL}
}
