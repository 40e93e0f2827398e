package core

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// offerFlow is what the core knows of offers. None of it is stored: offers are
// void after a restart.
type offerFlow struct {
	held  map[string]scheduler.Offer
	round bool // a decision is due
	// lastLook is when the last decision was made.
	lastLook time.Time
	// revive: something waits that earlier declined offers may serve.
	revive bool
	// relook: instances are to be moved, or volumes may be taken over, for which
	// the offers of all agents are wanted although nothing waits.
	relook bool
	// revives allows one revive per interval in the long run, since each makes
	// the master offer everything again, but not one by one, so that a single
	// change need not wait for its turn.
	revives    *rate.Limiter
	suppressed map[string]bool
	// looks says for each waiting instance how the last decision with offers
	// looked at it; counts are per app for GET /v2/queue.
	looks  map[string]scheduler.Waiting
	counts map[app.ID]*offerCounts
	// filtered is when offers were last declined for long since the last
	// revive, zero if they were not.
	filtered time.Time
	// unavailable says when maintenance of an agent begins and how long it
	// takes, as its latest offer announced.
	unavailable map[string]maintenance
	// answered says how the inverse offers for each agent were answered last.
	answered  map[string]answer
	drainLook drainLook
	// operations are those whose outcome is to be told; mute are agents that do
	// not tell. leftovers are those that the latest offers of agents showed.
	operations map[string]sentOperation
	mute       map[string]bool
	leftovers  map[leftoverKey]keptAside
}

// offerCounts are the numbers that GET /v2/queue shows of an app's offers.
type offerCounts struct {
	processed, unused    int
	lastUnused, lastUsed time.Time
}

func newOfferFlow(reviveInterval time.Duration) offerFlow {
	return offerFlow{
		revives:     rate.NewLimiter(rate.Every(reviveInterval), reviveBurst),
		held:        map[string]scheduler.Offer{},
		suppressed:  map[string]bool{},
		looks:       map[string]scheduler.Waiting{},
		counts:      map[app.ID]*offerCounts{},
		unavailable: map[string]maintenance{},
		answered:    map[string]answer{},
		operations:  map[string]sentOperation{},
		mute:        map[string]bool{},
		leftovers:   map[leftoverKey]keptAside{},
	}
}

// wantRevive asks for offers again, also those that were declined: something
// new waits, or something that waited may go elsewhere now.
func (f *offerFlow) wantRevive() { f.revive, f.round = true, true }

// forget drops what is known of an instance that waits no more.
func (f *offerFlow) forget(instanceID string) { delete(f.looks, instanceID) }

// reset drops everything that belonged to an ended subscription.
func (f *offerFlow) reset() {
	f.held = map[string]scheduler.Offer{}
	f.suppressed = map[string]bool{}
	f.operations = map[string]sentOperation{}
}

// scheduleRound decides on the offers at hand and on what waits, if either has
// changed. Offers are held no longer than one round.
func (c *Core) scheduleRound(tx *txn) {
	if !c.link.connected || !c.flow.round {
		return
	}
	if len(c.flow.held) == 0 && tx.now.Sub(c.flow.lastLook) < c.cfg.Tick {
		// Without offers a decision only tells the queue why things wait;
		// a burst of changes needs that once. The next tick comes back to it.
		c.applyFlow(tx, scheduler.Plan{})
		return
	}
	c.flow.round = false
	c.flow.lastLook = tx.now
	c.noteReturned(tx)
	c.noteReturnedHomes(tx)
	c.forgetUnseen(tx)
	c.finishWiped(tx)
	c.settleShared(tx)
	c.noteFirstWords(tx.now)
	snapshot := c.snapshot(tx.now)
	plan := scheduler.Decide(snapshot)
	if c.cfg.Decisions != nil {
		c.cfg.Decisions(scheduler.Record{Snapshot: snapshot, Plan: plan})
	}
	c.expireReservations(tx, plan.Expired)
	c.noteLeftovers(tx, snapshot.Offers, plan.Leftovers)
	used := c.applyAccepts(tx, plan.Accepts)
	c.applyDeclines(tx, plan.Declines, used)
	for _, k := range plan.Kills {
		c.move(tx, k)
	}
	c.noteWaiting(tx, plan.Waiting, len(snapshot.Offers) > 0)
	c.applyFlow(tx, plan)
}

