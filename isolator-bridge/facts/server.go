package facts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// Registrar keeps which epoch may mount; the engine does.
type Registrar interface {
	Register(context.Context, ledger.Registration, func(*ledger.Registration) error) (ledger.Registration, error)
	Withdraw(ctx context.Context, framework string, key ledger.Key, epoch uint64) (engine.Remains, error)
	MarkFenced(ctx context.Context, key ledger.Key, epoch uint64) error
	Remove(context.Context, engine.RemoveRequest) error
	// Canonical is the key under which the volume is known here.
	Canonical(ledger.Key) ledger.Key
}

// ServerConfig is what a Server works with.
type ServerConfig struct {
	Board     *Board
	Registrar Registrar
	// Leases is nil where the bridge keeps none: registrations with a lease are
	// refused then.
	Leases      *fence.Keeper
	Credentials access.Credentials
	Limits      access.Limits
	Refused     access.Counter
	Log         *zap.Logger
}

// Server serves the Agent service.
type Server struct {
	client.UnimplementedAgentServer
	cfg  ServerConfig
	grpc *grpc.Server

	mu sync.Mutex // guards withdrawn
	// withdrawn is when each withdrawal was first asked for: only a look at the
	// agent that began later says that nobody uses the volume.
	withdrawn map[claim]time.Time
}

type claim struct {
	key   ledger.Key
	epoch uint64
}

// NewServer checks the credentials; access.ErrOpen if there are none.
func NewServer(cfg ServerConfig) (*Server, error) {
	if err := cfg.Credentials.Check(); err != nil {
		return nil, fmt.Errorf("agent facts: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Limits == (access.Limits{}) {
		cfg.Limits = access.DefaultLimits()
	}
	s := &Server{cfg: cfg, withdrawn: map[claim]time.Time{}}
	options := append(cfg.Limits.ServerOptions(cfg.Refused), cfg.Credentials.ServerOptions(cfg.Refused)...)
	s.grpc = grpc.NewServer(options...)
	s.grpc.RegisterService(cfg.Limits.Service(client.Agent_ServiceDesc), s)
	return s, nil
}

// Serve serves on the listener, which it closes, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.cfg.Limits.Listen(l, s.cfg.Refused)) }()
	select {
	case err := <-served:
		return fmt.Errorf("agent facts: %w", err)
	case <-ctx.Done():
	}
	s.grpc.Stop() // watchers do not end by themselves
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("agent facts: %w", err)
	}
	return nil
}

// GetFacts implements client.AgentServer.
func (s *Server) GetFacts(context.Context, *client.GetFactsRequest) (*client.Facts, error) {
	facts := s.cfg.Board.Facts()
	if facts.Revision == 0 {
		return nil, status.Error(codes.Unavailable, "the bridge has just started and knows nothing yet; try again")
	}
	return facts, nil
}

// WatchFacts implements client.AgentServer.
func (s *Server) WatchFacts(_ *client.WatchFactsRequest, stream grpc.ServerStreamingServer[client.Change]) error {
	var revision uint64
	for {
		change, next := s.cfg.Board.since(revision)
		if change != nil {
			if err := stream.Send(change); err != nil {
				return err
			}
			revision = change.Revision
			continue
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-next:
		}
	}
}

// Register implements client.AgentServer.
func (s *Server) Register(ctx context.Context, req *client.RegisterRequest) (*client.Registered, error) {
	key, err := s.keyOf(req.GetVolume())
	if err != nil {
		return nil, err
	}
	lease := req.GetLease().AsDuration()
	switch {
	case req.FrameworkId == "" || req.Epoch == 0:
		return nil, status.Error(codes.InvalidArgument, "framework_id and epoch are needed")
	case lease < 0 || lease > 0 && (lease < minLease || lease > maxLease):
		return nil, status.Errorf(codes.InvalidArgument, "lease must be between %s and %s", minLease, maxLease)
	case lease > 0 && s.cfg.Leases == nil:
		return nil, status.Error(codes.Unimplemented, "this bridge keeps no leases")
	}
	var terms fence.Terms
	reg, err := s.cfg.Registrar.Register(ctx, ledger.Registration{Driver: key.Driver, Volume: key.Volume,
		Framework: req.FrameworkId, Epoch: req.Epoch, Lease: lease},
		func(reg *ledger.Registration) (err error) {
			if s.cfg.Leases == nil {
				return nil
			}
			terms, err = s.cfg.Leases.Grant(*reg)
			reg.Trusted = terms.Trusted
			if lease > 0 && err == nil {
				reg.Lease = terms.Lease // of the epoch, however often it is registered
			}
			return err
		})
	out := &client.Registered{FrameworkId: reg.Framework, Epoch: reg.Epoch, Withdrawn: reg.Withdrawn}
	if err != nil {
		if s.cfg.Leases != nil {
			if restoreErr := s.cfg.Leases.Unregistered(terms); restoreErr != nil {
				s.cfg.Log.Warn("lease of before not written down", zap.String("driver", key.Driver), zap.String("volume", key.Volume), zap.Error(restoreErr))
			}
		}
		return nil, refusal(err, out)
	}
	if s.cfg.Leases != nil {
		s.cfg.Leases.Registered(terms)
	}
	if lease > 0 {
		out.Fence = fenceOf(terms)
	}
	s.cfg.Log.Info("epoch registered", zap.String("driver", key.Driver), zap.String("volume", key.Volume),
		zap.Uint64("epoch", reg.Epoch), zap.String("framework", reg.Framework), zap.Duration("lease", lease), zap.Bool("trusted", terms.Trusted))
	return out, nil
}

