package api

import (
	"math"
	"net/http"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

type queueItemJSON struct {
	Count   int                `json:"count"`
	Role    string             `json:"role"`
	Delay   delayJSON          `json:"delay"`
	Since   app.Timestamp      `json:"since"`
	Summary offersSummaryJSON  `json:"processedOffersSummary"`
	Unused  *[]unusedOfferJSON `json:"lastUnusedOffers,omitempty"`
	// Waiting explains in words, beyond what Marathon tells.
	Waiting []waitingJSON `json:"waiting"`
	App     *app.App      `json:"app"`
}

type delayJSON struct {
	TimeLeftSeconds int  `json:"timeLeftSeconds"`
	Overdue         bool `json:"overdue"`
}

type offersSummaryJSON struct {
	Processed     int            `json:"processedOffersCount"`
	Unused        int            `json:"unusedOffersCount"`
	LastUnused    *app.Timestamp `json:"lastUnusedOfferAt,omitempty"`
	LastUsed      *app.Timestamp `json:"lastUsedOfferAt,omitempty"`
	LastOffers    []rejectJSON   `json:"rejectSummaryLastOffers"`
	LaunchAttempt []rejectJSON   `json:"rejectSummaryLaunchAttempt"`
}

type rejectJSON struct {
	Reason    scheduler.Reason `json:"reason"`
	Declined  int              `json:"declined"`
	Processed int              `json:"processed"`
}

// unusedOfferJSON is the agent that came closest, in the place where Marathon
// lists the last offers.
type unusedOfferJSON struct {
	Offer     offerJSON     `json:"offer"`
	Reason    []string      `json:"reason"`
	Timestamp app.Timestamp `json:"timestamp"`
}

type offerJSON struct {
	ID         string `json:"id"`
	Hostname   string `json:"hostname"`
	AgentID    string `json:"agentId"`
	Resources  []any  `json:"resources"`
	Attributes []any  `json:"attributes"`
}

type waitingJSON struct {
	InstanceID string         `json:"instanceId"`
	Text       string         `json:"text"`
	Reasons    []reasonJSON   `json:"reasons"`
	Best       string         `json:"closestAgent,omitempty"`
	Lacks      []string       `json:"lacks,omitempty"`
	Until      *app.Timestamp `json:"until,omitempty"`
}

// reasonJSON is how many agents failed at a rule first.
type reasonJSON struct {
	Reason scheduler.Reason `json:"reason"`
	Agents int              `json:"agents"`
}

func reasons(w scheduler.Waiting) []reasonJSON {
	out := make([]reasonJSON, 0, len(w.Counts))
	for _, c := range w.Counts {
		out = append(out, reasonJSON{c.Reason, c.Agents})
	}
	return out
}

// funnel are Marathon's reasons in the order in which offers are tested; all
// are listed, also those that no offer failed at.
var funnel = []scheduler.Reason{
	scheduler.UnfulfilledRole, scheduler.UnfulfilledConstraint, scheduler.NoReservationFound, scheduler.AgentMaintenance,
	scheduler.DriverMissing, scheduler.VolumeHeldElsewhere, scheduler.VolumeReleasing, scheduler.FenceNotExpired,
	scheduler.VolumeIsLocal, scheduler.WrongZone, scheduler.AttachLimit, scheduler.WaitingForPreferred, scheduler.LaunchLimit,
	scheduler.InsufficientCPUs, scheduler.InsufficientMemory, scheduler.InsufficientDisk, scheduler.InsufficientGPUs,
	scheduler.InsufficientPorts, scheduler.DeclinedScarceResources,
}

// rejects counts over all waiting instances how many agents came as far as each
// reason and how many failed there.
func rejects(waiting []scheduler.Waiting) []rejectJSON {
	left := 0
	failed := map[scheduler.Reason]int{}
	for _, w := range waiting {
		left += w.Offers
		for _, c := range w.Counts {
			failed[c.Reason] += c.Agents
		}
	}
	out := make([]rejectJSON, 0, len(funnel))
	for _, reason := range funnel {
		n := failed[reason]
		out = append(out, rejectJSON{Reason: reason, Declined: n, Processed: left})
		left = max(left-n, 0)
	}
	return out
}

func queueView(q core.QueueView, withOffers bool) queueItemJSON {
	seconds := int(math.Ceil(q.Delay.Seconds()))
	summary := rejects(q.Waiting)
	v := queueItemJSON{
		Count: q.Count, Role: q.Role, App: q.App,
		Delay: delayJSON{TimeLeftSeconds: max(seconds, 0), Overdue: seconds <= 0},
		Since: app.NewTimestamp(q.Since),
		Summary: offersSummaryJSON{
			Processed: q.Processed, Unused: q.Unused,
			LastUnused: optionalTime(q.LastUnused), LastUsed: optionalTime(q.LastUsed),
			LastOffers: summary, LaunchAttempt: summary,
		},
		Waiting: []waitingJSON{},
	}
	for _, w := range q.Waiting {
		v.Waiting = append(v.Waiting, waitingJSON{w.InstanceID, w.Text, reasons(w), w.Best, w.Lacks, optionalTime(w.Until)})
	}
	if withOffers {
		unused := closestOffers(q.Waiting, q.LastUnused)
		v.Unused = &unused
	}
	return v
}

func closestOffers(waiting []scheduler.Waiting, at time.Time) []unusedOfferJSON {
	out := []unusedOfferJSON{}
	for _, w := range waiting {
		if w.Best == "" {
			continue
		}
		out = append(out, unusedOfferJSON{
			Offer:     offerJSON{Hostname: w.Best, Resources: []any{}, Attributes: []any{}},
			Reason:    append([]string{}, w.Lacks...),
			Timestamp: app.NewTimestamp(at),
		})
	}
	return out
}

func (s *server) queue(w http.ResponseWriter, r *http.Request, _ params) error {
	waiting, err := s.svc.Queue(r.Context())
	if err != nil {
		return err
	}
	withOffers := false
	for _, v := range r.URL.Query()["embed"] {
		withOffers = withOffers || v == "lastUnusedOffers"
	}
	out := make([]queueItemJSON, 0, len(waiting))
	for _, q := range waiting {
		out = append(out, queueView(q, withOffers))
	}
	return writeJSON(w, http.StatusOK, map[string]any{"queue": out})
}

func (s *server) resetDelay(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := knownID(p)
	if err != nil {
		return &core.NotFoundError{Message: "Application /" + p["id"] + " not found in tasks queue."}
	}
	if err := s.svc.ResetDelay(r.Context(), id); err != nil {
		return err
	}
	s.audit(r, core.DeploymentRef{})
	w.WriteHeader(http.StatusNoContent)
	return nil
}
