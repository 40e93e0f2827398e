package core

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Bridges are the isolator-bridges of the agents, as the core uses them. Methods
// that take a context make one call and return when it is answered or ctx ends;
// the others never wait.
type Bridges interface {
	// Track says with the bridges of which agents to keep in touch.
	Track(agents []BridgeAgent)
	// News has something when Reports may have changed.
	News() <-chan struct{}
	// Reports are the latest of the agents that are tracked, by agent id. They
	// are never changed after they were returned.
	Reports() map[string]*BridgeReport

	// Register has an epoch kept on the agent before the launch. With a lease it
	// returns the terms of it.
	Register(ctx context.Context, frameworkID string, e Epoch) (LeaseTerms, error)
	// Withdraw ends an epoch on the agent. Released: nothing is left of it there;
	// otherwise the reason says what is.
	Withdraw(ctx context.Context, frameworkID string, e Epoch) (released bool, reason string, err error)
	// Remove ends an epoch on the agent and, if nothing is left of it there,
	// destroys the volume; otherwise the reason says what is left.
	Remove(ctx context.Context, frameworkID string, e Epoch) (removed bool, reason string, err error)

	// Hold renews these leases, and only these, from now on.
	Hold(frameworkID string, leases []Epoch)
	// LeaseOver tells when a lease that is not renewed any more is over on its
	// agent. Trusted is false where only the agent's own software enforces that.
	LeaseOver(e Epoch) (at time.Time, trusted bool)
}

// BridgeAgent is an agent whose bridge is looked for.
type BridgeAgent struct {
	ID, Hostname string
	// Attribute is the agent's attribute dvdi_bridge, empty if it has none.
	Attribute string
}

// Options that the volume engine of an agent understands whose bridge says so.
const (
	instanceOption = "dvdi.instance"
	epochOption    = "dvdi.epoch"
	leaseOption    = "dvdi.lease"
)

// bridgeAttribute names the attribute.
const bridgeAttribute = "dvdi_bridge"

// Epoch is a claim on an agent, and with a lease its terms.
type Epoch struct {
	AgentID string
	Key     scheduler.VolumeKey
	Number  uint64
	Terms   LeaseTerms
}

// LeaseTerms are those of a lease; the zero value is none.
type LeaseTerms struct {
	Lease time.Duration `json:"lease"`
	Grace time.Duration `json:"grace"`
	// Trusted says that the agent's bridge says that the expiry may be relied on.
	Trusted bool `json:"trusted"`
}

// BridgeReport is what an agent's bridge tells. Without an answer at present it
// is the last one that there was, with Known false; an agent whose bridge has
// neither answered nor failed to has no report.
type BridgeReport struct {
	Agent scheduler.AgentFact
	// Epochs, Leases and Removal say what the agent's engine and bridge understand.
	Epochs, Leases, Removal bool
	// Scopes are what the agent's drivers say of theirs, as one of the Scope
	// constants of app. A driver that does not answer has none.
	Scopes map[string]string
	// Volumes on which there is anything to say.
	Volumes map[scheduler.VolumeKey]BridgeVolume
}

// BridgeVolume is the state of a volume on an agent.
type BridgeVolume struct {
	// Attached: it is mounted, or may be.
	Attached bool
	// Framework is whose epoch is registered there, or was last.
	Framework string
	Replicas  []string
	// Zone is where it can be attached by the word of its driver, which may be in
	// other words than the agents'. Empty: the driver says nothing at present.
	Zone string
}

// bridgeFlow is what the core knows of bridges. None of it is stored.
type bridgeFlow struct {
	// seen are the agents that made offers, and when last.
	seen map[string]seenAgent
	// asking are the withdrawals under way, by volume; next is when each may be
	// asked again.
	asking map[scheduler.VolumeKey]bool
	next   map[scheduler.VolumeKey]time.Time
	// reasons say why a volume is not released yet.
	reasons map[scheduler.VolumeKey]string
	// fences are when claims on lost agents end.
	fences map[scheduler.VolumeKey]time.Time
	// looked are the agents' reports from which homes were noted last.
	looked map[string]*BridgeReport
	// expected are the new agents whose bridges have said nothing yet, and until when
	// that is waited for; waitUntil is the last of these moments, zero without any.
	expected  map[string]time.Time
	waitUntil time.Time
	// removals are those that are due.
	removals map[scheduler.VolumeKey]*removing
}

