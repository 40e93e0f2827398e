package mesos

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// offer translates an offer. Resources that are not understood are left out and
// logged: they stay with the offer's agent.
func (c *Conn) offer(w *mesosgo.Offer) scheduler.Offer {
	o := scheduler.Offer{
		ID:         w.ID.Value,
		AgentID:    w.AgentID.Value,
		Hostname:   w.Hostname,
		Attributes: attributes(w.Attributes),
	}
	if domain := w.GetDomain().GetFaultDomain(); domain != nil {
		o.Region, o.Zone = domain.Region.Name, domain.Zone.Name
	}
	if w.Unavailability != nil {
		o.UnavailableFrom = time.Unix(0, w.Unavailability.Start.Nanoseconds)
		o.UnavailableFor = time.Duration(w.Unavailability.GetDuration().GetNanoseconds())
	}
	for i := range w.Resources {
		r, err := fromWire(&w.Resources[i])
		if err != nil {
			c.log.Warn("offered resource is not understood and not used", zap.Error(err),
				zap.String("agent", o.Hostname), zap.String("offer_id", o.ID))
			continue
		}
		if r.AllocatedRole == "" {
			r.AllocatedRole = w.GetAllocationInfo().GetRole()
		}
		o.Resources = append(o.Resources, r)
	}
	return o
}

// attributes renders attributes as Marathon compares them. Of several with one
// name the first counts.
func attributes(all []mesosgo.Attribute) map[string]string {
	if len(all) == 0 {
		return nil
	}
	m := make(map[string]string, len(all))
	for i := range all {
		if _, seen := m[all[i].Name]; !seen {
			m[all[i].Name] = attributeText(&all[i])
		}
	}
	return m
}

func attributeText(a *mesosgo.Attribute) string {
	switch a.Type {
	case mesosgo.SCALAR:
		text := strconv.FormatFloat(a.GetScalar().GetValue(), 'f', 3, 64)
		return strings.TrimRight(strings.TrimRight(text, "0"), ".")
	case mesosgo.RANGES:
		ranges := slices.SortedFunc(slices.Values(a.GetRanges().GetRange()), func(x, y mesosgo.Value_Range) int {
			return cmp.Compare(x.Begin, y.Begin)
		})
		var parts []string
		for _, r := range ranges {
			parts = append(parts, fmt.Sprintf("%d-%d", r.Begin, r.End))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case mesosgo.SET:
		return "{" + strings.Join(slices.Sorted(slices.Values(a.GetSet().GetItem())), ",") + "}"
	}
	return a.GetText().GetValue()
}
