package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// The labels of reservations are Marathon's, so that either can take over what
// the other has reserved.
const (
	frameworkLabel = "marathon_framework_id"
	instanceLabel  = "marathon_task_id"
)

// A resident instance has Mesos persistent volumes. Its id, its reservation and
// its volumes stay the same for life, over tasks and configurations. While its
// app does not want it, it is parked: data is destroyed only for a wipe.

// localVolume is a persistent volume of an instance.
type localVolume struct {
	ContainerPath string `json:"containerPath"`
	ID            string `json:"id"` // the persistence id
	// Shared volumes belong to all instances of the app.
	Shared bool `json:"shared,omitempty"`
}

// reservation is where an instance has its resources and volumes reserved, or
// will have them once Mesos has carried out what was sent.
type reservation struct {
	AgentID  string `json:"agentId"`
	Hostname string `json:"hostname"`
	Role     string `json:"role"`
	// Deadline is when it is given up unless it has shown up; zero once it has.
	Deadline time.Time `json:"deadline,omitzero"`
	// LastTask is the latest task on it, by which the agent's fate is asked for.
	LastTask string `json:"lastTask,omitempty"`
	// Released is when it was last asked to be destroyed and unreserved.
	Released time.Time `json:"released,omitzero"`
	// Gone is when the agent was marked gone, zero if it was not.
	Gone time.Time `json:"gone,omitzero"`
}

// parked tells whether an instance has no task and is to have none.
func (i *instance) parked() bool { return i.Phase == suspended || i.Phase == wiping }

// chooseVolumes names the persistent volumes of an instance, once for all its
// attempts. What it shares with the app's other instances settleShared names.
func (i *instance) chooseVolumes(a *app.App) error {
	i.Local = nil
	for _, n := range a.PersistentVolumes() {
		v := a.Container.Volumes[n]
		id, err := newPersistenceID(a.ID, v.ContainerPath)
		if err != nil {
			return err
		}
		i.Local = append(i.Local, localVolume{ContainerPath: v.ContainerPath, ID: id, Shared: v.Persistent.Shared})
	}
	return nil
}

// newPersistenceID names a volume as Marathon does: <safe path>#<container
// path>#<UUID>.
func newPersistenceID(id app.ID, path string) (string, error) {
	u, err := uuid.NewUUID()
	if err != nil {
		return "", fmt.Errorf("make the id of a persistent volume of %s: %w", id, err)
	}
	return id.SafePath() + "#" + path + "#" + u.String(), nil
}

func (i *instance) persistenceIDs() []string {
	var ids []string
	for _, v := range i.Local {
		ids = append(ids, v.ID)
	}
	return ids
}

// park keeps an instance for its reservation and volumes when it ends for its
// app, or for those that may come back. It reports false for one that has none.
func (c *Core) park(tx *txn, i *instance) bool {
	if i.Reserved == nil && i.Former != nil {
		i.waitForFormer(tx.now)
	}
	if i.Reserved == nil {
		return false
	}
	i.Phase, i.Since, i.Task = suspended, tx.now, nil
	if i.Wipe {
		i.Phase = wiping
		c.flow.wantRevive()
	}
	i.Stop, i.Forgotten = false, false
	c.log.Info("instance keeps its reservation and volumes", zap.String("instance", i.ID),
		zap.String("agent", i.Reserved.AgentID), zap.Bool("to_be_wiped", i.Wipe))
	tx.saveInstance(i)
	tx.publish(instanceChanged(tx.now, i, "Reserved"))
	c.flow.forget(i.ID)
	c.touch(i.App)
	return true
}

