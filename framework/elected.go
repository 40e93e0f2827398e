package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/election"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// serveElected runs one of several frameworks that share their state in
// ZooKeeper. It always serves the API: its own while it leads, the leader's
// otherwise. Core and state exist only while it leads. When the lead is lost the
// process ends, as Marathon's does, so that nothing of it is left: whatever
// starts it again (systemd) makes it a candidate anew.
func serveElected(ctx context.Context, cfg *config.Config, listener net.Listener, masters string, log *zap.Logger) error {
	sessions, root, err := zkConfig(cfg)
	if err != nil {
		return err
	}
	trust, err := election.NewTrust(cfg.HTTPSCert, cfg.ProxyCA, cfg.ProxyAnyName)
	if err != nil {
		return &config.Error{Err: fmt.Errorf("--leader_proxy_ca, --ssl_cert: %w", err)}
	}
	self := leader(cfg, listener)
	e := election.New(election.Config{
		Session: sessions, Root: path.Join(root, "election"), Self: election.Member{URL: scheme(cfg) + self},
	}, log.Named("election"))
	proxy := election.NewProxy(election.ProxyConfig{
		Self: self, ConnectTimeout: cfg.ProxyConnectTimeout, ReadTimeout: cfg.ProxyReadTimeout, Trust: trust,
	}, e, log.Named("proxy"))
	defer proxy.Close()
	run := func(ctx context.Context, session *zookeeper.Session) (err error) {
		st, err := openZooKeeper(session, sessions.Ensemble, root, self)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.Close()) }()
		p, err := newParts(cfg, st, listener, masters, lead{session.Lost(), e.Abdicate, st.Snapshot}, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.close()) }()
		proxy.SetLocal(p.handler)
		defer proxy.SetLocal(nil)
		log.Info("leading", zap.Uint64("epoch", st.Epoch()))
		defer log.Info("not leading any more", zap.Uint64("epoch", st.Epoch()))
		return p.run(ctx)
	}
	log.Info("serving", zap.String("api", listener.Addr().String()), zap.String("version", version),
		zap.Stringer("zookeeper", sessions.Ensemble), zap.String("master", config.WithoutCredentials(masters)))
	return serveWhile(ctx, listener, proxy, func(ctx context.Context) error { return e.Run(ctx, run) })
}

// zkConfig reads --zk: how to connect, and the node below which everything is.
func zkConfig(cfg *config.Config) (zookeeper.Config, string, error) {
	ensemble, err := detect.ParseEnsemble(cfg.ZooKeeper)
	if err != nil {
		return zookeeper.Config{}, "", &config.Error{Err: fmt.Errorf("--zk: %w", err)}
	}
	return zookeeper.Config{
		Ensemble: ensemble, SessionTimeout: cfg.ZKSessionTimeout, ConnectTimeout: cfg.ZKConnectTimeout,
	}, ensemble.Path, nil
}

func openZooKeeper(session *zookeeper.Session, ensemble detect.Ensemble, root, owner string) (*store.ZooKeeper, error) {
	return store.OpenZooKeeper(session, ensemble, statePath(root), store.ZooKeeperOptions{Owner: owner})
}

// statePath is where the state is below the node of --zk.
func statePath(root string) string { return path.Join(root, "state") }
