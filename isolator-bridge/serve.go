package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/dockerplugin"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/metrics"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/server"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/snapshot"
)

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unexpected argument %q", c.Args().First())
	}
	s, err := loadSettings(c)
	if err != nil {
		return err
	}
	log, err := newLogger(s.logLevel, s.logFormat)
	if err != nil {
		return err
	}
	// Sync fails on pipes and terminals, which need none.
	defer func() { _ = log.Sync() }()
	err = (&assembly{settings: s, log: log}).run(c.Context)
	if err != nil {
		log.Error("isolator-bridge failed", zap.Error(err))
	}
	return err
}

func newLogger(level, format string) (*zap.Logger, error) {
	cfg := zap.NewProductionConfig()
	// Every message counts: what is rare here is what is looked for later.
	cfg.Sampling = nil
	cfg.DisableStacktrace = true
	cfg.Encoding = format
	if format == "console" { // for people, who do not read seconds since 1970
		cfg.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	}
	if err := cfg.Level.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log-level: %w", err)
	}
	log, err := cfg.Build()
	if err != nil {
		return nil, fmt.Errorf("logging: %w", err)
	}
	return log, nil
}

// assembly is the daemon being put together.
type assembly struct {
	*settings
	log *zap.Logger
}

// dirs are those that the programs of one agent share.
func (s *settings) dirs() ledger.Dirs {
	return ledger.DefaultDirs(os.Geteuid(), os.Getenv).Or(ledger.Dirs{Run: s.runDir, State: s.stateDir, Host: s.hostDir})
}

// run puts the parts together and runs them until ctx ends.
func (b *assembly) run(ctx context.Context) (err error) {
	dirs := b.dirs()
	led, err := ledger.Open(ledger.Config{RunDir: dirs.Run, StateDir: dirs.State})
	if err != nil {
		return err
	}
	lock, err := server.Lock(dirs.Run)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	mounts, err := hostmount.NewCached()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounts.Close()) }()
	plugins := dockerplugin.New(dockerplugin.Config{Dirs: splitDirs(b.pluginDirs)})
	defer plugins.Close()
	measured := metrics.New(version)
	drivers := measured.Drivers(plugins)
	eng := b.engine(led, drivers, mounts, dirs)
	listener, err := b.listen()
	if err != nil {
		return err
	}
	cfg := server.Config{
		Engine: eng, Mounts: mounts, Drivers: drivers, Interval: b.interval, FullInterval: b.fullInterval,
		Listener: listener, AllowedUsers: b.allowUsers, DefaultDriver: b.defaultDriver, Fault: isolatorFaults(),
		Board: snapshot.NewBoard(), Refused: measured.Refused, Recovered: func(r server.Report) { countRecovered(measured, r) }, Ready: func() { b.notify(daemon.SdNotifyReady) }, Log: b.log,
	}
	host := b.host(eng, mounts, drivers)
	cfg.Users, cfg.Grace = host, b.leakGrace
	if err := b.watch(&cfg, eng, led, host); err != nil {
		return err
	}
	others, err := b.newOutside(eng, drivers, host, cfg.Board, measured)
	if err != nil {
		return err
	}
	b.log.Info("starting", zap.String("version", version), zap.String("runDir", dirs.Run), zap.String("stateDir", dirs.State),
		zap.String("agent", b.agentURL), zap.String("checkpointDir", b.checkpointDir))
	srv := server.New(cfg)
	defer b.feedWatchdog(ctx, srv)()
	defer func() { b.notify(daemon.SdNotifyStopping) }()
	return together(ctx, srv.Run, others.run)
}

// together runs the server and what it serves to others until ctx ends or one of
// them fails, and waits for both.
func together(ctx context.Context, server func(context.Context) error, others func(context.Context, func(error))) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { others(ctx, cancel) })
	err := server(ctx)
	cancel(nil)
	wg.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

func countRecovered(m *metrics.Metrics, r server.Report) {
	for _, i := range r.Items {
		m.Recovered(string(i.Source), i.Problem == "")
	}
}

func (b *assembly) engine(led *ledger.Ledger, drivers volume.Drivers, mounts volume.MountTables, dirs ledger.Dirs) *engine.Engine {
	policy, policyErr := engine.LoadPolicy(b.policy)
	if policyErr != nil {
		b.log.Warn("policy not readable", zap.Error(policyErr))
	}
	call := b.callTimeout
	return engine.New(engine.Config{
		Ledger: led, Drivers: drivers, Mounts: mounts, Neighbours: ledger.Neighbours{Dir: dirs.Host},
		Policy: policy, PolicyErr: policyErr, Log: b.log, Fault: engineFaults(),
		Timeouts: engine.Timeouts{Create: call, Remove: call, Mount: call, Unmount: call, Query: call, Margin: b.callMargin},
	})
}