type seenAgent struct {
	agent BridgeAgent
	last  time.Time
}

func newBridgeFlow() bridgeFlow {
	return bridgeFlow{seen: map[string]seenAgent{}, asking: map[scheduler.VolumeKey]bool{}, next: map[scheduler.VolumeKey]time.Time{},
		reasons: map[scheduler.VolumeKey]string{}, fences: map[scheduler.VolumeKey]time.Time{}, looked: map[string]*BridgeReport{},
		expected: map[string]time.Time{}, removals: map[scheduler.VolumeKey]*removing{}}
}

const (
	// forgetAgent is how long after its last offer an agent is tracked.
	forgetAgent = 24 * time.Hour
	// withdrawEvery is how often a bridge is asked whether a volume is released.
	withdrawEvery = 2 * time.Second
	// bridgeTimeout bounds one call to a bridge.
	bridgeTimeout = 3 * time.Second
)

// bridgeNews is nil where there are no bridges.
func (c *Core) bridgeNews() <-chan struct{} {
	if c.cfg.Bridges == nil {
		return nil
	}
	return c.cfg.Bridges.News()
}

// noteAgents keeps the agents that make offers, whose bridges are asked for
// facts.
func (c *Core) noteAgents(tx *txn, offers []scheduler.Offer) {
	if c.cfg.Bridges == nil {
		return
	}
	changed := false
	for _, o := range offers {
		a := BridgeAgent{ID: o.AgentID, Hostname: o.Hostname, Attribute: o.Attributes[bridgeAttribute]}
		before, known := c.bridges.seen[o.AgentID]
		if !known {
			c.expectBridge(o.AgentID, tx.now)
		}
		changed = changed || before.agent != a
		c.bridges.seen[o.AgentID] = seenAgent{agent: a, last: tx.now}
	}
	if changed {
		c.track(tx.now)
	}
}

// track says with which bridges to keep in touch: of agents that make offers,
// and of those with claims or with volumes that are to be removed.
func (c *Core) track(now time.Time) {
	agents := map[string]BridgeAgent{}
	for _, v := range c.state.volumes {
		if v.Claim != nil {
			agents[v.Claim.AgentID] = BridgeAgent{ID: v.Claim.AgentID, Hostname: v.Claim.Hostname, Attribute: v.Claim.Bridge}
		} else if v.Reclaim.due() {
			agents[v.LastAgent] = BridgeAgent{ID: v.LastAgent, Hostname: v.LastHostname, Attribute: v.Reclaim.Bridge}
		}
	}
	for id, s := range c.bridges.seen {
		if now.Sub(s.last) > forgetAgent {
			delete(c.bridges.seen, id)
			continue
		}
		agents[id] = s.agent
	}
	list := make([]BridgeAgent, 0, len(agents))
	for _, a := range agents {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b BridgeAgent) int { return strings.Compare(a.ID, b.ID) })
	c.cfg.Bridges.Track(list)
}

// handleBridges looks at new reports: an agent may have become fit for what
// waits, a volume may be released.
func (c *Core) handleBridges(tx *txn) {
	clear(c.bridges.next)
	c.noteReports(tx)
	c.tickBridges(tx)
	if c.someoneWaits(tx.now) {
		c.flow.wantRevive()
	}
}

