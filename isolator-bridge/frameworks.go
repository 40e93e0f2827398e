package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/facts"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/metrics"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/snapshot"
)

// outside is what the bridge does for others than this host: facts, epochs and
// leases for frameworks, measurements for Prometheus.
type outside struct {
	log      *zap.Logger
	keeper   *fence.Keeper
	board    *facts.Board
	server   *facts.Server // nil: no framework is served
	listener net.Listener
	metrics  *http.Server // nil: nobody measures
	measured net.Listener
	follower *metrics.Follower // nil: nobody measures
	interval time.Duration
}

// newOutside opens the ports; a bridge that cannot have what it was told to
// serve does not start.
func (b *assembly) newOutside(eng *engine.Engine, drivers volume.Drivers, host *fence.Host, board *snapshot.Board, m *metrics.Metrics) (*outside, error) {
	r := &outside{log: b.log}
	var err error
	if r.keeper, err = b.leases(eng, host, m); err != nil {
		return nil, err
	}
	if r.board, err = b.facts(eng, drivers, board, r.keeper); err != nil {
		return nil, err
	}
	m.Show(r.board, r.keeper)
	if err := b.serveFrameworks(r, eng, m); err != nil {
		return nil, err
	}
	if b.metricsAddress == "" {
		return r, nil
	}
	r.follower, r.interval = m.Follow(eng.Ledger().RunDir(), b.log), b.interval
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.follower.Before(m.Handler()))
	r.metrics = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	if r.measured, err = net.Listen("tcp", b.metricsAddress); err != nil {
		return nil, errors.Join(fmt.Errorf("metrics-address: %w", err), r.close())
	}
	return r, nil
}

// host is this host as far as volumes are used on it.
func (b *assembly) host(eng *engine.Engine, mounts volume.MountTables, drivers volume.Drivers) *fence.Host {
	cfg := fence.HostConfig{Engine: eng, Mounts: mounts, Drivers: drivers, CgroupRoot: b.agentCgroupRoot, Log: b.log}
	if b.checkpointDir != "" {
		cfg.Containers = containersNaming(b.checkpointDir, eng.Canonical)
	}
	return fence.NewHost(cfg)
}

// leases makes the keeper of the leases with what enforces them.
func (b *assembly) leases(eng *engine.Engine, host *fence.Host, m *metrics.Metrics) (*fence.Keeper, error) {
	cfg := fence.Config{Store: eng.Ledger(), Target: host, WatchdogTimeout: b.watchdogTimeout,
		Revoking: map[string]bool{}, Margin: b.fenceMargin, Changed: m.LeaseChanged, Log: b.log}
	for _, driver := range strings.FieldsFunc(b.revokingDrivers, isComma) {
		cfg.Revoking[eng.Canonical(ledger.Key{Driver: driver}).Driver] = true
	}
	if b.watchdog != "" {
		software, err := strconv.ParseBool(b.watchdogSoftware)
		if err != nil {
			return nil, fmt.Errorf("watchdog-software: %q is neither true nor false", b.watchdogSoftware)
		}
		device := &fence.Device{Path: b.watchdog, Software: software}
		if err := device.Check(); errors.Is(err, fence.ErrNoWatchdog) {
			return nil, err
		} else if err != nil { // its module may come later
			b.log.Warn("no lease can be relied upon", zap.Error(err))
		}
		cfg.Watchdog = device
	}
	keeper, err := fence.NewKeeper(cfg)
	if errors.Is(err, volume.LedgerFailed) {
		return nil, fmt.Errorf("leases: %w", err) // one of them would never end
	}
	if err != nil {
		b.log.Warn("registered epochs that cannot be read", zap.Error(err))
	}
	return keeper, nil
}

// containersNaming reads the agent's checkpoints anew each time: a fence must
// not miss a container that came a moment ago.
func containersNaming(dir string, canonical func(ledger.Key) ledger.Key) func(ledger.Key) ([]string, error) {
	var mu sync.Mutex // guards checkpoints
	checkpoints := agentstate.NewCheckpoints(dir, canonical)
	return func(key ledger.Key) (ids []string, err error) {
		mu.Lock()
		defer mu.Unlock()
		list, err := checkpoints.Read()
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		for _, c := range list {
			for _, named := range c.Volumes {
				if named == key {
					ids = append(ids, c.ContainerID)
					break
				}
			}
		}
		return ids, err
	}
}

