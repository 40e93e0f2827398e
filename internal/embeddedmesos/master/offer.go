package master

import (
	"fmt"
	"slices"
	"sort"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"
)

// minAllocatable is the least of CPU, or of memory in MiB, that is worth an
// offer (--min_allocatable_resources).
const (
	minAllocatableCPUs = 0.01
	minAllocatableMem  = 32
)

// maxRefusal and defaultRefusal bound filters, as the allocator does.
const (
	maxRefusal     = 365 * 24 * time.Hour
	defaultRefusal = 5 * time.Second
)

// offer is an outstanding offer.
type offer struct {
	mesos.Offer
	seq       int
	agent     *agent
	framework *framework
}

func (o *offer) role() string { return o.AllocationInfo.GetRole() }

func sortedOffers(offers map[string]*offer) []*offer {
	list := make([]*offer, 0, len(offers))
	for _, o := range offers {
		list = append(list, o)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
	return list
}

// filterKey is what a framework refuses offers for.
type filterKey struct{ role, agent string }

// filter keeps an agent's resources from being offered again too soon: what is
// contained in refused is not offered before expires.
type filter struct {
	refused resources
	expires time.Time
}

func (f *framework) refuses(key filterKey, rs resources, now time.Time) bool {
	f.filters[key] = slices.DeleteFunc(f.filters[key], func(one filter) bool { return !now.Before(one.expires) })
	return slices.ContainsFunc(f.filters[key], func(one filter) bool { return one.refused.contains(rs) })
}

// addFilter records a refusal (HierarchicalAllocatorProcess::recoverResources).
func (m *Master) addFilter(f *framework, key filterKey, rs resources, filters *mesos.Filters) {
	timeout := refusedFor(filters)
	if timeout == 0 {
		return
	}
	timeout = max(timeout, m.cfg.Timing.Allocation)
	f.filters[key] = append(f.filters[key], filter{refused: rs.unallocated(), expires: time.Now().Add(timeout)})
}

// refusedFor is for how long a framework wants to hear no more of it.
func refusedFor(filters *mesos.Filters) time.Duration {
	switch asked := filters.GetRefuseSeconds(); {
	case asked > maxRefusal.Seconds():
		return maxRefusal
	case asked >= 0:
		return time.Duration(asked * float64(time.Second))
	}
	return defaultRefusal
}

func (f *framework) forgetAgent(id string) {
	for key := range f.filters {
		if key.agent == id {
			delete(f.filters, key)
		}
	}
}

// revive handles REVIVE; no roles means all.
func (m *Master) revive(f *framework, only []string) {
	if !m.subscribedTo(f, "REVIVE", only) {
		return
	}
	if len(only) == 0 {
		only = f.roles()
	}
	for _, role := range only {
		delete(f.suppressed, role)
		for key := range f.filters {
			if key.role == role {
				delete(f.filters, key)
			}
		}
	}
	m.allocate()
}

// suppress handles SUPPRESS; no roles means all.
func (m *Master) suppress(f *framework, only []string) {
	if !m.subscribedTo(f, "SUPPRESS", only) {
		return
	}
	if len(only) == 0 {
		only = f.roles()
	}
	for _, role := range only {
		f.suppressed[role] = true
	}
}

// subscribedTo tells whether the framework has all the roles; without one of
// them Mesos drops the whole call, though it is answered with 202.
func (m *Master) subscribedTo(f *framework, call string, list []string) bool {
	for _, role := range list {
		if !slices.Contains(f.roles(), role) {
			m.log.Warn("call dropped: not one of the framework's subscribed roles",
				zap.String("call", call), zap.String("framework", f.id()), zap.String("role", role))
			return false
		}
	}
	return true
}

// candidate is a framework in one of its roles.
type candidate struct {
	framework *framework
	role      string
}

// allocate offers what is free: per agent to the candidate with the smallest
// dominant share of the cluster (HierarchicalAllocatorProcess, without quota).
func (m *Master) allocate() {
	now := time.Now()
	made := make(map[*framework][]*offer)
	for _, a := range m.agents.sorted() {
		if !a.active || !a.connected {
			continue
		}
		var shared resources // offered in this round: to one framework only
		for _, c := range m.candidates() {
			if o := m.makeOffer(a, c, shared, now); o != nil {
				made[c.framework] = append(made[c.framework], o)
				shared.add(resources(o.Resources).shared().unallocated()...)
			}
		}
	}
	for _, f := range m.frameworks.sorted() {
		if len(made[f]) == 0 {
			continue
		}
		event := &scheduler.Event{Type: scheduler.Event_OFFERS, Offers: &scheduler.Event_Offers{}}
		for _, o := range made[f] {
			event.Offers.Offers = append(event.Offers.Offers, o.presented())
		}
		m.send(f, event)
	}
	m.offerInversely(now)
}

// candidates returns who wants offers, the one with the smallest share first.
func (m *Master) candidates() []candidate {
	var list []candidate
	for _, f := range m.frameworks.sorted() {
		if !f.connected() {
			continue
		}
		for _, role := range f.roles() {
			if !f.suppressed[role] {
				list = append(list, candidate{f, role})
			}
		}
	}
	if len(list) < 2 {
		return list
	}
	shares := m.shares()
	sort.SliceStable(list, func(i, j int) bool { return shares[list[i].framework.id()] < shares[list[j].framework.id()] })
	return list
}

// shares is every framework's dominant share of the cluster.
func (m *Master) shares() map[string]float64 {
	var total resources
	used := make(map[string]resources)
	for _, a := range m.agents.registered {
		total.add(a.total...)
		for id, rs := range a.usedBy {
			by := used[id]
			by.add(rs.once()...)
			used[id] = by
		}
	}
	shares := make(map[string]float64)
	for id, rs := range used {
		for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
			if all := total.scalar(name); all > 0 {
				shares[id] = max(shares[id], rs.scalar(name)/all)
			}
		}
	}
	return shares
}

