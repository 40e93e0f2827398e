package facts

import (
	"context"
	"errors"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// Remove implements client.AgentServer. The epoch is withdrawn first: from then
// on nothing mounts the volume here under it, and if anything of its use is left
// it is told and nothing is removed. Only what the framework had registered on
// this host is removed: the bridge cannot see whose a volume is otherwise.
func (s *Server) Remove(ctx context.Context, req *client.RemoveRequest) (*client.Removed, error) {
	withdrawn, err := s.Withdraw(ctx, &client.WithdrawRequest{FrameworkId: req.FrameworkId, Volume: req.Volume, Epoch: req.Epoch})
	if err != nil {
		return nil, err
	}
	if !withdrawn.Released {
		return &client.Removed{Reason: withdrawn.Reason}, nil
	}
	key, err := s.keyOf(req.Volume)
	if err != nil {
		return nil, err
	}
	err = s.cfg.Registrar.Remove(ctx, engine.RemoveRequest{Driver: key.Driver, Volume: key.Volume,
		Framework: req.FrameworkId, Epoch: req.Epoch})
	fields := []zap.Field{zap.String("driver", key.Driver), zap.String("volume", key.Volume), zap.Uint64("epoch", req.Epoch), zap.String("framework", req.FrameworkId)}
	switch {
	case err == nil:
		s.cfg.Log.Info("volume removed for a framework", fields...)
	case errors.Is(err, volume.NotFound):
		s.cfg.Log.Info("volume that a framework wants removed does not exist", fields...)
	default:
		s.cfg.Log.Warn("volume not removed for a framework", append(fields, zap.Error(err))...)
		return nil, notRemoved(err)
	}
	return &client.Removed{Removed: true}, nil
}

// notRemoved is refusal, where the driver's own word is no fault of the bridge.
func notRemoved(err error) error {
	switch volume.KindOf(err) {
	case volume.Refused, volume.Unsupported, volume.DriverUnknown:
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return refusal(err, nil)
}