// snapshot is everything that the decision depends on.
func (c *Core) snapshot(now time.Time) scheduler.Snapshot {
	s := scheduler.Snapshot{Now: now, Seed: c.state.meta.Sequence, Policy: c.cfg.Policy}
	s.Policy.LocalRegion = c.link.region
	s.Policy.Ours = c.labelFormats()
	// What a restored backup does not know may still be somebody's, at any time.
	s.Policy.ReleaseUnknown = c.state.meta.RestoredAt.IsZero()
	// What may be taken over shows in offers only.
	s.Policy.NoSuppress = s.Policy.NoSuppress || len(c.cfg.Adopt) > 0
	for _, o := range c.flow.held {
		s.Offers = append(s.Offers, o)
	}
	for _, i := range c.state.instances {
		if p, ok := c.placed(i); ok {
			c.addKind(&s, &p, i)
			s.Placed = append(s.Placed, p)
		} else if def := c.state.definition(i); def != nil && i.Phase == waiting {
			s.Pending = append(s.Pending, c.pendingInstance(i, def, now))
		}
		switch {
		case i.Phase == wiping:
			s.Wiped = append(s.Wiped, i.ID)
		case i.Reserved != nil && (i.Phase == suspended || i.Forgotten):
			s.Known = append(s.Known, i.ID)
		}
		addHome(&s, i)
	}
	c.addShared(&s)
	c.addVolumes(&s)
	for _, role := range c.link.roles {
		s.Roles = append(s.Roles, scheduler.RoleState{Role: role, Suppressed: c.flow.suppressed[role], FilteredAt: c.flow.filtered})
	}
	c.addBridgeFacts(&s)
	c.addDraining(&s, now) // marks the agents that the bridges tell of, too
	return s
}

// addVolumes tells the scheduler what is known of the volumes that something
// waits for; the others, of which there may be very many, decide nothing.
func (c *Core) addVolumes(s *scheduler.Snapshot) {
	seen := map[scheduler.VolumeKey]bool{}
	for i := range s.Pending {
		for n := range s.Pending[i].Volumes {
			r := &s.Pending[i].Volumes[n]
			v := c.state.volumes[r.Key]
			if v != nil && v.Claim != nil && !v.Claim.Exclusive {
				// What is mounted may have been before anybody said so: the claim
				// stays as it was made.
				r.BackendExclusive = false
			}
			if v == nil || seen[r.Key] {
				continue
			}
			seen[r.Key] = true
			if v.Claim != nil {
				s.Claims = append(s.Claims, c.state.schedulerClaim(v))
			}
			f := scheduler.VolumeFact{Key: v.Key, LastAgent: v.LastAgent, LastHostname: v.LastHostname}
			c.bind(&f, s.Pending[i].ID)
			s.Volumes = append(s.Volumes, f)
		}
	}
	s.Claims = append(s.Claims, c.state.formerClaims(seen)...)
}

func (c *Core) placed(i *instance) (scheduler.Placed, bool) {
	if i.Task == nil || i.Forgotten {
		return scheduler.Placed{}, false
	}
	t := i.Task
	counts := false
	if r := c.state.apps[i.App]; r != nil {
		counts = i.Config.Compare(configOf(r.App)) >= 0 && !i.lost()
	}
	return scheduler.Placed{
		ID: i.ID, App: string(i.App), AgentID: t.AgentID, Hostname: t.Hostname,
		Region: t.Region, Zone: t.Zone, Attributes: t.Attributes, Counts: counts,
		Movable: c.mayMove() && c.movable(i), Since: t.StagedAt, CPUs: t.CPUs, Mem: t.Mem, Moving: i.Moved != nil,
	}, true
}

