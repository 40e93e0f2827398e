package master

import (
	"fmt"
	"slices"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/allocator"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

// inverses are the inverse offers: what frameworks are asked, and have answered,
// about agents that are scheduled to be unavailable
// (HierarchicalAllocatorProcess::generateInverseOffers, updateInverseOffer).
type inverses struct {
	outstanding map[inverseKey]*inverse
	// filtered is until when a framework is not asked again.
	filtered map[inverseKey]time.Time
	statuses map[inverseKey]allocator.InverseOfferStatus
}

type inverseKey struct{ agent, framework string }

// inverse is an outstanding inverse offer.
type inverse struct {
	id             mesos.OfferID
	unavailability mesos.Unavailability
}

func newInverses() *inverses {
	return &inverses{outstanding: make(map[inverseKey]*inverse), filtered: make(map[inverseKey]time.Time),
		statuses: make(map[inverseKey]allocator.InverseOfferStatus)}
}

// forget ends what a framework that is disconnected was asked, so that it is
// asked again.
func (i *inverses) forget(f *framework) {
	for key := range i.outstanding {
		if key.framework == f.id() {
			delete(i.outstanding, key)
		}
	}
	for key := range i.filtered {
		if key.framework == f.id() {
			delete(i.filtered, key)
		}
	}
}

// offerInversely asks every framework that has anything on an agent which is
// scheduled to be unavailable, unless it was asked already or has answered
// lately.
func (m *Master) offerInversely(now time.Time) {
	for _, f := range m.frameworks.sorted() {
		if !f.connected() {
			continue
		}
		event := &scheduler.Event{Type: scheduler.Event_INVERSE_OFFERS, InverseOffers: &scheduler.Event_InverseOffers{}}
		for _, a := range m.agents.sorted() {
			u := m.schedule.unavailability(a.host())
			key := inverseKey{a.id(), f.id()}
			if u == nil || !a.active || !a.connected || len(a.usedBy[f.id()]) == 0 ||
				m.inverses.outstanding[key] != nil || now.Before(m.inverses.filtered[key]) {
				continue
			}
			one := &inverse{id: mesos.OfferID{Value: fmt.Sprintf("%s-O%d", m.cfg.ID, m.nextOffer)}, unavailability: *u}
			m.nextOffer++
			m.inverses.outstanding[key] = one
			event.InverseOffers.InverseOffers = append(event.InverseOffers.InverseOffers, mesos.InverseOffer{
				OfferID: one.id, FrameworkID: *f.info.ID, AgentID: a.info.ID, Unavailability: *u, URL: a.url(),
			})
		}
		if len(event.InverseOffers.InverseOffers) > 0 {
			m.send(f, event)
		}
	}
}

// answerInverse handles ACCEPT_INVERSE_OFFERS and DECLINE_INVERSE_OFFERS. Ids
// that are not outstanding are ignored, as on Mesos.
func (m *Master) answerInverse(f *framework, ids []mesos.OfferID, status allocator.InverseOfferStatus_Status, filters *mesos.Filters) {
	for key, one := range m.inverses.outstanding {
		if key.framework != f.id() || !slices.Contains(ids, one.id) {
			continue
		}
		delete(m.inverses.outstanding, key)
		now := time.Now()
		m.inverses.statuses[key] = allocator.InverseOfferStatus{Status: &status, FrameworkID: *f.info.ID,
			Timestamp: mesos.TimeInfo{Nanoseconds: now.UnixNano()}}
		m.inverses.filtered[key] = now.Add(refusedFor(filters))
	}
}

// dropInverses ends what is outstanding where the condition says so.
func (m *Master) dropInverses(ends func(inverseKey, *inverse) bool) {
	for key, one := range m.inverses.outstanding {
		if !ends(key, one) {
			continue
		}
		delete(m.inverses.outstanding, key)
		if f := m.frameworks.registered[key.framework]; f != nil && f.connected() {
			m.send(f, &scheduler.Event{Type: scheduler.Event_RESCIND_INVERSE_OFFER,
				RescindInverseOffer: &scheduler.Event_RescindInverseOffer{InverseOfferID: one.id}})
		}
	}
}

// reassess has frameworks asked again about agents whose schedule has changed.
func (m *Master) reassess(a *agent) {
	for key := range m.inverses.filtered {
		if key.agent == a.id() {
			delete(m.inverses.filtered, key)
		}
	}
	now := m.schedule.unavailability(a.host())
	m.dropInverses(func(key inverseKey, one *inverse) bool {
		return key.agent == a.id() && !now.Equal(&one.unavailability)
	})
	if now == nil {
		for key := range m.inverses.statuses {
			if key.agent == a.id() {
				delete(m.inverses.statuses, key)
			}
		}
	}
}

// answers are those of the frameworks on a machine, by framework.
func (m *Master) answers(one machine) []allocator.InverseOfferStatus {
	var out []allocator.InverseOfferStatus
	for _, a := range m.agents.sorted() {
		if !one.matches(a.host()) {
			continue
		}
		for key, status := range m.inverses.statuses {
			if key.agent == a.id() {
				out = append(out, status)
			}
		}
	}
	slices.SortFunc(out, func(a, b allocator.InverseOfferStatus) int {
		return strings.Compare(a.FrameworkID.Value, b.FrameworkID.Value)
	})
	return out
}