// makeOffer offers what the candidate may have of the agent, without the shared
// volumes that are offered already, or returns nil.
func (m *Master) makeOffer(a *agent, c candidate, offered resources, now time.Time) *offer {
	rs := a.available().filter(func(r *mesos.Resource) bool {
		return r.IsAllocatableTo(c.role) && c.framework.receivable(r) && (r.Shared == nil || !offered.contains(resources{*r}))
	})
	// Reservations and what is not a scalar come first, then the scalars.
	first := func(r *mesos.Resource) bool { return !r.IsUnreserved() || r.GetType() != mesos.SCALAR }
	ordered := rs.filter(first)
	ordered.add(rs.filter(func(r *mesos.Resource) bool { return !first(r) })...)
	if ordered.scalar("cpus") < minAllocatableCPUs && ordered.scalar("mem") < minAllocatableMem {
		return nil
	}
	if c.framework.refuses(filterKey{c.role, a.id()}, ordered, now) {
		return nil
	}
	if !m.mayUse(c.framework, a) {
		return nil
	}
	o := &offer{seq: m.nextOffer, agent: a, framework: c.framework, Offer: mesos.Offer{
		ID:             mesos.OfferID{Value: fmt.Sprintf("%s-O%d", m.cfg.ID, m.nextOffer)},
		FrameworkID:    *c.framework.info.ID,
		AgentID:        *a.info.ID,
		Hostname:       a.info.Hostname,
		URL:            a.url(),
		Domain:         a.info.Domain,
		Resources:      ordered.allocated(c.role),
		Attributes:     a.info.Attributes,
		Unavailability: m.schedule.unavailability(a.host()),
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: ptr(c.role)},
	}}
	m.nextOffer++
	a.take(c.framework.id(), o.Resources)
	m.offers[o.ID.Value] = o
	a.offers[o.ID.Value] = o
	c.framework.offers[o.ID.Value] = o
	return o
}

// presented is the offer in the format that the framework's capabilities ask
// for (Master::offer).
func (o *offer) presented() mesos.Offer {
	out := o.Offer
	out.Resources = resources(o.Resources).clone()
	if !o.framework.capable(mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT) {
		for i := range out.Resources {
			addOldFormat(&out.Resources[i])
			out.Resources[i].Reservations = nil
		}
	}
	if !o.framework.capable(mesos.FrameworkInfo_Capability_MULTI_ROLE) {
		out.AllocationInfo = nil
		for i := range out.Resources {
			out.Resources[i].AllocationInfo = nil
		}
	}
	return out
}

// receivable tells whether the framework understands the resource
// (stripIncapableResources).
func (f *framework) receivable(r *mesos.Resource) bool {
	switch {
	case r.Shared != nil && !f.capable(mesos.FrameworkInfo_Capability_SHARED_RESOURCES):
		return false
	case r.Revocable != nil && !f.capable(mesos.FrameworkInfo_Capability_REVOCABLE_RESOURCES):
		return false
	}
	return len(r.Reservations) < 2 || f.capable(mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT)
}

// mayUse tells whether the framework is offered the agent at all: one with GPUs
// goes to GPU_RESOURCES frameworks only (--filter_gpu_resources), one in another
// region than the master's to REGION_AWARE ones (isCapableOfReceivingAgent).
func (m *Master) mayUse(f *framework, a *agent) bool {
	if a.total.scalar("gpus") > 0 && !f.capable(mesos.FrameworkInfo_Capability_GPU_RESOURCES) {
		return false
	}
	remote := a.info.Domain.GetFaultDomain() != nil &&
		a.info.Domain.GetFaultDomain().GetRegion().Name != m.cfg.Domain.GetFaultDomain().GetRegion().Name
	return !remote || f.capable(mesos.FrameworkInfo_Capability_REGION_AWARE)
}

// forgetOffer takes an offer out of all lists; its resources stay booked.
func (m *Master) forgetOffer(o *offer) {
	delete(m.offers, o.ID.Value)
	delete(o.agent.offers, o.ID.Value)
	delete(o.framework.offers, o.ID.Value)
}

// recoverOffer frees an offer's resources, for the filter's time not for the
// same framework.
func (m *Master) recoverOffer(o *offer, filters *mesos.Filters) {
	m.forgetOffer(o)
	o.agent.release(o.framework.id(), o.Resources)
	if filters != nil {
		m.addFilter(o.framework, filterKey{o.role(), o.agent.id()}, o.Resources, filters)
	}
}

// rescind takes an offer back.
func (m *Master) rescind(o *offer) {
	m.recoverOffer(o, nil)
	m.send(o.framework, &scheduler.Event{
		Type:    scheduler.Event_RESCIND,
		Rescind: &scheduler.Event_Rescind{OfferID: o.ID},
	})
}

// rescindDestroyed takes back the offers of the volumes that a DESTROY names:
// those of shared volumes, since others are in one offer only.
func (m *Master) rescindDestroyed(a *agent, op *mesos.Offer_Operation) {
	for _, v := range newResources(op.GetDestroy().GetVolumes()).unallocated() {
		for _, o := range sortedOffers(a.offers) {
			if resources(o.Resources).unallocated().contains(resources{v}) {
				m.rescind(o)
			}
		}
	}
}

// decline handles DECLINE.
func (m *Master) decline(f *framework, call *scheduler.Call_Decline) {
	filters := call.Filters
	if filters == nil {
		filters = &mesos.Filters{}
	}
	for _, id := range call.OfferIDs {
		if o := m.offers[id.Value]; o != nil && o.framework == f {
			m.recoverOffer(o, filters)
		}
	}
}