// The bounds of a lease: shorter ones end with any hiccup, longer ones fence
// nothing in time.
const (
	minLease = time.Second
	maxLease = 24 * time.Hour
)

// Renew implements client.AgentServer.
func (s *Server) Renew(_ context.Context, req *client.RenewRequest) (*client.Renewed, error) {
	if s.cfg.Leases == nil {
		return nil, status.Error(codes.Unimplemented, "this bridge keeps no leases")
	}
	out := &client.Renewed{}
	for _, r := range req.Renewals {
		key, err := s.keyOf(r.GetVolume())
		if err != nil {
			return nil, err
		}
		answer := &client.RenewedLease{Volume: r.Volume}
		terms, err := s.cfg.Leases.Renew(req.FrameworkId, key, r.Epoch, r.Basis)
		if err != nil {
			answer.Problem = err.Error()
		}
		if !errors.Is(err, fence.ErrNoLease) {
			answer.Fence = fenceOf(terms)
		}
		out.Leases = append(out.Leases, answer)
	}
	return out, nil
}

// Withdraw implements client.AgentServer.
func (s *Server) Withdraw(ctx context.Context, req *client.WithdrawRequest) (*client.Withdrawn, error) {
	key, err := s.keyOf(req.GetVolume())
	if err != nil {
		return nil, err
	}
	if req.FrameworkId == "" || req.Epoch == 0 {
		return nil, status.Error(codes.InvalidArgument, "framework_id and epoch are needed")
	}
	left, err := s.cfg.Registrar.Withdraw(ctx, req.FrameworkId, key, req.Epoch)
	reg := left.Registration
	if err != nil {
		return nil, refusal(err, &client.Registered{FrameworkId: reg.Framework, Epoch: reg.Epoch, Withdrawn: reg.Withdrawn})
	}
	since := s.withdrawnSince(claim{key, req.Epoch})
	out := &client.Withdrawn{Volume: s.cfg.Board.Volume(key)}
	if out.Reason = remainsOf(left, s.cfg.Board.lastUses(), key, since); out.Reason == "" {
		if reg.Lease > 0 && !reg.Fenced {
			// There is nothing left to fence, after a restart of the bridge neither.
			if err := s.cfg.Registrar.MarkFenced(ctx, key, req.Epoch); err != nil {
				return nil, refusal(err, nil)
			}
		}
		out.Released = true
		s.released(claim{key, req.Epoch})
	}
	return out, nil
}

// remainsOf says what is left of a volume that was withdrawn; empty if nothing.
func remainsOf(left engine.Remains, uses Uses, key ledger.Key, since time.Time) string {
	switch {
	case left.Path != "":
		return "it is mounted at " + left.Path
	case left.Record != nil && left.Record.Call != nil:
		return "a call to its driver has no answer"
	case left.Record != nil && left.Record.Phase == ledger.PhasePending:
		return "its unmount is owed: " + left.Record.LastError
	case left.Record != nil && left.Record.Phase == ledger.PhaseWatched:
		return "a mount without an answer may still appear; the bridge looks out for it for a while"
	case left.Record != nil:
		return "its mount is not settled"
	case !uses.Known:
		return "the agent does not tell its containers"
	case uses.Began.Before(since):
		return "the agent has not been looked at since"
	case uses.live(key):
		return "a container that named it is not positively gone"
	}
	return ""
}

func (s *Server) withdrawnSince(c claim) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.withdrawn[c]; known {
		return at
	}
	now := time.Now()
	s.withdrawn[c] = now
	return now
}

func (s *Server) released(c claim) {
	s.mu.Lock()
	_, known := s.withdrawn[c]
	delete(s.withdrawn, c)
	s.mu.Unlock()
	if !known {
		return
	}
	// Without the mutex: the keeper may have to wait for its clock and its disk.
	if s.cfg.Leases != nil {
		s.cfg.Leases.Drop(c.key, c.epoch)
	}
	s.cfg.Log.Info("volume released", zap.String("driver", c.key.Driver), zap.String("volume", c.key.Volume), zap.Uint64("epoch", c.epoch))
}

// maxName is the engine's bound of names.
const maxName = 4096

// keyOf is the key of a volume that a framework names. Frameworks may call one
// driver by several names; leases and epochs are the volume's.
func (s *Server) keyOf(name *client.VolumeName) (ledger.Key, error) {
	key := ledger.Key{Driver: name.GetDriver(), Volume: name.GetName()}
	if key.Driver == "" || key.Volume == "" || len(key.Driver) > maxName || len(key.Volume) > maxName {
		return key, status.Error(codes.InvalidArgument, "volume without a driver or a name, or with one that is too long")
	}
	return s.cfg.Registrar.Canonical(key), nil
}

// refusal is the one place where errors of the engine become gRPC statuses.
func refusal(err error, detail *client.Registered) error {
	code := codes.Internal
	switch volume.KindOf(err) {
	case volume.Invalid:
		code = codes.InvalidArgument
	case volume.OutdatedEpoch, volume.InUse:
		code = codes.FailedPrecondition
	case volume.Deadline, volume.Unsettled:
		code = codes.Aborted
	case volume.DriverUnreachable:
		code = codes.Unavailable
	}
	switch {
	case errors.Is(err, fence.ErrFencing):
		code = codes.Aborted
	case errors.Is(err, fence.ErrLeased), errors.Is(err, fence.ErrOver):
		code = codes.FailedPrecondition
	}
	st := status.New(code, err.Error())
	if detail != nil {
		if with, detailErr := st.WithDetails(detail); detailErr == nil {
			st = with
		}
	}
	return st.Err()
}
