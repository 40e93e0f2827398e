package master

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/roles"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// maxCompleted is how many completed frameworks, and completed and unreachable
// tasks per framework, the master remembers (--max_completed_frameworks,
// --max_completed_tasks_per_framework).
const (
	maxCompletedFrameworks = 50
	maxCompletedTasks      = 1000
)

// frameworks are all that the master knows.
type frameworks struct {
	registered map[string]*framework
	completed  []*framework
	next       int // number of the next framework id
	nextSeq    int
}

func newFrameworks() *frameworks {
	return &frameworks{registered: make(map[string]*framework)}
}

// sorted returns the registered frameworks in the order of registration.
func (fs *frameworks) sorted() []*framework {
	list := make([]*framework, 0, len(fs.registered))
	for _, f := range fs.registered {
		list = append(list, f)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
	return list
}

func (fs *frameworks) isCompleted(id string) bool {
	return slices.ContainsFunc(fs.completed, func(f *framework) bool { return f.id() == id })
}

// framework is one scheduler. Without a stream it is disconnected; recovered
// means that only agents have spoken of it since the master took over.
type framework struct {
	info         mesos.FrameworkInfo
	seq          int
	stream       *stream
	recovered    bool
	registered   time.Time
	reregistered time.Time
	unregistered time.Time
	failover     *time.Timer

	suppressed map[string]bool
	filters    map[filterKey][]filter

	tasks       map[string]*task
	unreachable map[string]*task
	completed   []*task
	nextTask    int
	offers      map[string]*offer
	operations  map[string]*operation // by the framework's operation id
}

func (f *framework) id() string { return f.info.ID.GetValue() }

func (f *framework) connected() bool { return f.stream != nil }

func (f *framework) capable(c mesos.FrameworkInfo_Capability_Type) bool {
	return slices.ContainsFunc(f.info.Capabilities, func(have mesos.FrameworkInfo_Capability) bool {
		return have.Type == c
	})
}

func (f *framework) partitionAware() bool {
	return f.capable(mesos.FrameworkInfo_Capability_PARTITION_AWARE)
}

// roles returns the roles that the framework subscribes to.
func (f *framework) roles() []string { return frameworkRoles(&f.info) }

func frameworkRoles(info *mesos.FrameworkInfo) []string {
	multi := slices.ContainsFunc(info.Capabilities, func(c mesos.FrameworkInfo_Capability) bool {
		return c.Type == mesos.FrameworkInfo_Capability_MULTI_ROLE
	})
	if multi {
		return info.Roles
	}
	return []string{info.GetRole()}
}

// sortedTasks returns tasks in the order of their launch.
func sortedTasks(tasks map[string]*task) []*task {
	list := make([]*task, 0, len(tasks))
	for _, t := range tasks {
		list = append(list, t)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
	return list
}

func (f *framework) addTask(t *task) {
	t.seq = f.nextTask
	f.nextTask++
	f.tasks[t.id()] = t
}

func (f *framework) complete(t *task) {
	f.completed = append(f.completed, t)
	if excess := len(f.completed) - maxCompletedTasks; excess > 0 {
		f.completed = slices.Delete(f.completed, 0, excess)
	}
}

// send delivers an event if the framework is connected.
func (m *Master) send(f *framework, event *scheduler.Event) {
	if !f.connected() {
		m.log.Debug("event for a disconnected framework dropped",
			zap.String("framework", f.id()), zap.Stringer("type", event.Type))
		return
	}
	if err := f.stream.send(event); err != nil {
		m.log.Error("event lost", zap.String("framework", f.id()), zap.Error(err))
	}
}

// subscribe handles SUBSCRIBE (Master::subscribe and _subscribe). The stream is
// new; it is ended with an ERROR event when the subscription is refused.
func (m *Master) subscribe(s *stream, call *scheduler.Call_Subscribe, principal string) {
	info := *proto.Clone(call.FrameworkInfo).(*mesos.FrameworkInfo)
	if principal != "" && info.Principal == nil {
		info.Principal = ptr(principal)
	}
	if err := m.validateSubscription(&info, call.SuppressedRoles); err != nil {
		m.refuse(s, err)
		return
	}
	suppressed := make(map[string]bool)
	for _, role := range call.SuppressedRoles {
		suppressed[role] = true
	}
	f := m.frameworks.registered[info.ID.GetValue()]
	switch {
	case info.ID.GetValue() == "":
		info.ID = &mesos.FrameworkID{Value: fmt.Sprintf("%s-%04d", m.cfg.ID, m.frameworks.next)}
		m.frameworks.next++
		f = m.addFramework(info)
	case f == nil:
		// Neither it nor an agent with one of its tasks has been seen since
		// this master took over.
		f = m.addFramework(info)
		f.recovered = true
	default:
		preserveFrameworkInfo(&f.info, &info)
		if err := validateFrameworkUpdate(&f.info, &info); err != nil {
			m.refuse(s, err)
			return
		}
	}
	f.suppressed = suppressed
	m.updateFrameworkInfo(f, info)
	m.connect(f, s)
}

func (m *Master) refuse(s *stream, reason error) {
	m.log.Info("subscription refused", zap.Error(reason))
	event := &scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: reason.Error()}}
	if err := s.send(event); err != nil {
		m.log.Error("event lost", zap.Error(err))
	}
	s.queue.Close()
}