// tickBridges asks for the release of what nobody uses any more, says which
// leases are to be renewed, and ends claims whose fence has expired.
func (c *Core) tickBridges(tx *txn) {
	if c.cfg.Bridges == nil {
		return
	}
	c.track(tx.now)
	clear(c.bridges.fences)
	var hold []Epoch
	reports := c.cfg.Bridges.Reports()
	for _, v := range c.state.sortedVolumes() {
		if v.Claim == nil {
			delete(c.bridges.reasons, v.Key)
			continue
		}
		e := v.Claim.epoch(v.Key)
		state := c.state.claimState(v.Claim)
		if state == scheduler.Releasing && reports[e.AgentID].known() {
			c.withdraw(tx, e)
		}
		switch {
		case e.Terms.Lease == 0:
		case state == scheduler.Lost:
			c.fence(tx, v, e)
		default:
			hold = append(hold, e)
		}
	}
	c.cfg.Bridges.Hold(c.state.meta.FrameworkID, hold)
}

func (r *BridgeReport) known() bool { return r != nil && r.Agent.Known }

func (cl *claim) epoch(key scheduler.VolumeKey) Epoch {
	return Epoch{AgentID: cl.AgentID, Key: key, Number: cl.Epoch, Terms: cl.Terms}
}

// withdraw asks the agent's bridge to end an epoch whose tasks are over, again
// and again until nothing is left of it. From the first time on nothing mounts
// the volume there under it.
func (c *Core) withdraw(tx *txn, e Epoch) {
	if c.bridges.asking[e.Key] || tx.now.Before(c.bridges.next[e.Key]) {
		return
	}
	c.bridges.asking[e.Key] = true
	c.bridges.next[e.Key] = tx.now.Add(withdrawEvery)
	frameworkID := c.state.meta.FrameworkID
	var released bool
	var reason string
	tx.aside(call{
		make: func(ctx context.Context) (err error) {
			ctx, cancel := context.WithTimeout(ctx, bridgeTimeout)
			defer cancel()
			released, reason, err = c.cfg.Bridges.Withdraw(ctx, frameworkID, e)
			return err
		},
		done: func(tx *txn, err error) {
			delete(c.bridges.asking, e.Key)
			if err != nil {
				reason = err.Error()
			}
			if !released || err != nil {
				c.bridges.reasons[e.Key] = reason
				return
			}
			c.released(tx, e)
		},
	})
}

// released ends a claim of which nothing is left on its agent. A claim that has
// moved on meanwhile, or is in use again, is another one.
func (c *Core) released(tx *txn, e Epoch) {
	v := c.state.volumes[e.Key]
	if v == nil || v.Claim == nil || v.Claim.AgentID != e.AgentID || v.Claim.Epoch != e.Number || len(v.Claim.Holders) > 0 {
		return
	}
	tx.endClaim(v, "the agent's bridge reports it unmounted and its containers gone")
}

// fence ends a claim on an unreachable agent when its lease, which is not
// renewed any more, is over and that can be relied upon. Otherwise it holds.
func (c *Core) fence(tx *txn, v *volumeRecord, e Epoch) {
	at, trusted := c.cfg.Bridges.LeaseOver(e)
	switch {
	case !trusted:
		if !tx.now.Before(at) && !v.Claim.Alerted {
			v.Claim.Alerted = true
			tx.saveVolume(v)
			c.log.Error("a lease is over and nothing outside of the unreachable agent enforces that; the volume stays with it",
				zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name), zap.String("agent", e.AgentID))
		}
	case tx.now.Before(at):
		c.bridges.fences[v.Key] = at
	default:
		tx.disown(v, "its lease is over, which a watchdog or the backend enforces")
	}
}

// epochOptions adds what the volume engine of an agent whose bridge understands
// it is told of the claims of a launch.
func (c *Core) epochOptions(i *instance, def *app.App, options map[int]map[string]string) map[int]map[string]string {
	if c.cfg.Bridges == nil {
		return options
	}
	report := c.cfg.Bridges.Reports()[i.Task.AgentID]
	if !report.known() || !report.Epochs {
		return options
	}
	for _, n := range def.ExternalVolumes() {
		e := def.Container.Volumes[n].External
		v := c.state.volumes[scheduler.VolumeKey{Driver: e.Driver(), Name: e.Name}]
		if v == nil || v.Claim == nil || !slices.Contains(i.Task.Volumes, v.Key) {
			continue
		}
		if options == nil {
			options = map[int]map[string]string{}
		}
		if options[n] == nil {
			options[n] = map[string]string{}
		}
		options[n][instanceOption] = i.ID
		options[n][epochOption] = strconv.FormatUint(v.Claim.Epoch, 10)
		if v.Claim.Terms.Lease > 0 {
			options[n][leaseOption] = v.Claim.Terms.Lease.String()
		}
	}
	return options
}

