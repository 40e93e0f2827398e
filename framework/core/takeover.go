package core

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Use says where another framework, whose app is taken over, used a volume last.
type Use struct {
	App      app.ID // that takes over
	AgentID  string
	Hostname string
	TaskID   string // the other framework's
}

// ClaimUsed implements Service. The claim has no holder: the volume may be used
// on that agent at once, where the agent itself keeps mounts of one volume apart,
// and elsewhere only once it is known to be unmounted there.
func (c *Core) ClaimUsed(ctx context.Context, key scheduler.VolumeKey, use Use) error {
	return c.do(ctx, func(tx *txn) error {
		v := c.state.volumes[key]
		if v == nil {
			v = &volumeRecord{Key: key}
		}
		if v.Claim != nil {
			if v.Claim.AgentID == use.AgentID {
				return nil
			}
			return &ConflictError{Message: c.state.claimText(v) +
				fmt.Sprintf("; it cannot have been in use on agent %s as well", use.AgentID)}
		}
		v.Epoch++
		v.Claim = &claim{
			AgentID: use.AgentID, Hostname: use.Hostname, Access: scheduler.OneTask,
			Epoch: v.Epoch, Since: tx.now, LastTask: use.TaskID, LastApp: use.App, Used: true,
		}
		v.LastAgent, v.LastHostname = use.AgentID, use.Hostname
		tx.saveVolume(v)
		c.log.Info("volume of another framework's app claimed where it was used last",
			zap.String("driver", key.Driver), zap.String("volume", key.Name), zap.String("agent", use.AgentID),
			zap.String("app", string(use.App)))
		return nil
	})
}