// resume has parked instances of an app wait for a launch again, at most n, and
// returns how many do.
func (c *Core) resume(tx *txn, a *app.App, n int) int {
	if !a.Resident() {
		return 0
	}
	var list []*instance
	for _, i := range c.state.byApp[a.ID] {
		if i.Phase == suspended && i.fits(a) {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(x, y *instance) int {
		return cmp.Or(x.Reserved.goneRank()-y.Reserved.goneRank(), x.Ordinal-y.Ordinal, strings.Compare(x.ID, y.ID))
	})
	list = list[:min(len(list), n)]
	for _, i := range list {
		i.Phase, i.Since, i.Ready = waiting, tx.now, time.Time{}
		i.retarget(a)
		if i.Reserved != nil && !i.Reserved.Gone.IsZero() {
			c.startAnew(tx, i, a)
		}
		tx.saveInstance(i)
		tx.publish(instanceChanged(tx.now, i, "Scheduled"))
		c.flow.wantRevive()
	}
	return len(list)
}

// fits tells whether an instance has exactly the volumes of a definition.
func (i *instance) fits(a *app.App) bool {
	volumes := a.PersistentVolumes()
	return len(volumes) == len(i.Local) && !slices.ContainsFunc(volumes, func(n int) bool {
		of := a.Container.Volumes[n]
		return !slices.ContainsFunc(i.Local, func(v localVolume) bool {
			return v.ContainerPath == of.ContainerPath && v.Shared == of.Persistent.Shared
		})
	})
}

// addResident tells the scheduler of an instance's volumes and reservation.
func (c *Core) addResident(p *scheduler.Instance, i *instance, def *app.App) {
	p.Labels = []resource.Label{{Key: frameworkLabel, Value: c.state.meta.FrameworkID}, {Key: instanceLabel, Value: i.ID}}
	for _, n := range def.PersistentVolumes() {
		v := def.Container.Volumes[n]
		r := scheduler.PersistentRequest{
			ContainerPath: v.ContainerPath, Source: diskSource(v.Persistent.Type),
			Size: milli(float64(v.Persistent.Size)), Profile: v.Persistent.ProfileName,
		}
		if v.Persistent.MaxSize != nil {
			r.MaxSize = milli(float64(*v.Persistent.MaxSize))
		}
		for _, con := range v.Persistent.Constraints {
			if sc, ok := constraint(con); ok {
				r.Constraints = append(r.Constraints, sc)
			}
		}
		for _, l := range i.Local {
			if l.ContainerPath == v.ContainerPath {
				r.PersistenceID = l.ID
			}
		}
		if v.Persistent.Shared {
			c.share(&r, i.App)
		}
		p.Persistent = append(p.Persistent, r)
	}
	if i.Reserved != nil {
		p.Reservation = &scheduler.ReservationState{
			AgentID: i.Reserved.AgentID, Hostname: i.Reserved.Hostname, PersistenceIDs: i.persistenceIDs(),
			Deadline: i.Reserved.Deadline, GivenUp: i.GivenUp,
		}
	}
}

func diskSource(kind string) resource.SourceType {
	switch kind {
	case "path":
		return resource.SourcePath
	case "mount":
		return resource.SourceMount
	}
	return resource.SourceRoot
}

// labelFormats says by which labels reservations are ours: those of the ids that
// this framework has and had, and of the frameworks that are taken over.
func (c *Core) labelFormats() []scheduler.LabelFormat {
	var out []scheduler.LabelFormat
	for _, id := range slices.Concat([]string{c.state.meta.FrameworkID}, c.state.meta.FormerIDs, c.cfg.Adopt) {
		if id != "" {
			out = append(out, scheduler.LabelFormat{FrameworkKey: frameworkLabel, FrameworkID: id, InstanceKey: instanceLabel})
		}
	}
	return out
}

// reserve notes that the launch of an instance uses, or makes, its reservation.
func (c *Core) reserve(tx *txn, i *instance) {
	if len(i.Local) == 0 {
		return
	}
	if i.Reserved == nil || i.Reserved.AgentID != i.Task.AgentID {
		i.Reserved = &reservation{
			AgentID: i.Task.AgentID, Hostname: i.Task.Hostname, Role: i.Task.Role,
			Deadline: tx.now.Add(c.cfg.Policy.ReservationTimeout),
		}
	}
	i.Reserved.LastTask = i.Task.ID
	c.leaveFormer(tx, i) // what shows of it from now on is told of as left over
}

// expireReservations gives up reservations that never showed up.
func (c *Core) expireReservations(tx *txn, ids []string) {
	for _, id := range ids {
		i := c.state.instances[id]
		if i == nil || i.Reserved == nil || i.Phase != waiting {
			continue
		}
		c.log.Warn("the reservation of an instance did not come; another is made",
			zap.String("instance", id), zap.String("agent", i.Reserved.AgentID))
		if !slices.Contains(i.GivenUp, i.Reserved.AgentID) {
			i.GivenUp = append(i.GivenUp, i.Reserved.AgentID)
		}
		i.Reserved = nil
		c.disownShared(tx, i)
		tx.saveInstance(i)
		c.flow.wantRevive()
	}
}

// forgetUnseen forgets instances without a task whose reservation never came: it was
// on its way to an agent that was lost, and that offers nothing of it. Others would
// wait for the volumes that they share with such a one.
func (c *Core) forgetUnseen(tx *txn) {
	unseen := map[string]*instance{}
	for _, i := range c.state.instances {
		if i.Phase == suspended && i.Reserved.overdue(tx.now) && c.offersFor(i.Reserved.AgentID, i.Reserved.Role) {
			unseen[i.ID] = i
		}
	}
	if len(unseen) == 0 {
		return
	}
	found := c.shownOf(unseen)
	for _, id := range sortedKeys(unseen) {
		i := unseen[id]
		if len(found[id]) > 0 {
			i.Reserved.Deadline = time.Time{} // it came
			tx.saveInstance(i)
			continue
		}
		c.log.Warn("an instance without a task is forgotten: its reservation never came", zap.String("instance", id),
			zap.String("agent", i.Reserved.AgentID), zap.String("host", i.Reserved.Hostname))
		tx.removeInstance(i)
		c.disownShared(tx, i)
		c.flow.wantRevive()
	}
}

// overdue tells whether nothing has shown yet that a reservation was made, though
// its time is over.
func (r *reservation) overdue(now time.Time) bool {
	return r != nil && !r.Deadline.IsZero() && !now.Before(r.Deadline)
}

// offersFor tells whether an offer of an agent for a role is at hand.
func (c *Core) offersFor(agentID, role string) bool {
	for _, o := range c.flow.held {
		if o.AgentID == agentID && slices.ContainsFunc(o.Resources, func(r resource.Resource) bool { return r.AllocatedRole == role }) {
			return true
		}
	}
	return false
}

// adopt makes a leftover an instance of the app that its volumes name, if there
// is such an app and --adopt asks for it. Shared volumes are left alone: Marathon
// makes none, it does not even ask for offers of them (no SHARED_RESOURCES among its
// capabilities), and in whose name another framework keeps them is not known. The
// instance is launched on it when the app wants one more.
func (c *Core) adopt(tx *txn, l scheduler.Leftover) bool {
	if len(c.cfg.Adopt) == 0 || len(l.PersistenceIDs) == 0 || slices.Contains(l.PersistenceIDs, l.InstanceID) {
		return false // nothing to adopt, or a shared volume, which is no instance
	}
	i := &instance{ID: l.InstanceID, Phase: suspended, Since: tx.now}
	for _, id := range l.PersistenceIDs {
		path, rest, _ := strings.Cut(id, "#")
		containerPath, _, ok := strings.Cut(rest, "#")
		if !ok {
			return false
		}
		for known := range c.state.apps {
			if known.SafePath() == path {
				i.App = known
			}
		}
		i.Local = append(i.Local, localVolume{ContainerPath: containerPath, ID: id})
	}
	r := c.state.apps[i.App]
	if r == nil || !r.App.Resident() || !i.fits(r.App) {
		return false
	}
	i.Reserved = &reservation{AgentID: l.AgentID, Hostname: l.Hostname, Role: roleOf(r.App, c.cfg.DefaultRole)}
	i.retarget(r.App)
	c.takePlace(tx, i)
	c.log.Info("reservation and volumes taken over", zap.String("instance", i.ID), zap.String("app", string(i.App)),
		zap.String("agent", l.AgentID), zap.Strings("volumes", l.PersistenceIDs))
	tx.saveInstance(i)
	c.touch(i.App)
	c.flow.wantRevive()
	return true
}

// takePlace has an instance that was taken over wait in the place of one that
// has nothing yet, if there is such a one.
func (c *Core) takePlace(tx *txn, i *instance) {
	for _, new := range c.state.instancesOf(i.App) {
		if new.Phase != waiting || new.Reserved != nil {
			continue
		}
		i.Phase, i.Ordinal = waiting, new.Ordinal
		c.log.Info("an instance that was taken over runs in the place of a new one",
			zap.String("instance", i.ID), zap.String("new", new.ID))
		tx.removeInstance(new)
		return
	}
}

// adoptPatience is how long a new instance with persistent volumes waits for one
// that may be taken over: until all agents have offered what is left there.
const adoptPatience = 10 * time.Second

// adoptUntil is when an instance may make new volumes, zero if at once.
func (c *Core) adoptUntil(i *instance, def *app.App) time.Time {
	if len(c.cfg.Adopt) == 0 || !def.Resident() || i.Reserved != nil {
		return time.Time{}
	}
	return i.Since.Add(adoptPatience)
}

// adoptText says that an instance waits for volumes to be taken over, empty if
// it does not.
func (c *Core) adoptText(i *instance, now time.Time) string {
	def := c.state.definition(i)
	if def == nil || !now.Before(c.adoptUntil(i, def)) {
		return ""
	}
	return fmt.Sprintf("waits until %s for volumes of the app that may be taken over (--adopt); without any it makes new ones",
		c.adoptUntil(i, def).UTC().Format(time.RFC3339))
}

// wipeApp has all instances of an app lose their volumes when they end, and the
// parked ones at once.
func (c *Core) wipeApp(tx *txn, id app.ID) {
	for _, i := range c.state.byApp[id] {
		if i.Reserved == nil && i.Former == nil || i.Wipe {
			continue
		}
		i.Wipe = true
		tx.saveInstance(i)
		if i.Phase == suspended {
			c.park(tx, i)
		}
	}
}

// finishWiped forgets wiped instances of which the offers of their agent show
// nothing any more.
func (c *Core) finishWiped(tx *txn) {
	for _, i := range c.state.instances {
		if i.Phase != wiping || !c.wipeDone(i, tx.now) {
			continue
		}
		c.log.Info("instance wiped", zap.String("instance", i.ID), zap.String("agent", i.Reserved.AgentID))
		tx.publish(instanceChanged(tx.now, i, "Killed"))
		tx.removeInstance(i)
	}
}

func (c *Core) wipeDone(i *instance, now time.Time) bool {
	owners := append(c.state.lastOf(i), i.ID)
	offered := false
	for _, o := range c.flow.held {
		if o.AgentID != i.Reserved.AgentID {
			continue
		}
		offered = true
		for n := range o.Resources {
			if id, ok := resource.LabelValue(o.Resources[n].ReservationLabels(), instanceLabel); ok && slices.Contains(owners, id) {
				return false
			}
		}
	}
	if !offered {
		return false
	}
	// A reservation that was on its way when the wipe was asked for may come yet.
	return !i.Reserved.Released.IsZero() || now.Sub(i.Since) >= c.cfg.Policy.ReservationTimeout
}

// reservedRefs are the last tasks on reservations that nothing runs on, as far as
// is known: asked about them, the master tells whether their agent is gone, or
// is back without them. Nothing else may run in their place before.
func (c *Core) reservedRefs(all bool) []TaskRef {
	var refs []TaskRef
	for _, i := range c.state.instances {
		if i.Reserved != nil && i.Reserved.LastTask != "" && i.Reserved.Gone.IsZero() && (i.lost() || i.Task == nil && (all || i.Phase == waiting)) {
			refs = append(refs, TaskRef{TaskID: i.Reserved.LastTask, AgentID: i.Reserved.AgentID})
		}
	}
	return refs
}

func (s *state) hasReservationOn(agentID string) bool {
	for _, i := range s.instances {
		if i.Reserved != nil && i.Reserved.AgentID == agentID {
			return true
		}
	}
	return false
}