// registerError says that a launch was not sent because its epochs could not be
// registered with the agent's bridge.
type registerError struct {
	agentID string
	err     error
}

func (e *registerError) Error() string {
	return fmt.Sprintf("claim not registered with the bridge of agent %s: %v; the launch is tried again", e.agentID, e.err)
}

func (e *registerError) Unwrap() error { return e.err }

// askForLeases notes which of an instance's claims are to have a lease: those of
// fenced volumes, where the agent's bridge keeps leases.
func (c *Core) askForLeases(tx *txn, i *instance, def *app.App) {
	if c.cfg.Bridges == nil {
		return
	}
	report := c.cfg.Bridges.Reports()[i.Task.AgentID]
	if !report.known() || !report.Epochs || !report.Leases {
		return
	}
	for _, n := range def.ExternalVolumes() {
		e := def.Container.Volumes[n].External
		v := c.state.volumes[scheduler.VolumeKey{Driver: e.Driver(), Name: e.Name}]
		if v == nil || v.Claim == nil || !slices.Contains(i.Task.Volumes, v.Key) {
			continue
		}
		if lease := e.Lease(def); lease > 0 && v.Claim.Terms.Lease == 0 && len(v.Claim.Holders) == 1 {
			v.Claim.Terms.Lease = lease
			tx.saveVolume(v)
		}
	}
}

// toRegister are the claims of launches that the agent's bridge has to know
// first: those whose epoch the tasks are given.
func (c *Core) toRegister(accept Accept, launched []*instance) (out []Epoch) {
	given := map[string]bool{} // instances
	for _, op := range accept.Operations {
		if op.Task == nil {
			continue
		}
		for _, o := range op.Task.VolumeOptions {
			given[op.Task.InstanceID] = given[op.Task.InstanceID] || o[epochOption] != ""
		}
	}
	for _, i := range launched {
		if !given[i.ID] {
			continue
		}
		for _, key := range i.Task.Volumes {
			if v := c.state.volumes[key]; v != nil && v.Claim != nil && !slices.ContainsFunc(out, func(e Epoch) bool { return e.Key == key }) {
				out = append(out, v.Claim.epoch(key))
			}
		}
	}
	return out
}

// register has the claims of a launch registered, and then the launch sent. What
// the bridge tells of leases is committed before that.
func (c *Core) register(tx *txn, epochs []Epoch, launched []*instance, send call) {
	frameworkID := c.state.meta.FrameworkID
	terms := make([]LeaseTerms, len(epochs))
	tx.aside(call{
		make: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, bridgeTimeout)
			defer cancel()
			for n, e := range epochs {
				var err error
				if terms[n], err = c.cfg.Bridges.Register(ctx, frameworkID, e); err != nil {
					return &registerError{e.AgentID, err}
				}
			}
			return nil
		},
		done: func(tx *txn, err error) {
			if err != nil {
				send.done(tx, err)
				return
			}
			for n, e := range epochs {
				v := c.state.volumes[e.Key]
				if v == nil || v.Claim == nil || v.Claim.Epoch != e.Number {
					continue
				}
				v.Claim.Terms = terms[n]
				tx.saveVolume(v)
			}
			for _, i := range launched {
				if c.state.instances[i.ID] == i && i.Phase == launching {
					i.Since = tx.now // the launch is only now on its way
					tx.saveInstance(i)
				}
			}
			tx.call(send)
		},
	})
}