// noSocket as the name of the socket means none.
const noSocket = "none"

// socketPath is where the API is, empty for nowhere.
func (s *settings) socketPath() string {
	switch s.socket {
	case noSocket:
		return ""
	case "":
		return filepath.Join(s.dirs().Run, "bridge.sock")
	}
	return s.socket
}

// listen takes the socket that systemd opened, or opens one.
func (b *assembly) listen() (*server.Socket, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	for _, l := range passed {
		if u, ok := l.(*net.UnixListener); ok {
			b.log.Info("using the socket of systemd", zap.String("socket", u.Addr().String()))
			// It is systemd's, for the next start, too.
			return server.Passed(u), nil
		}
	}
	path := b.socketPath()
	if path == "" {
		return nil, nil
	}
	return server.Listen(path)
}

// agentHolderPrefix begins the names that dvdcli gives to agents.
const agentHolderPrefix = "mesos-agent:"

// watch adds what sees the agent, if the bridge was told of one.
func (b *assembly) watch(cfg *server.Config, eng *engine.Engine, led *ledger.Ledger, users *fence.Host) error {
	if b.agentURL == "" && b.checkpointDir == "" {
		b.log.Warn("no agent is configured: leaks are not looked for", zap.String("see", "--agent-url"))
		return nil
	}
	var agent agentstate.Agent
	if b.agentURL != "" {
		credential, err := b.credential()
		if err != nil {
			return err
		}
		api, err := agentstate.NewAPI(agentstate.APIConfig{URL: b.agentURL, Credential: credential, CAFile: b.agentCA, CertFile: b.agentCert, KeyFile: b.agentKey})
		if err != nil {
			return err
		}
		agent = api
	}
	host := agentstate.Host{CgroupRoot: b.agentCgroupRoot, WorkDir: b.agentWorkDir}
	watcher, err := agentstate.NewWatcher(b.checkpointDir, agent, host, filepath.Join(led.RunDir(), "named.json"), eng.Canonical)
	if err != nil {
		b.log.Warn("memory of the containers lost", zap.Error(err))
	}
	cfg.Watcher = watcher
	cfg.AgentHolder = b.agentHolder
	if cfg.AgentHolder == "" {
		cfg.AgentHolder = agentHolderPrefix + b.agentWorkDir
	}
	cfg.Reaper = reaper.New(reaper.Config{Engine: eng, Watcher: watcher, Mounts: cfg.Mounts, Host: host, User: users.User, AgentHolder: b.isAgent,
		IsAgent: isSomeAgent, Grace: b.leakGrace, SinceBoot: led.SinceBoot, Log: b.log, Fault: reaperFaults()})
	return nil
}

// isSomeAgent says whether a holder is some agent of this host.
func isSomeAgent(holder string) bool { return strings.HasPrefix(holder, agentHolderPrefix) }

// isAgent says whether a holder is the agent. Several agents may share a run
// directory: one that is named is told from the others, and where none is the
// reaper leaves volumes alone as soon as there are two.
func (s *settings) isAgent(holder string) bool {
	if s.agentHolder != "" {
		return holder == s.agentHolder
	}
	dir, ok := strings.CutPrefix(holder, agentHolderPrefix)
	return ok && (s.agentWorkDir == "" || filepath.Clean(dir) == filepath.Clean(s.agentWorkDir))
}

func (b *assembly) credential() (agentstate.Credential, error) {
	switch {
	case b.agentToken != "":
		data, err := inputfile.Read(b.agentToken)
		if err != nil {
			return agentstate.Credential{}, fmt.Errorf("agent-token: %w", err)
		}
		return agentstate.Credential{Token: strings.TrimSpace(string(data))}, nil
	case b.agentCredential != "":
		return agentstate.LoadCredential(b.agentCredential)
	}
	return agentstate.Credential{}, nil
}

// notify tells systemd, if it started this process (sd_notify(3)).
func (b *assembly) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		b.log.Warn("systemd not told", zap.String("state", state), zap.Error(err))
	}
}

// stuck is how long the server may make no progress before systemd's watchdog
// is left to end it.
const stuck = 2 * time.Minute

// feedWatchdog feeds systemd's watchdog while the server makes progress, and
// returns what ends that.
func (b *assembly) feedWatchdog(ctx context.Context, srv *server.Server) (stop func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit <= 0 {
		if err != nil {
			b.log.Warn("watchdog of systemd not understood", zap.Error(err))
		}
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(limit / 3)
		defer ticker.Stop()
		for {
			if idle := srv.Idle(); idle < max(stuck, 2*b.interval) {
				b.notify(daemon.SdNotifyWatchdog)
			} else {
				b.log.Error("no progress, the watchdog is not fed", zap.Duration("idle", idle))
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func splitDirs(list string) []string {
	if list == "" {
		return nil
	}
	return filepath.SplitList(list)
}