func (m *Master) addFramework(info mesos.FrameworkInfo) *framework {
	f := &framework{
		info:        info,
		seq:         m.frameworks.nextSeq,
		registered:  time.Now(),
		suppressed:  make(map[string]bool),
		filters:     make(map[filterKey][]filter),
		tasks:       make(map[string]*task),
		unreachable: make(map[string]*task),
		offers:      make(map[string]*offer),
		operations:  make(map[string]*operation),
	}
	m.frameworks.nextSeq++
	m.frameworks.registered[f.id()] = f
	return f
}

// updateFrameworkInfo takes over what a framework may change. Offers for roles
// that it left are rescinded.
func (m *Master) updateFrameworkInfo(f *framework, info mesos.FrameworkInfo) {
	f.info = info
	for _, o := range sortedOffers(f.offers) {
		if !slices.Contains(f.roles(), o.role()) {
			m.rescind(o)
		}
	}
}

// connect gives the framework its new stream; an older one is told that it
// failed over.
func (m *Master) connect(f *framework, s *stream) {
	if f.connected() {
		m.send(f, &scheduler.Event{
			Type:  scheduler.Event_ERROR,
			Error: &scheduler.Event_Error{Message: "Framework failed over"},
		})
		m.dropStream(f)
	}
	if f.failover != nil {
		f.failover.Stop()
		f.failover = nil
	}
	now := time.Now()
	if f.recovered {
		f.registered = now
		f.recovered = false
	}
	f.reregistered = now
	for _, o := range sortedOffers(f.offers) {
		m.recoverOffer(o, nil)
	}
	f.stream = s
	m.send(f, &scheduler.Event{
		Type: scheduler.Event_SUBSCRIBED,
		Subscribed: &scheduler.Event_Subscribed{
			FrameworkID:              f.info.ID,
			HeartbeatIntervalSeconds: ptr(m.cfg.Timing.Heartbeat.Seconds()),
			MasterInfo:               m.info,
		},
	})
	m.beat(f, s)
	m.log.Info("framework subscribed", zap.String("framework", f.id()), zap.String("name", f.info.Name))
	m.allocate()
}

// beat sends a heartbeat and arranges the next.
func (m *Master) beat(f *framework, s *stream) {
	if f.stream != s {
		return
	}
	if !m.faults.silent.Load() {
		m.send(f, &scheduler.Event{Type: scheduler.Event_HEARTBEAT})
	}
	s.heartbeat = m.after(m.cfg.Timing.Heartbeat, func() { m.beat(f, s) })
}

func (m *Master) dropStream(f *framework) {
	if f.stream == nil {
		return
	}
	if f.stream.heartbeat != nil {
		f.stream.heartbeat.Stop()
	}
	f.stream.queue.Close()
	f.stream = nil
	m.inverses.forget(f)
}

// streamEnded is told by the HTTP request whose stream ended.
func (m *Master) streamEnded(s *stream) {
	for _, f := range m.frameworks.registered {
		if f.stream == s {
			m.disconnect(f)
		}
	}
}

// disconnect gives the framework its failover time-out to come back; its tasks
// live on.
func (m *Master) disconnect(f *framework) {
	m.dropStream(f)
	for _, o := range sortedOffers(f.offers) {
		m.recoverOffer(o, nil)
	}
	m.log.Info("framework disconnected", zap.String("framework", f.id()))
	m.awaitFailover(f)
}

// awaitFailover removes the framework if it does not come back in time.
func (m *Master) awaitFailover(f *framework) {
	since := f.reregistered
	f.failover = m.after(failoverTimeout(&f.info), func() {
		current := m.frameworks.registered[f.id()]
		if current == f && !f.connected() && f.reregistered.Equal(since) {
			m.log.Info("framework failover time-out", zap.String("framework", f.id()))
			m.removeFramework(f)
		}
	})
}

func failoverTimeout(info *mesos.FrameworkInfo) time.Duration {
	seconds := info.GetFailoverTimeout()
	if seconds >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(seconds * float64(time.Second))
}

// removeFramework ends a framework for good: its tasks are killed, its id
// cannot subscribe again (Master::removeFramework).
func (m *Master) removeFramework(f *framework) {
	m.log.Info("framework removed", zap.String("framework", f.id()))
	m.dropStream(f)
	if f.failover != nil {
		f.failover.Stop()
	}
	for _, o := range sortedOffers(f.offers) {
		m.recoverOffer(o, nil)
	}
	for _, a := range m.agents.sorted() {
		a.conn.Send(link.ShutdownFramework{FrameworkID: *f.info.ID})
	}
	for _, t := range sortedTasks(f.tasks) {
		m.updateTask(t, m.removedStatus(f, t), nil)
		m.removeTask(t, false)
	}
	for _, t := range sortedTasks(f.unreachable) {
		m.updateTask(t, m.removedStatus(f, t), nil)
		f.complete(t)
	}
	f.unreachable = make(map[string]*task)
	for _, op := range f.operations {
		op.framework = nil
	}
	f.operations = make(map[string]*operation)
	f.unregistered = time.Now()
	delete(m.frameworks.registered, f.id())
	m.frameworks.completed = append(m.frameworks.completed, f)
	if excess := len(m.frameworks.completed) - maxCompletedFrameworks; excess > 0 {
		m.frameworks.completed = slices.Delete(m.frameworks.completed, 0, excess)
	}
}

