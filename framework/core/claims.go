package core

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// claimError says why an instance may not have a volume on an agent.
type claimError struct {
	Key     scheduler.VolumeKey
	AgentID string
	Reason  string
}

func (e *claimError) Error() string {
	return fmt.Sprintf("volume %s of driver %s on agent %s: %s", e.Key.Name, e.Key.Driver, e.AgentID, e.Reason)
}

// checkClaim tells whether instance id may use a volume on an agent now. It is
// asked for every launch, whatever the scheduler decided: it is what keeps two
// writers apart.
func (s *state) checkClaim(r scheduler.VolumeRequest, id, agentID string) error {
	v := s.volumes[r.Key]
	if v != nil && v.Reclaim.due() {
		return &claimError{Key: r.Key, AgentID: agentID, Reason: "it is to be removed: " + v.Reclaim.Why}
	}
	if former := s.formerUser(r, id, agentID); former != nil && r.Exclusive() {
		return &claimError{Key: r.Key, AgentID: agentID, Reason: "it may still be in use there by " + former.Task.ID}
	}
	if v == nil || v.Claim == nil || s.superseded(v.Claim, r, agentID) {
		return nil
	}
	held := v.Claim
	refuse := func(reason string) error {
		return &claimError{Key: r.Key, AgentID: agentID, Reason: reason}
	}
	others := 0
	for _, h := range held.Holders {
		if h != id {
			others++
		}
	}
	switch {
	case held.AgentID != agentID:
		return refuse("it is claimed on agent " + held.AgentID)
	case s.claimState(held) == scheduler.Lost:
		return refuse("the agent is unreachable")
	case others > 0 && (held.Access == scheduler.OneTask || r.Single()):
		return refuse("it is in use by " + fmt.Sprint(held.Holders))
	}
	return nil
}

// superseded tells whether a claim gives way to a launch on another agent: its
// own agent is unreachable, and the backend itself keeps it from writing once
// the volume is attached elsewhere.
func (s *state) superseded(held *claim, r scheduler.VolumeRequest, agentID string) bool {
	return held.AgentID != agentID && held.Exclusive && r.BackendExclusive && s.claimState(held) == scheduler.Lost
}

// claim records that the instance's task may use the volumes on its agent. The
// caller has asked checkClaim.
func (tx *txn) claim(i *instance, requests []scheduler.VolumeRequest) {
	for _, r := range requests {
		if !r.Exclusive() {
			continue
		}
		v := tx.c.state.volumes[r.Key]
		if v == nil {
			v = &volumeRecord{Key: r.Key}
		}
		if v.Claim != nil && tx.c.state.superseded(v.Claim, r, i.Task.AgentID) {
			tx.disown(v, "its agent is unreachable and the backend refuses two attachments")
		}
		if v.Claim == nil {
			v.Claim = &claim{AgentID: i.Task.AgentID, Hostname: i.Task.Hostname}
		}
		held := v.Claim
		if len(held.Holders) == 0 {
			// A new claim, or the same agent takes over from an ended task:
			// a new epoch either way.
			v.Epoch++
			held.Epoch, held.Since = v.Epoch, tx.now
			held.Access = r.Strictest()
			held.Terms, held.Alerted = LeaseTerms{}, false
			held.Bridge = i.Task.Attributes[bridgeAttribute]
		}
		if !slices.Contains(held.Holders, i.ID) {
			held.Holders = append(held.Holders, i.ID)
		}
		held.LastTask, held.LastApp = i.Task.ID, i.App
		held.Exclusive = r.BackendExclusive
		v.LastAgent, v.LastHostname = held.AgentID, held.Hostname
		i.Task.Volumes = append(i.Task.Volumes, r.Key)
		tx.saveVolume(v)
	}
}

// release takes an instance whose task is terminal out of its claims. A claim
// without holders stays with its agent, since the volume is unmounted later
// than the task ends, and perhaps never; unless the backend excludes a second
// attachment, or the task never reached the agent.
func (tx *txn) release(i *instance, neverRan bool) {
	if i.Task == nil {
		return
	}
	for _, key := range i.Task.Volumes {
		v := tx.c.state.volumes[key]
		if v == nil || v.Claim == nil || !slices.Contains(v.Claim.Holders, i.ID) {
			continue
		}
		held := v.Claim
		held.Holders = slices.DeleteFunc(slices.Clone(held.Holders), func(h string) bool { return h == i.ID })
		held.Since = tx.now
		held.Used = held.Used || !neverRan
		tx.saveVolume(v)
		if len(held.Holders) > 0 {
			continue
		}
		switch {
		case held.Exclusive:
			tx.endClaim(v, "the task ended and the backend refuses two attachments")
		case !held.Used:
			tx.endClaim(v, "the task never reached the agent")
		default:
			tx.c.log.Info("volume stays with its agent until it is seen unmounted",
				zap.String("driver", key.Driver), zap.String("volume", key.Name),
				zap.String("agent", held.AgentID), zap.String("task", held.LastTask))
			tx.c.link.probeAt = tx.now
		}
	}
}