func (b *assembly) facts(eng *engine.Engine, drivers volume.Drivers, board *snapshot.Board, keeper *fence.Keeper) (*facts.Board, error) {
	labels, err := pairs("agent-labels", b.agentLabels)
	if err != nil {
		return nil, err
	}
	limits, err := b.limits()
	if err != nil {
		return nil, err
	}
	hostname := b.agentHostname
	if hostname == "" {
		if hostname, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("this host's name (give it with --agent-hostname): %w", err)
		}
	}
	return facts.NewBoard(facts.BoardConfig{Ledger: eng.Ledger(), Drivers: drivers, Getter: statusOf{eng}, Leases: keeper, Snapshots: board,
		Policy:  func() (*engine.Policy, error) { return engine.LoadPolicy(b.policy) },
		AgentID: b.agentID, Hostname: hostname, Zone: b.agentZone, Labels: labels, AttachLimits: limits, Version: version, Log: b.log}), nil
}

// agentID is where the agent keeps its own id: the name to which the link
// meta/slaves/latest of its work directory leads (src/slave/paths.cpp).
func (b *assembly) agentID() string {
	if b.agentWorkDir == "" {
		return ""
	}
	target, err := os.Readlink(filepath.Join(b.agentWorkDir, "meta", "slaves", "latest"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// statusOf asks the engine for what a driver tells of a volume.
type statusOf struct{ engine *engine.Engine }

// Status implements facts.Getter.
func (s statusOf) Status(ctx context.Context, key ledger.Key) (map[string]any, error) {
	v, err := s.engine.Get(ctx, key.Driver, key.Volume)
	return v.Status, err
}

// serveFrameworks opens the port for frameworks, if there are credentials. To
// ask for the port without any is a mistake.
func (b *assembly) serveFrameworks(r *outside, eng *engine.Engine, m *metrics.Metrics) error {
	credentials := access.Credentials{CertFile: b.factsCert, KeyFile: b.factsKey, ClientCAFile: b.factsClientCA, TokenFile: b.factsToken}
	address := b.factsAddress
	switch {
	case address == "none", address == "" && credentials == (access.Credentials{}):
		b.log.Info("frameworks are not served", zap.String("see", "--facts-token or --facts-client-ca"))
		return nil
	case address == "":
		address = fmt.Sprintf(":%d", facts.DefaultPort)
	}
	var err error
	r.server, err = facts.NewServer(facts.ServerConfig{Board: r.board, Registrar: eng, Leases: r.keeper,
		Credentials: credentials, Refused: m.Refused, Log: b.log})
	if err != nil {
		return err
	}
	if r.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("facts-address: %w", err)
	}
	b.log.Info("serving frameworks", zap.Stringer("address", r.listener.Addr()), zap.Bool("encrypted", credentials.Encrypted()))
	if !credentials.Encrypted() {
		b.log.Warn("tokens cross the network in the clear", zap.String("see", "--facts-cert"))
	}
	return nil
}

// run serves until ctx ends or something fails, which it tells to failed.
func (r *outside) run(ctx context.Context, failed func(error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := r.keeper.Run(ctx); err != nil {
			r.log.Error("leases are not kept any more", zap.Error(err))
		}
	})
	wg.Go(func() { r.board.Run(ctx) })
	if r.server != nil {
		wg.Go(func() {
			if err := r.server.Serve(ctx, r.listener); err != nil {
				failed(err)
			}
		})
	}
	if r.metrics == nil {
		return
	}
	wg.Go(func() { r.follower.Run(ctx, r.interval) })
	wg.Go(func() {
		if err := r.metrics.Serve(r.measured); !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("serve metrics: %w", err))
		}
	})
	<-ctx.Done()
	if err := r.metrics.Close(); err != nil {
		r.log.Warn("metrics server not closed", zap.Error(err))
	}
}

// close gives ports back that are not served.
func (r *outside) close() error {
	if r.listener == nil {
		return nil
	}
	return r.listener.Close()
}

func isComma(r rune) bool { return r == ',' || r == ' ' }

// pairs reads key=value,key=value.
func pairs(setting, text string) (map[string]string, error) {
	out := map[string]string{}
	for _, piece := range strings.FieldsFunc(text, isComma) {
		key, value, ok := strings.Cut(piece, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%s: %q is not key=value", setting, piece)
		}
		out[key] = value
	}
	return out, nil
}

func (b *assembly) limits() (map[string]uint32, error) {
	given, err := pairs("attach-limits", b.attachLimits)
	if err != nil {
		return nil, err
	}
	out := map[string]uint32{}
	for driver, text := range given {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("attach-limits: %q of driver %s is no number above 0", text, driver)
		}
		out[driver] = uint32(n)
	}
	return out, nil
}
