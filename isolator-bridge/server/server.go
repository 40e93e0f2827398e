// Package server is the isolator-bridge at work: it holds the lock of its run
// directory, recovers, keeps the volumes right for as long as it runs, and
// serves the isolator's API.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/isolator"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/snapshot"
)

// Engine is what the server needs of the volume engine.
type Engine interface {
	isolator.Engine
	reaper.Engine
	Reconcile(context.Context, engine.ReconcileRequest) ([]engine.Finding, error)
	ReconcileOne(context.Context, engine.ReconcileRequest, ledger.Key) engine.Finding
	Adopt(context.Context, engine.AdoptRequest) (engine.AdoptResult, error)
	List(ctx context.Context, driver string) ([]volume.Volume, error)
}

// Users sees who uses what is mounted; see fence.Host.
type Users interface {
	User(context.Context, *ledger.Record) (string, error)
	UserAt(ctx context.Context, driver, path string) (string, error)
}

// Mounts is a mount table that can be asked whether it has changed.
type Mounts interface {
	volume.MountTables
	Generation(context.Context) (uint64, error)
}

// Config is what a Server works with. Engine, Mounts and Drivers are required.
type Config struct {
	Engine  Engine
	Mounts  Mounts
	Drivers volume.Drivers
	// Interval is the longest time between two looks at the ledger, every third
	// of which comes with one at the agent; FullInterval that between two looks
	// at every volume.
	Interval, FullInterval time.Duration

	// Watcher sees the agent, nil if the bridge was told of none; Reaper acts on
	// it. AgentHolder is the name by which the agent holds volumes.
	Watcher     *agentstate.Watcher
	Reaper      *reaper.Reaper
	AgentHolder string

	// Listener is the socket of the isolator's API; nil serves none.
	Listener *Socket
	// AllowedUsers are the user ids that may use the API besides root and the
	// bridge's own.
	AllowedUsers []int
	Limits       access.Limits
	// DefaultDriver, see isolator.Config.
	DefaultDriver string
	// Fault, see isolator.Config.
	Fault func(isolator.FaultPoint)

	// Board gets what is known; nil: nobody asks.
	Board *snapshot.Board
	// Refused, if not nil, counts refused peers; Recovered gets the report.
	Refused   access.Counter
	Recovered func(Report)
	// Grace is how long mounts that this ledger did not make are left to whoever
	// made them, though nobody is seen to use them.
	Grace time.Duration
	// Users, if not nil, see who uses what is mounted; *fence.Host does.
	Users Users
	// Ready, if not nil, is called once, when the API is served and recovery is
	// over.
	Ready func()
	Log   *zap.Logger
}

// Server keeps one run directory's volumes right.
type Server struct {
	cfg  Config
	made time.Time
	// progress is when the loop last came around, since the Server was made: the
	// time of day may be set.
	progress atomic.Int64
}

const (
	defaultInterval     = 10 * time.Second
	defaultFullInterval = 2 * time.Minute
	lockName            = "bridge.lock"
	// stopPatience is how long calls may go on after the bridge was told to stop.
	stopPatience = 10 * time.Second
)