// endClaim frees a volume for any agent.
func (tx *txn) endClaim(v *volumeRecord, why string) {
	held := v.Claim
	v.Ending = "" // whoever ends the claim knows that its tasks are gone
	tx.c.log.Info("claim ended", zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name),
		zap.String("agent", held.AgentID), zap.Uint64("epoch", held.Epoch), zap.String("why", why))
	v.Claim = nil
	tx.saveVolume(v)
	tx.c.flow.wantRevive()
}

// formerUser finds an instance that was to give up a volume and whose task may still
// use it on an agent, if it should come back: what keeps two agents apart, a backend
// or an operator's word, does not keep two tasks apart on one.
func (s *state) formerUser(r scheduler.VolumeRequest, id, agentID string) (former *instance) {
	for _, i := range s.forgotten {
		if i.ID == id || !s.stillUses(i, r.Key) || i.Task.AgentID != agentID || !r.Single() && s.shares(i, r.Key) {
			continue
		}
		if former == nil || i.ID < former.ID {
			former = i
		}
	}
	return former
}

// stillUses tells whether the task of an instance that does not count any more had a
// volume, and holds no claim on it.
func (s *state) stillUses(i *instance, key scheduler.VolumeKey) bool {
	if i.Task == nil || !slices.Contains(i.Task.Volumes, key) {
		return false
	}
	v := s.volumes[key]
	return v == nil || v.Claim == nil || !slices.Contains(v.Claim.Holders, i.ID)
}

// shares tells whether an instance used a volume as one of several on its agent.
func (s *state) shares(i *instance, key scheduler.VolumeKey) bool {
	def := s.definition(i)
	if def == nil {
		return false
	}
	e := places(def.ForInstance(i.Ordinal))[key]
	return e != nil && e.Access() == app.AccessOneAgent
}

// formerClaims tell the scheduler where tasks may still use volumes that they were
// to give up: nothing else may use them on that agent, and everything elsewhere.
func (s *state) formerClaims(keys map[scheduler.VolumeKey]bool) (out []scheduler.Claim) {
	for _, i := range s.forgotten {
		if i.Task == nil {
			continue
		}
		for _, key := range i.Task.Volumes {
			if !keys[key] || !s.stillUses(i, key) {
				continue
			}
			access := scheduler.OneTask
			if s.shares(i, key) {
				access = scheduler.OneAgent
			}
			out = append(out, scheduler.Claim{Key: key, AgentID: i.Task.AgentID, Hostname: i.Task.Hostname,
				Access: access, Instances: []string{i.ID}, State: scheduler.Fenced})
		}
	}
	slices.SortFunc(out, func(a, b scheduler.Claim) int {
		return cmp.Or(compareVolumes(a.Key, b.Key), cmp.Compare(a.Instances[0], b.Instances[0]))
	})
	return out
}

// holdsVolume tells whether the instance is a holder of any claim.
func (s *state) holdsVolume(i *instance) bool {
	if i.Task == nil {
		return false
	}
	for _, key := range i.Task.Volumes {
		if v := s.volumes[key]; v != nil && v.Claim != nil && slices.Contains(v.Claim.Holders, i.ID) {
			return true
		}
	}
	return false
}

// claimState derives a claim's state from its holders.
func (s *state) claimState(held *claim) scheduler.ClaimState {
	if len(held.Holders) == 0 {
		return scheduler.Releasing
	}
	for _, id := range held.Holders {
		if i := s.instances[id]; i != nil && i.Task != nil && !i.Task.LostSince.IsZero() {
			return scheduler.Lost
		}
	}
	return scheduler.Held
}

// agentRemoved ends the claims of an agent that the master has removed for
// good and on which no task of ours is thought to run any more.
func (tx *txn) agentRemoved(agentID, why string) {
	tx.abandonReservations(agentID)
	tx.reclaimsLost(agentID)
	tx.homesLost(agentID)
	maps.DeleteFunc(tx.c.flow.leftovers, func(k leftoverKey, _ keptAside) bool { return k.agentID == agentID })
	for _, v := range tx.c.state.sortedVolumes() {
		if v.Claim != nil && v.Claim.AgentID == agentID && len(v.Claim.Holders) == 0 {
			tx.endClaim(v, why)
		}
	}
}