// pendingInstance translates an instance that waits into what the scheduler
// needs to know of it.
func (c *Core) pendingInstance(i *instance, def *app.App, now time.Time) scheduler.Instance {
	role := roleOf(def, c.cfg.DefaultRole)
	p := scheduler.Instance{
		ID: i.ID, App: string(i.App), AppInstances: def.Instances, Role: role,
		CPUs: milli(def.CPUs), Mem: milli(def.Mem), Disk: milli(def.Disk),
		GPUs:    milli(float64(def.GPUs)),
		Ports:   hostPorts(def),
		Volumes: c.requestsOf(i, def),
		Since:   i.Since, WaitFrom: c.waitFrom(i, def),
	}
	p.AcceptUnreserved, p.AcceptReserved = c.acceptedRoles(def, role)
	if def.ExecutorRes != nil && def.Executor != "" && def.Executor != "//cmd" {
		p.CPUs += milli(def.ExecutorRes.CPUs)
		p.Mem += milli(def.ExecutorRes.Mem)
		p.Disk += milli(def.ExecutorRes.Disk)
	}
	for _, con := range def.Constraints {
		if sc, ok := constraint(con); ok {
			p.Constraints = append(p.Constraints, sc)
		}
	}
	if r := c.state.apps[i.App]; r != nil {
		p.NotBefore = r.Backoff.until(i.Config)
	}
	for _, hold := range []time.Time{c.holdUntil(def), c.endingUntil(i, def), c.adoptUntil(i, def), i.returnUntil(), c.homeUntil(i, def), c.bridgesUntil(def)} {
		if hold.After(p.NotBefore) {
			p.NotBefore = hold
		}
	}
	c.addResident(&p, i, def)
	p.Wait = waitOf(def, c.cfg.Policy.Wait)
	if i.Moved != nil {
		p.Avoid, p.AvoidUntil = i.Moved.AgentID, i.Moved.At.Add(moveAvoidance)
	}
	if c.removalText(i) != "" {
		// Until the volume is removed.
		if soon := now.Add(c.cfg.Tick); soon.After(p.NotBefore) {
			p.NotBefore = soon
		}
	}
	p.GPUUnrestricted = def.Labels["GPU_SCHEDULING_BEHAVIOR"] == "unrestricted"
	return p
}

// applyAccepts launches what the plan places and returns the offers used.
func (c *Core) applyAccepts(tx *txn, accepts []scheduler.Accept) map[string]bool {
	used := map[string]bool{}
	for _, a := range accepts {
		c.applyAccept(tx, a, used)
	}
	return used
}

func (c *Core) applyAccept(tx *txn, a scheduler.Accept, used map[string]bool) {
	offer, ok := c.flow.held[firstOf(a.OfferIDs)]
	if !ok {
		c.log.Error("the plan uses an offer that is not at hand", zap.Strings("offers", a.OfferIDs))
		return
	}
	accept := Accept{OfferIDs: a.OfferIDs, AgentID: a.AgentID, Refuse: a.Refuse}
	launched, tasks := c.launchAll(tx, offer, a.Operations)
	for _, op := range a.Operations {
		if o, ok := c.operation(tx, op, tasks, a.AgentID); ok {
			accept.Operations = append(accept.Operations, o)
		}
	}
	if len(accept.Operations) == 0 {
		return // declined with the offers that are left
	}
	for _, id := range a.OfferIDs {
		used[id] = true
		delete(c.flow.held, id)
	}
	c.sendAccept(tx, accept, launched)
}

// launchAll turns the instances of an accept into launched ones. Those that
// cannot be launched have no task.
func (c *Core) launchAll(tx *txn, offer scheduler.Offer, ops []scheduler.Operation) (launched []*instance, tasks map[string]*Task) {
	tasks = map[string]*Task{}
	for _, op := range ops {
		if op.Kind != scheduler.OpLaunch {
			continue
		}
		i, t := c.launch(tx, offer, op.Launch)
		if i == nil {
			// The plan counts on the launch and may suppress offers.
			c.flow.wantRevive()
			continue
		}
		launched = append(launched, i)
		tasks[i.ID] = t
	}
	return launched, tasks
}