func (m *Master) removedStatus(f *framework, t *task) mesos.TaskStatus {
	return m.status(statusOf{
		task:    t.TaskID,
		agent:   &t.AgentID,
		state:   mesos.TASK_KILLED,
		message: "Framework " + f.id() + " removed",
		reason:  mesos.REASON_FRAMEWORK_REMOVED,
		of:      t,
	})
}

// validateSubscription says what a SUBSCRIBE is refused for.
func (m *Master) validateSubscription(info *mesos.FrameworkInfo, suppressed []string) error {
	if err := m.validateFramework(info); err != nil {
		return err
	}
	return validateSuppressed(info, suppressed)
}

// validateFramework says what Master::validateFramework does.
func (m *Master) validateFramework(info *mesos.FrameworkInfo) error {
	if err := validateRoles(info); err != nil {
		return err
	}
	id := info.ID.GetValue()
	if id != "" {
		if err := validateID(id); err != nil {
			return err
		}
	}
	timeout := info.GetFailoverTimeout()
	if math.IsNaN(timeout) || timeout < 0 || timeout > math.MaxInt64/float64(time.Second) {
		return refusedf("The framework failover_timeout (%v) is invalid", timeout)
	}
	if unlisted := m.unlistedRoles(info); len(unlisted) > 0 {
		return refusedf("Roles %s are not present in the master's --roles", describeRoles(unlisted))
	}
	if id != "" && m.frameworks.isCompleted(id) {
		return refusedf("Framework has been removed")
	}
	return nil
}

// validateSuppressed says what validateSuppressedRoles does.
func validateSuppressed(info *mesos.FrameworkInfo, suppressed []string) error {
	for _, role := range suppressed {
		if !slices.Contains(frameworkRoles(info), role) {
			return refusedf("Suppressed roles { %s } are not contained in the set of roles", role)
		}
	}
	return nil
}

func validateRoles(info *mesos.FrameworkInfo) error {
	multi := slices.ContainsFunc(info.Capabilities, func(c mesos.FrameworkInfo_Capability) bool {
		return c.Type == mesos.FrameworkInfo_Capability_MULTI_ROLE
	})
	switch {
	case multi && info.Role != nil:
		return refusedf("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable")
	case !multi && len(info.Roles) > 0:
		return refusedf("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable")
	}
	seen := make(map[string]bool)
	for _, role := range info.Roles {
		if seen[role] {
			return refusedf("'FrameworkInfo.roles' contains duplicate items: { %s }", role)
		}
		seen[role] = true
	}
	for _, role := range frameworkRoles(info) {
		if _, err := roles.Parse(role); err != nil {
			where := "'FrameworkInfo.role' is not a valid role: "
			if multi {
				where = "'FrameworkInfo.roles' contains invalid role: "
			}
			return refusedf("%s%v", where, err)
		}
	}
	return nil
}

// unlistedRoles are the framework's roles that are not on the list of roles,
// if there is one (Master::isWhitelistedRole).
func (m *Master) unlistedRoles(info *mesos.FrameworkInfo) []string {
	if len(m.cfg.Roles) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(frameworkRoles(info)), func(role string) bool {
		return role == "*" || slices.Contains(m.cfg.Roles, role)
	})
}

// preserveFrameworkInfo keeps what a subscription cannot change
// (framework::preserveImmutableFields).
func preserveFrameworkInfo(old, updated *mesos.FrameworkInfo) {
	updated.User, updated.Checkpoint = old.User, old.Checkpoint
}

// validateFrameworkUpdate says what framework::validateUpdate does.
func validateFrameworkUpdate(old, updated *mesos.FrameworkInfo) error {
	switch {
	case (old.Principal == nil) != (updated.Principal == nil) || old.GetPrincipal() != updated.GetPrincipal():
		return refusedf("Changing framework's principal is not allowed.")
	case old.User != updated.User:
		return refusedf("Updating 'FrameworkInfo.user' is unsupported; attempted to update from '%s' to '%s'", old.User, updated.User)
	case old.GetCheckpoint() != updated.GetCheckpoint():
		return refusedf("Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from '%v' to '%v'", old.GetCheckpoint(), updated.GetCheckpoint())
	}
	return nil
}

// describeRoles prints a set of roles as Mesos does.
func describeRoles(list []string) string {
	return "{ " + strings.Join(slices.Sorted(slices.Values(list)), ", ") + " }"
}