// probeAgents asks the master what became of the agents whose claims wait for
// their end. A task that the master does not know any more is answered for by
// its agent: TASK_GONE_BY_OPERATOR then says that the agent was marked gone,
// where TASK_UNREACHABLE or TASK_GONE say that it may come back or is there
// (Master::reconcileTasks, cases 3 to 6). A claim that nobody waits for is not
// asked about before all are.
func (c *Core) probeAgents(tx *txn, all bool) {
	if !c.link.connected || !all && tx.now.Before(c.link.probeAt) {
		return
	}
	c.link.probeAt = tx.now.Add(c.cfg.ProbeInterval)
	wanted := c.wantedVolumes()
	var refs []TaskRef
	for _, v := range c.state.sortedVolumes() {
		if v.Claim == nil {
			if v.Home != nil && v.Home.Local && !v.Home.isGone() && (all || wanted[v.Key]) {
				refs = append(refs, TaskRef{TaskID: v.Home.Task, AgentID: v.Home.AgentID})
			}
			continue
		}
		state := c.state.claimState(v.Claim)
		if state == scheduler.Lost || state == scheduler.Releasing && (all || wanted[v.Key]) {
			refs = append(refs, TaskRef{TaskID: v.Claim.LastTask, AgentID: v.Claim.AgentID})
		}
	}
	refs = append(refs, c.reservedRefs(all)...)
	refs = append(refs, c.reclaimRefs()...)
	if len(refs) > 0 {
		tx.call(c.reconcileCall(refs))
	}
}

// wantedVolumes are the volumes that waiting instances ask for.
func (c *Core) wantedVolumes() map[scheduler.VolumeKey]bool {
	wanted := map[scheduler.VolumeKey]bool{}
	for _, i := range c.state.instances {
		if i.Phase != waiting {
			continue
		}
		if def := c.state.definition(i); def != nil {
			for _, r := range c.requestsOf(i, def) {
				wanted[r.Key] = true
			}
		}
	}
	return wanted
}

// goneReconciled handles the answer that an agent is gone. A draining agent
// relabels its own kills in the same way, so the answer counts only if the
// operator API does not know the agent either.
func (c *Core) goneReconciled(tx *txn, agentID string) {
	if agentID == "" || !c.state.hasClaimOn(agentID) && !c.state.hasReservationOn(agentID) && !c.state.hasHomeOn(agentID) && !c.state.hasReclaimOn(agentID) {
		return
	}
	var removed bool
	tx.call(call{
		make: func(ctx context.Context) (err error) {
			removed, err = c.mesos.AgentRemoved(ctx, agentID)
			return err
		},
		done: func(tx *txn, err error) {
			if err != nil {
				c.log.Warn("cannot ask the master whether an agent was removed; its volumes stay with it",
					zap.String("agent", agentID), zap.Error(err))
				return
			}
			if removed {
				tx.agentRemoved(agentID, "the agent was marked gone")
			}
		},
	})
}

func (s *state) hasClaimOn(agentID string) bool {
	for _, v := range s.volumes {
		if v.Claim != nil && v.Claim.AgentID == agentID {
			return true
		}
	}
	return false
}

// VolumeReleased takes the report of an agent's isolator-bridge that the
// containers which used a volume under an epoch are gone and the volume is not
// mounted there any more. A report of another agent, of an older epoch or of a
// volume in use ends nothing.
func (c *Core) VolumeReleased(ctx context.Context, key scheduler.VolumeKey, agentID string, epoch uint64) error {
	return c.do(ctx, func(tx *txn) error {
		v := c.state.volumes[key]
		if v == nil || v.Claim == nil || v.Claim.AgentID != agentID ||
			v.Claim.Epoch != epoch || len(v.Claim.Holders) > 0 {
			return nil
		}
		tx.endClaim(v, "the agent's bridge reports it unmounted")
		return nil
	})
}

// Claims implements Service.
func (c *Core) Claims(ctx context.Context) ([]ClaimView, error) {
	return look(ctx, c, func(tx *txn) (out []ClaimView, err error) {
		for _, v := range c.state.sortedVolumes() {
			if v.Claim != nil {
				out = append(out, c.claimView(v))
			}
		}
		return out, nil
	})
}

func (c *Core) claimView(v *volumeRecord) ClaimView {
	view := ClaimView{
		Claim: c.state.schedulerClaim(v),
		Apps:  c.state.claimApps(v.Claim),
		Since: v.Claim.Since,
		Text:  c.claimText(v),
	}
	if v.Reclaim.due() {
		removal := c.removalView(v)
		view.Removal = &removal
	}
	return view
}

// claimText adds to what is known of a claim why the agent's bridge does not
// release the volume, and when a fence ends the claim.
func (c *Core) claimText(v *volumeRecord) string {
	text := c.state.claimText(v)
	if at, fenced := c.bridges.fences[v.Key]; fenced {
		text += "; its lease is over at " + at.UTC().Format(time.RFC3339)
	}
	if reason := c.bridges.reasons[v.Key]; reason != "" && c.state.claimState(v.Claim) == scheduler.Releasing {
		text += "; the bridge there says: " + reason
	}
	if v.Home != nil {
		text += "; " + v.Home.text(v.Key)
	}
	if v.Reclaim.due() {
		text += "; " + c.removalView(v).Text
	}
	return text
}

