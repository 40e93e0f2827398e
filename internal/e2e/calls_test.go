package e2e

import (
	"encoding/json"
	"strings"
)

// accept is an ACCEPT call as the tap shows it.
type accept struct {
	OfferIDs   []valueJSON `json:"offer_ids"`
	Operations []operation `json:"operations"`
	Filters    filters     `json:"filters"`
}

type valueJSON struct{ Value string }

type filters struct {
	RefuseSeconds float64 `json:"refuse_seconds"`
}

type operation struct {
	Type    string
	ID      *valueJSON
	Reserve struct{ Resources []resourceJSON }
	Create  struct{ Volumes []resourceJSON }
	Destroy struct{ Volumes []resourceJSON }
	Launch  struct {
		TaskInfos []struct {
			TaskID    valueJSON `json:"task_id"`
			Resources []resourceJSON
		} `json:"task_infos"`
	}
	Unreserve struct{ Resources []resourceJSON }
}

type resourceJSON struct {
	Name         string
	Scalar       struct{ Value float64 }
	Reservations []struct {
		Role, Principal string
		Labels          struct{ Labels []struct{ Key, Value string } }
	}
	Disk *struct {
		Persistence struct{ ID, Principal string }
		Volume      struct {
			ContainerPath string `json:"container_path"`
		}
		Source struct {
			Type, Profile string
			Path, Mount   struct{ Root string }
		}
	}
}

// labels are those of the innermost reservation.
func (r resourceJSON) labels() map[string]string {
	out := map[string]string{}
	if n := len(r.Reservations); n > 0 {
		for _, l := range r.Reservations[n-1].Labels.Labels {
			out[l.Key] = l.Value
		}
	}
	return out
}

// kinds names the operations of an ACCEPT in their order.
func (a accept) kinds() string {
	var out []string
	for _, o := range a.Operations {
		out = append(out, o.Type)
	}
	return strings.Join(out, " ")
}

// accepts are the ACCEPT calls that were seen since the first skip of them.
func (e *env) accepts(skip int) []accept {
	e.t.Helper()
	var out []accept
	for _, c := range e.tap.Calls("ACCEPT")[skip:] {
		var call struct{ Accept accept }
		if err := json.Unmarshal(c.JSON, &call); err != nil {
			e.t.Fatalf("%v: %s", err, c.JSON)
		}
		out = append(out, call.Accept)
	}
	return out
}