// New makes a Server. It does no I/O.
func New(cfg Config) *Server {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.FullInterval <= 0 {
		cfg.FullInterval = max(defaultFullInterval, cfg.Interval)
	}
	if cfg.Limits == (access.Limits{}) {
		cfg.Limits = access.DefaultLimits()
	}
	if cfg.Board == nil {
		cfg.Board = snapshot.NewBoard()
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Ready == nil {
		cfg.Ready = func() {}
	}
	s := &Server{cfg: cfg, made: time.Now()}
	s.alive()
	return s
}

// Lock is the lock of a run directory, held by the kernel until Unlock or the
// end of the process.
func Lock(runDir string) (*ledger.FileLock, error) {
	lock, err := ledger.TryLockFile(filepath.Join(runDir, lockName))
	if ledger.IsLocked(err) {
		return nil, fmt.Errorf("another isolator-bridge serves %s: stop it, or give this one another directory with --run-dir", runDir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock of %s: %w", runDir, err)
	}
	return lock, nil
}

// Run recovers, serves and keeps until ctx ends; that is no error. The caller
// holds the run directory's lock. What Run does is recorded in the ledger before
// it is done: it may be killed at any time.
func (s *Server) Run(ctx context.Context) error {
	h := newHub()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	iso, err := isolator.New(isolator.Config{Engine: s.cfg.Engine, DefaultDriver: s.cfg.DefaultDriver, Life: life,
		Changed: h.changed, Log: s.cfg.Log, Fault: s.cfg.Fault})
	if err != nil {
		return err
	}
	k := newKeeper(s.cfg, iso, h, s.alive)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := s.serve(&service{isolator: iso, keeper: k, hub: h}, cancel, end)
	s.loop(ctx, k)
	close(k.stopping)
	stop()
	s.cfg.Log.Info("stopping", zap.String("runDir", s.cfg.Engine.Ledger().RunDir()))
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// loop recovers and then does what is due, again and again. Everything that it
// began has ended when it returns.
func (s *Server) loop(ctx context.Context, k *keeper) {
	defer k.workers.Wait()
	s.alive()
	k.recover(ctx)
	s.cfg.Ready()
	next := time.Now()
	for ctx.Err() == nil {
		s.alive()
		if !time.Now().Before(next) {
			next = time.Now().Add(k.tick(ctx))
		}
		timer := time.NewTimer(max(min(time.Until(next), k.untilDue(s.cfg.Interval)), 0))
		select {
		case <-ctx.Done():
		case r := <-k.results:
			k.took(ctx, r)
		case <-timer.C:
			next = time.Now()
		}
		timer.Stop()
	}
}

func (s *Server) alive() { s.progress.Store(int64(time.Since(s.made))) }

// Idle is how long ago the server last made progress. It is seconds at most
// unless something is wrong with the server itself: nothing in it waits for a
// driver.
func (s *Server) Idle() time.Duration {
	return time.Since(s.made) - time.Duration(s.progress.Load())
}

// strangers is how many connections users may have, all together, that may not
// use the API: enough to be told so.
const strangers = 4

// listener bounds the connections of each user. Whoever may not use the API
// takes nobody's place.
func (s *Server) listener(allowed []int) net.Listener {
	others := access.NewPlaces(strangers)
	places := map[int]*access.Places{}
	for _, uid := range allowed {
		places[uid] = access.NewPlaces(s.cfg.Limits.Connections)
	}
	return access.Listen(peerListener{s.cfg.Listener}, s.cfg.Refused, func(conn net.Conn) *access.Places {
		if uid, known := userOf(conn.RemoteAddr()); known && places[uid] != nil {
			return places[uid]
		}
		return others
	})
}

// serve begins to serve the API and returns what ends that.
func (s *Server) serve(impl *service, fail context.CancelCauseFunc, end func()) (stop func()) {
	if s.cfg.Listener == nil {
		return func() {}
	}
	allowed := append(slices.Clone(s.cfg.AllowedUsers), 0, os.Geteuid())
	options := append(s.cfg.Limits.ServerOptions(s.cfg.Refused),
		grpc.Creds(access.CountHandshakes(insecure.NewCredentials(), s.cfg.Refused)),
		grpc.InTapHandle(admit(allowed, s.cfg.Refused)))
	server := grpc.NewServer(options...)
	server.RegisterService(s.cfg.Limits.Service(client.Isolator_ServiceDesc), impl)
	reflection.Register(server)
	var done sync.WaitGroup
	done.Go(func() {
		err := server.Serve(s.listener(allowed))
		if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			fail(fmt.Errorf("serve the API: %w", err))
		}
	})
	return func() {
		timer := time.AfterFunc(stopPatience, func() {
			end()
			server.Stop()
		})
		server.GracefulStop()
		timer.Stop()
		done.Wait()
	}
}
