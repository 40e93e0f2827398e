package bridge

import (
	"context"
	"errors"
	"io"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// agent is one agent's bridge.
type agent struct {
	hub     *Hub
	id      string
	address string
	api     client.AgentClient // nil if it cannot be made
	stop    context.CancelFunc
}

// begin connects to a bridge and watches it until stop. The caller holds the
// hub's mutex.
func (h *Hub) begin(id, address string) *agent {
	ctx, stop := context.WithCancel(h.ctx)
	a := &agent{hub: h, id: id, address: address, stop: stop}
	conn, err := client.Dial(address, h.cfg.Credentials)
	if err != nil {
		h.cfg.Log.Error("no connection to the bridge of an agent", zap.String("agent", id), zap.String("address", address), zap.Error(err))
		return a
	}
	a.api = client.NewAgentClient(conn)
	h.work.Go(func() {
		a.run(ctx)
		if err := conn.Close(); err != nil {
			h.cfg.Log.Warn("connection to the bridge of an agent not closed", zap.String("agent", id), zap.Error(err))
		}
	})
	return a
}

// run watches again and again.
func (a *agent) run(ctx context.Context) {
	told := codes.OK
	for {
		err := a.watch(ctx, func() {
			if told != codes.OK {
				a.hub.cfg.Log.Info("bridge of an agent answers", zap.String("agent", a.id), zap.String("address", a.address))
			}
			told = codes.OK
		})
		if ctx.Err() != nil {
			return
		}
		if code := status.Code(err); code != told {
			// An agent without a bridge is nothing unusual.
			a.hub.cfg.Log.Info("bridge of an agent does not answer; its volumes stay where they are", zap.String("agent", a.id),
				zap.String("address", a.address), zap.Error(err))
			told = code
		}
		a.lost()
		timer := time.NewTimer(retry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// watch takes changes until the stream ends.
func (a *agent) watch(ctx context.Context, answered func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.api.WatchFacts(ctx, &client.WatchFactsRequest{})
	if err != nil {
		return err
	}
	var v view
	for {
		change, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the bridge ended the stream")
		}
		if err != nil {
			return err
		}
		if !v.take(change) {
			return status.Error(codes.DataLoss, "the bridge told of a change before it told of everything")
		}
		answered()
		a.publish(ctx, v.report(a.id))
	}
}

func (a *agent) publish(ctx context.Context, r *core.BridgeReport) {
	a.hub.mu.Lock()
	defer a.hub.mu.Unlock()
	if ctx.Err() == nil && a.hub.agents[a.id] == a {
		a.hub.report(a.id, r)
	}
}

// lost keeps what was known, if anything was, and says that it is not known any
// more.
func (a *agent) lost() {
	a.hub.mu.Lock()
	defer a.hub.mu.Unlock()
	old := a.hub.reports[a.id]
	if a.hub.agents[a.id] != a {
		return
	}
	if old == nil {
		a.hub.report(a.id, &core.BridgeReport{Agent: scheduler.AgentFact{AgentID: a.id}})
		return
	}
	if !old.Agent.Known {
		return
	}
	r := *old
	r.Agent.Known = false
	a.hub.report(a.id, &r)
}

// view is a bridge's facts, put together from changes.
type view struct {
	head    *client.Facts
	volumes map[scheduler.VolumeKey]*client.Volume
}

// take applies a change; false if nothing came before it that it could change.
func (v *view) take(c *client.Change) bool {
	if c.Facts != nil {
		v.head, v.volumes = c.Facts, make(map[scheduler.VolumeKey]*client.Volume, len(c.Facts.Volumes))
		for _, vol := range c.Facts.Volumes {
			v.volumes[keyOf(vol.Name)] = vol
		}
	}
	if v.head == nil {
		return false
	}
	if c.Head != nil {
		v.head = c.Head
	}
	for _, vol := range c.Volumes {
		v.volumes[keyOf(vol.Name)] = vol
	}
	for _, name := range c.Gone {
		delete(v.volumes, keyOf(name))
	}
	return true
}

func keyOf(n *client.VolumeName) scheduler.VolumeKey {
	return scheduler.VolumeKey{Driver: n.GetDriver(), Name: n.GetName()}
}

// report is the view in the core's words. A record of an earlier boot, of which
// the bridge knows nothing else, attaches a volume to nothing: it would keep the
// volume on an agent for ever that nobody uses any more.
func (v *view) report(agentID string) *core.BridgeReport {
	r := &core.BridgeReport{
		Agent:  scheduler.AgentFact{AgentID: agentID, Known: true, Zone: v.head.Zone},
		Epochs: v.head.GetCapabilities().GetEpochs(), Leases: v.head.GetCapabilities().GetLeases(),
		Removal: v.head.GetCapabilities().GetRemoval(),
		Volumes: make(map[scheduler.VolumeKey]core.BridgeVolume, len(v.volumes)), Scopes: map[string]string{},
	}
	for _, d := range v.head.Drivers {
		if d.Scope != "" {
			r.Scopes[d.Name] = d.Scope
		}
		r.Agent.Drivers = append(r.Agent.Drivers, scheduler.DriverFact{Name: d.Name, Healthy: d.Healthy,
			AttachLimit: int(d.AttachLimit), Attached: int(d.Attached)})
	}
	for key, vol := range v.volumes {
		attached := false
		switch vol.State {
		case client.Volume_MOUNTED, client.Volume_UNSETTLED, client.Volume_PENDING:
			attached = true
		}
		owner := vol.GetRegistered().GetFrameworkId()
		if attached || owner != "" || len(vol.Replicas) > 0 {
			r.Volumes[key] = core.BridgeVolume{Attached: attached, Framework: owner, Replicas: vol.Replicas, Zone: vol.Zone}
		}
	}
	return r
}