// operation translates one operation of a plan. What belongs to a launch that
// was refused is left out.
func (c *Core) operation(tx *txn, op scheduler.Operation, tasks map[string]*Task, agentID string) (Operation, bool) {
	t := tasks[op.InstanceID]
	switch op.Kind {
	case scheduler.OpLaunch:
		return Operation{Kind: op.Kind, Task: t}, t != nil
	case scheduler.OpReserve, scheduler.OpCreate:
		if t == nil {
			return Operation{}, false
		}
	case scheduler.OpDestroy, scheduler.OpUnreserve:
		c.log.Info("giving back what an instance had reserved", zap.Stringer("operation", op.Kind),
			zap.String("instance", op.InstanceID), zap.String("agent", agentID))
		for _, i := range c.state.givenBack(op.InstanceID) {
			i.Reserved.Released = tx.now
			tx.saveInstance(i)
		}
	}
	return Operation{Kind: op.Kind, ID: c.operationID(op, agentID), Resources: op.Resources}, true
}

// mayMove tells whether the policy ever moves anything.
func (c *Core) mayMove() bool { return c.cfg.Policy.MaxMoves > 0 }

func firstOf(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// launch turns a waiting instance into one about to be launched. It returns
// nil when the instance cannot be launched there.
func (c *Core) launch(tx *txn, offer scheduler.Offer, l *scheduler.Launch) (*instance, *Task) {
	i := c.state.instances[l.InstanceID]
	if i == nil || i.Phase != waiting {
		c.log.Error("the plan launches an instance that does not wait", zap.String("instance", l.InstanceID))
		return nil, nil
	}
	def := c.state.definition(i).ForInstance(i.Ordinal)
	requests := c.volumeRequests(def)
	if tx.now.Before(c.holdUntil(def)) || tx.now.Before(c.endingUntil(i, def)) {
		c.log.Error("the plan launches what a restored backup or a new framework id holds back", zap.String("instance", i.ID))
		return nil, nil
	}
	for _, r := range requests {
		if err := c.state.checkClaim(r, i.ID, offer.AgentID); err != nil {
			c.log.Error("launch refused to keep two writers apart", zap.String("instance", i.ID), zap.Error(err))
			return nil, nil
		}
	}
	i.Incarnation++
	i.Phase, i.Since, i.Ready = launching, tx.now, time.Time{}
	i.Task = &task{
		ID: taskID(i.ID, i.Incarnation), AgentID: offer.AgentID, Hostname: offer.Hostname,
		Region: offer.Region, Zone: offer.Zone, Attributes: offer.Attributes,
		Role: roleOf(def, c.cfg.DefaultRole), Ports: l.Ports, State: taskStaging, StagedAt: tx.now,
		CPUs: milli(def.CPUs), Mem: milli(def.Mem),
	}
	c.reserve(tx, i)
	tx.claim(i, requests)
	c.askForLeases(tx, i, def)
	c.noteReclaim(tx, i, c.state.definition(i))
	tx.saveInstance(i)
	c.flow.forget(i.ID)
	c.countsOf(i.App).lastUsed = tx.now
	tx.publish(instanceChanged(tx.now, i, "Provisioned"))
	tx.publish(instancePlaced(tx.now, i, l.Why))
	c.log.Info("launching task", zap.String("task", i.Task.ID), zap.String("agent", offer.AgentID),
		zap.String("host", offer.Hostname), zap.String("why", l.Why))
	return i, &Task{
		ID: i.Task.ID, InstanceID: i.ID, AgentID: offer.AgentID, Hostname: offer.Hostname,
		App: def, Resources: l.Resources, Ports: l.Ports, VolumeOptions: c.epochOptions(i, def, engineOptions(def)),
	}
}

// sendAccept sends the launches after the commit. When the master did not take
// the call the instances wait again; when that is unknown, reconciliation
// finds out.
func (c *Core) sendAccept(tx *txn, accept Accept, launched []*instance) {
	type attempt struct{ instance, task string }
	attempts := make([]attempt, 0, len(launched))
	for _, i := range launched {
		attempts = append(attempts, attempt{i.ID, i.Task.ID})
	}
	send := call{
		agent: accept.AgentID,
		make: func(ctx context.Context) error {
			if err := c.resolveSecrets(accept); err != nil {
				return err
			}
			return c.mesos.Accept(ctx, accept)
		},
		done: func(tx *txn, err error) {
			if err == nil {
				return
			}
			c.log.Warn("launch not accepted by the master", zap.String("agent", accept.AgentID), zap.Error(err))
			if !errors.Is(err, ErrNotSubscribed) {
				// Where the call was refused the offers are still ours.
				c.decline(tx, accept.OfferIDs, c.cfg.Policy.RefuseWaiting)
			}
			var invalid *InvalidTaskError
			unsendable := errors.As(err, &invalid)
			for _, a := range attempts {
				i := c.state.instances[a.instance]
				if i == nil || i.Phase != launching || i.Task.ID != a.task {
					continue
				}
				if unsendable && invalid.TaskID == a.task {
					// As the master answers a task that it cannot take.
					c.taskEnded(tx, i, Status{TaskID: a.task, AgentID: accept.AgentID, State: taskError,
						Source: sourceMaster, Reason: "REASON_TASK_INVALID", Message: invalid.Reason})
					continue
				}
				if unsendable || notSent(err) {
					tx.release(i, true)
					c.ended(tx, i, taskKilled)
					continue
				}
				// Settle from now on: the call may still arrive.
				i.Since = tx.now
				tx.saveInstance(i)
			}
		},
	}
	if epochs := c.toRegister(accept, launched); len(epochs) > 0 {
		c.register(tx, epochs, launched, send)
		return
	}
	tx.call(send)
}

// notSent tells whether an error proves that a call had no effect. A gateway's
// answer proves nothing.
func notSent(err error) bool {
	var unregistered *registerError
	if errors.Is(err, ErrNotSubscribed) || errors.As(err, &unregistered) {
		return true
	}
	var refused *CallError
	if !errors.As(err, &refused) {
		return false
	}
	return refused.Status < 500 || refused.Status == http.StatusServiceUnavailable
}

// applyDeclines declines what the plan declines, and whatever offer it does
// not mention, so that none is held.
func (c *Core) applyDeclines(tx *txn, declines []scheduler.Decline, used map[string]bool) {
	for _, d := range declines {
		var ids []string
		for _, id := range d.OfferIDs {
			if _, held := c.flow.held[id]; held && !used[id] {
				ids = append(ids, id)
				delete(c.flow.held, id)
			}
		}
		c.decline(tx, ids, d.Refuse)
	}
	var rest []string
	for id := range c.flow.held {
		rest = append(rest, id)
	}
	clear(c.flow.held)
	slices.Sort(rest)
	c.decline(tx, rest, c.cfg.Policy.RefuseWaiting)
}

func (c *Core) decline(tx *txn, ids []string, refuse time.Duration) {
	if len(ids) == 0 {
		return
	}
	if refuse > c.cfg.Policy.RefuseWaiting {
		c.flow.filtered = tx.now
	}
	tx.call(call{
		make: func(ctx context.Context) error { return c.mesos.Decline(ctx, ids, refuse) },
		done: func(_ *txn, err error) {
			if err != nil {
				c.log.Info("offers not declined; the master takes them back when it times them out",
					zap.Strings("offers", ids), zap.Error(err))
			}
		},
	})
}

// noteWaiting keeps for the queue why instances wait. A decision without
// offers says nothing new of an instance that was looked at before.
func (c *Core) noteWaiting(tx *txn, list []scheduler.Waiting, withOffers bool) {
	for _, w := range list {
		if i := c.state.instances[w.InstanceID]; i != nil {
			if text := c.removalText(i); text != "" {
				w.Text = text
			}
			if text := c.adoptText(i, tx.now); text != "" {
				w.Text = text
			}
			if text := i.returnText(tx.now); text != "" {
				w.Text = text
			}
			if text := c.homeText(i, tx.now); text != "" {
				w.Text = text
			}
			if text := c.bridgesText(i, tx.now); text != "" {
				w.Text = text
			}
			if text := c.roleText(i); text != "" {
				w.Text = text
			}
		}
		if last, known := c.flow.looks[w.InstanceID]; known && !withOffers && last.Offers > 0 {
			// The text may tell of a claim that has changed; the numbers are
			// those of the last look at offers.
			if c.waitsForVolume(w.InstanceID) {
				last.Text, last.Until = w.Text, w.Until
				c.flow.looks[w.InstanceID] = last
			}
			continue
		}
		c.flow.looks[w.InstanceID] = w
		i := c.state.instances[w.InstanceID]
		if i == nil || !withOffers {
			continue
		}
		n := c.countsOf(i.App)
		n.processed += w.Offers
		n.unused += w.Offers
		n.lastUnused = tx.now
	}
}

// waitsForVolume tells whether a volume of the instance is claimed or to be
// removed.
func (c *Core) waitsForVolume(instanceID string) bool {
	i := c.state.instances[instanceID]
	if i == nil {
		return false
	}
	def := c.state.definition(i)
	if def == nil {
		return false
	}
	for _, r := range c.requestsOf(i, def) {
		if v := c.state.volumes[r.Key]; v != nil && (v.Claim != nil || v.Reclaim.due()) {
			return true
		}
	}
	return false
}

func (c *Core) countsOf(id app.ID) *offerCounts {
	if c.flow.counts[id] == nil {
		c.flow.counts[id] = &offerCounts{}
	}
	return c.flow.counts[id]
}

// reviveBurst is how many revives may come at once after a time without any.
const reviveBurst = 5

// applyFlow suppresses and revives.
func (c *Core) applyFlow(tx *txn, plan scheduler.Plan) {
	revive := slices.Clone(plan.Revive)
	if c.flow.revive && (c.flow.relook || c.someoneWaits(tx.now)) {
		revive = nil // where it is too early, tick comes back to it
		if c.flow.revives.AllowN(tx.now, 1) {
			revive = c.waitingRoles(tx.now)
			if c.flow.relook {
				revive = slices.Clone(c.link.roles)
			}
			c.flow.revive, c.flow.relook = false, false
		}
	} else {
		c.flow.revive = false
	}
	var suppress []string
	for _, role := range plan.Suppress {
		if !c.flow.suppressed[role] && !slices.Contains(c.waitingRoles(tx.now), role) {
			c.flow.suppressed[role] = true
			suppress = append(suppress, role)
		}
	}
	for _, role := range revive {
		delete(c.flow.suppressed, role)
		c.flow.filtered = time.Time{}
	}
	c.flowCall(tx, "suppress", suppress, c.mesos.Suppress)
	c.flowCall(tx, "revive", revive, c.mesos.Revive)
}

func (c *Core) flowCall(tx *txn, what string, roles []string, do func(context.Context, []string) error) {
	if len(roles) == 0 {
		return
	}
	tx.call(call{
		make: func(ctx context.Context) error { return do(ctx, roles) },
		done: func(_ *txn, err error) {
			if err == nil {
				return
			}
			c.log.Warn("offer flow not changed; it is tried again",
				zap.String("call", what), zap.Strings("roles", roles), zap.Error(err))
			if what == "revive" {
				c.flow.wantRevive()
			} else {
				for _, role := range roles {
					delete(c.flow.suppressed, role)
				}
			}
		},
	})
}

// someoneWaits tells whether an instance waits whose back-off is over.
func (c *Core) someoneWaits(now time.Time) bool { return len(c.waitingRoles(now)) > 0 }

// waitingRoles are the roles in which something waits. Those that are not
// subscribed to are left out: with one of them the master drops the whole call
// (Master::revive).
func (c *Core) waitingRoles(now time.Time) []string {
	var roles []string
	for _, i := range c.state.instances {
		if i.Phase == wiping && !slices.Contains(roles, i.Reserved.Role) {
			roles = append(roles, i.Reserved.Role)
		}
		if i.Phase != waiting {
			continue
		}
		r := c.state.apps[i.App]
		if r == nil || now.Before(r.Backoff.until(i.Config)) {
			continue
		}
		if role := roleOf(r.App, c.cfg.DefaultRole); !slices.Contains(roles, role) {
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return slices.DeleteFunc(roles, func(role string) bool { return !slices.Contains(c.link.roles, role) })
}