func (s *state) schedulerClaim(v *volumeRecord) scheduler.Claim {
	held := v.Claim
	return scheduler.Claim{
		Key: v.Key, AgentID: held.AgentID, Hostname: held.Hostname, Access: held.Access,
		Instances: slices.Clone(held.Holders), Epoch: held.Epoch, State: s.claimState(held),
	}
}

func (s *state) claimApps(held *claim) []app.ID {
	var out []app.ID
	for _, id := range held.Holders {
		if i := s.instances[id]; i != nil && !slices.Contains(out, i.App) {
			out = append(out, i.App)
		}
	}
	if len(out) == 0 {
		out = append(out, held.LastApp)
	}
	return out
}

// claimText says who holds a volume and what would end that.
func (s *state) claimText(v *volumeRecord) string {
	held := v.Claim
	agent := fmt.Sprintf("agent %s (%s)", held.Hostname, held.AgentID)
	what := fmt.Sprintf("volume %s of driver %s", v.Key.Name, v.Key.Driver)
	switch s.claimState(held) {
	case scheduler.Lost:
		return fmt.Sprintf("%s is held by %s, which has been unreachable since %s: a task there may still write to it. "+
			"It moves when the agent comes back, or, after you made sure that its host is off, when you mark the agent gone "+
			"(MARK_AGENT_GONE) or, where Mesos does not know the agent any more, release the claim (%s)",
			what, agent, s.lostSince(held).UTC().Format(time.RFC3339), releaseCall(v.Key))
	case scheduler.Releasing:
		return fmt.Sprintf("%s stays with %s, where task %s used it last: nobody has confirmed that it is unmounted there. "+
			"It can be used on that agent at once; it moves when you mark the agent gone (MARK_AGENT_GONE) or, "+
			"after you made sure that it is unmounted there, release the claim (%s)",
			what, agent, held.LastTask, releaseCall(v.Key))
	default:
		return fmt.Sprintf("%s is in use on %s by task %s", what, agent, held.LastTask)
	}
}

// releaseCall is the call of the API by which an operator ends a claim.
func releaseCall(key scheduler.VolumeKey) string {
	return "DELETE " + volumePath(key) + "/claim?force=true"
}

// volumePath is where the API has a volume.
func volumePath(key scheduler.VolumeKey) string {
	return fmt.Sprintf("/v2/volumes/%s/%s", url.PathEscape(key.Driver), url.PathEscape(key.Name))
}

func (s *state) lostSince(held *claim) time.Time {
	var since time.Time
	for _, id := range held.Holders {
		if i := s.instances[id]; i != nil && i.Task != nil && !i.Task.LostSince.IsZero() {
			if since.IsZero() || i.Task.LostSince.Before(since) {
				since = i.Task.LostSince
			}
		}
	}
	return since
}

// ReleaseClaim implements Service. Tasks that held the volume on an
// unreachable agent are killed should they return.
func (c *Core) ReleaseClaim(ctx context.Context, key scheduler.VolumeKey, force bool) error {
	return c.do(ctx, func(tx *txn) error {
		v := c.state.volumes[key]
		if v != nil && v.Claim == nil && v.Home != nil {
			return c.leaveHome(tx, v, force)
		}
		if v == nil || v.Claim == nil {
			return &NotFoundError{Message: fmt.Sprintf("Volume '%s' of driver '%s' is not claimed", key.Name, key.Driver)}
		}
		text := c.state.claimText(v)
		if c.state.claimState(v.Claim) == scheduler.Held {
			return &ConflictError{Message: text + "; stop the app first"}
		}
		if !force {
			return &ConflictError{Message: text + ". Releasing it by force while a writer is alive there damages the data"}
		}
		c.log.Warn("claim released by force of an operator",
			zap.String("driver", key.Driver), zap.String("volume", key.Name),
			zap.String("agent", v.Claim.AgentID), zap.Strings("instances", v.Claim.Holders))
		tx.disown(v, "an operator released it by force")
		if v.Reclaim.due() {
			// Nobody has seen it unmounted: that is enough to use it again, not to
			// destroy it.
			c.keepVolume(tx, v, "its claim was released by force")
		}
		return nil
	})
}

// disown ends a claim whose holders cannot be reached: they do not count any
// more and are killed when they come back.
func (tx *txn) disown(v *volumeRecord, why string) {
	for _, id := range slices.Clone(v.Claim.Holders) {
		if i := tx.c.state.instances[id]; i != nil {
			i.Stop, i.Forgotten = true, true
			tx.saveInstance(i)
			tx.c.touch(i.App)
		}
	}
	tx.endClaim(v, why)
}