// addBridgeFacts puts what the bridges report into a snapshot.
func (c *Core) addBridgeFacts(s *scheduler.Snapshot) {
	if c.cfg.Bridges == nil {
		return
	}
	facts := map[scheduler.VolumeKey]*scheduler.VolumeFact{}
	for n := range s.Volumes {
		facts[s.Volumes[n].Key] = &s.Volumes[n]
	}
	var wanted []scheduler.VolumeFact
	for _, p := range s.Pending {
		for _, r := range p.Volumes {
			if facts[r.Key] == nil {
				wanted = append(wanted, scheduler.VolumeFact{Key: r.Key})
				facts[r.Key] = &scheduler.VolumeFact{}
			}
		}
	}
	for n := range wanted {
		facts[wanted[n].Key] = &wanted[n]
	}
	reports := c.cfg.Bridges.Reports()
	ids := make([]string, 0, len(reports))
	for id := range reports {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var launched map[string]map[scheduler.VolumeKey]bool
	for _, id := range ids {
		r := reports[id]
		s.Agents = append(s.Agents, r.Agent)
		if !r.Agent.Known {
			continue
		}
		if limitsAttachments(r) {
			if launched == nil {
				launched = c.volumesByAgent()
			}
			s.Agents[len(s.Agents)-1].Drivers = attachmentsAhead(r, launched[id])
		}
		for key, v := range r.Volumes {
			f := facts[key]
			if f == nil {
				continue
			}
			if v.Attached && c.isHome(f, id) {
				f.AttachedTo = append(f.AttachedTo, id)
			}
			for _, host := range v.Replicas {
				if !slices.Contains(f.Replicas, host) {
					f.Replicas = append(f.Replicas, host)
				}
			}
		}
	}
	s.Volumes = append(s.Volumes, wanted...)
	for n := range s.Claims {
		if at, fenced := c.bridges.fences[s.Claims[n].Key]; fenced {
			s.Claims[n].State, s.Claims[n].FenceAt = scheduler.Fenced, at
		}
	}
}

// limitsAttachments tells whether a driver on an agent can attach so many volumes
// only.
func limitsAttachments(r *BridgeReport) bool {
	return slices.ContainsFunc(r.Agent.Drivers, func(d scheduler.DriverFact) bool { return d.AttachLimit > 0 })
}

// volumesByAgent are the exclusive volumes that tasks have, by the tasks' agents.
func (c *Core) volumesByAgent() map[string]map[scheduler.VolumeKey]bool {
	out := map[string]map[scheduler.VolumeKey]bool{}
	for _, i := range c.state.instances {
		if i.Task == nil || i.Forgotten {
			continue
		}
		for _, key := range i.Task.Volumes {
			if out[i.Task.AgentID] == nil {
				out[i.Task.AgentID] = map[scheduler.VolumeKey]bool{}
			}
			out[i.Task.AgentID][key] = true
		}
	}
	return out
}

// attachmentsAhead are an agent's drivers with what was launched there and its
// bridge has not seen attached yet: its word is always that of a moment ago, and
// several rounds may fall between two.
func attachmentsAhead(r *BridgeReport, launched map[scheduler.VolumeKey]bool) []scheduler.DriverFact {
	drivers := slices.Clone(r.Agent.Drivers)
	for key := range launched {
		if r.Volumes[key].Attached {
			continue
		}
		for n := range drivers {
			if drivers[n].Name == key.Driver {
				drivers[n].Attached++
			}
		}
	}
	return drivers
}

// isHome tells whether a volume that an agent's bridge reports is the one that
// is meant: where it is local, another agent's of that name is another volume.
func (c *Core) isHome(f *scheduler.VolumeFact, agentID string) bool {
	return !f.Local || agentID == f.LastAgent || c.bridges.seen[agentID].agent.Hostname == f.LastHostname
}

// apart makes calls that need not keep the order of those to the master, such as
// those to bridges, each in a goroutine of its own: one that hangs holds up
// nobody. Run waits for them.
func (c *Core) apart(cl call) {
	c.aparts.Go(func() {
		err := cl.make(c.apartCtx)
		c.outbox.deliver(c.apartCtx, func(tx *txn) { cl.done(tx, err) })
	})
}

// aside has a call made apart once the transaction is committed.
func (tx *txn) aside(cl call) { tx.asides = append(tx.asides, cl) }
