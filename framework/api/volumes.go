package api

import (
	"maps"
	"net/http"
	"slices"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

type claimJSON struct {
	Driver    string         `json:"driver"`
	Name      string         `json:"name"`
	Apps      []app.ID       `json:"apps"`
	AgentID   string         `json:"agentId"`
	Hostname  string         `json:"hostname"`
	Access    string         `json:"access,omitempty"`
	State     string         `json:"state"`
	Instances []string       `json:"instances"`
	Zone      string         `json:"zone,omitempty"`
	Epoch     uint64         `json:"epoch"`
	Since     *app.Timestamp `json:"since,omitempty"`
	FenceAt   *app.Timestamp `json:"fenceAt,omitempty"`
	// Text says who holds the volume and what would end that.
	Text    string       `json:"text"`
	Removal *removalJSON `json:"removal,omitempty"`
}

// removalJSON says that a volume is to be removed with its data.
type removalJSON struct {
	Since   *app.Timestamp `json:"since"`
	Why     string         `json:"why"`
	Problem string         `json:"problem,omitempty"`
	Next    *app.Timestamp `json:"next,omitempty"`
}

var accessNames = map[scheduler.AccessMode]string{
	scheduler.OneTask:     "one-task",
	scheduler.OneAgent:    "one-agent",
	scheduler.ManyReaders: "many-readers",
	scheduler.ManyWriters: "many-writers",
}

var claimStates = map[scheduler.ClaimState]string{
	scheduler.Held:      "held",
	scheduler.Releasing: "releasing",
	scheduler.Lost:      "lost",
	scheduler.Fenced:    "fenced",
}

func claimView(c core.ClaimView) claimJSON {
	v := claimJSON{
		Driver: c.Claim.Key.Driver, Name: c.Claim.Key.Name, Apps: c.Apps,
		AgentID: c.Claim.AgentID, Hostname: c.Claim.Hostname,
		Access: accessNames[c.Claim.Access], State: claimStates[c.Claim.State],
		Instances: c.Claim.Instances, Epoch: c.Claim.Epoch,
		Since: optionalTime(c.Since), FenceAt: optionalTime(c.Claim.FenceAt), Text: c.Text,
	}
	if c.Removal != nil {
		v.Removal = removal(*c.Removal)
	}
	if v.Apps == nil {
		v.Apps = []app.ID{}
	}
	if v.Instances == nil {
		v.Instances = []string{}
	}
	return v
}

func removal(r core.RemovalView) *removalJSON {
	return &removalJSON{Since: optionalTime(r.Since), Why: r.Why, Problem: r.Problem, Next: optionalTime(r.Next)}
}

// removalView is a volume that nobody claims and that is to be removed.
func removalView(r core.RemovalView) claimJSON {
	return claimJSON{
		Driver: r.Key.Driver, Name: r.Key.Name, Apps: []app.ID{r.App}, AgentID: r.AgentID, Hostname: r.Hostname,
		Access: accessNames[scheduler.OneTask], State: "removing", Instances: []string{}, Epoch: r.Epoch,
		Since: optionalTime(r.Since), Text: r.Text, Removal: removal(r),
	}
}

// persistentJSON is a Mesos persistent volume and who has it.
type persistentJSON struct {
	ID            string   `json:"id"`
	App           app.ID   `json:"app"`
	ContainerPath string   `json:"containerPath"`
	AgentID       string   `json:"agentId"`
	Hostname      string   `json:"hostname"`
	Shared        bool     `json:"shared"`
	Instances     []string `json:"instances"`
}

// boundView is a volume that nobody claims and that can be used in one place only.
func boundView(b core.BoundView) claimJSON {
	return claimJSON{
		Driver: b.Key.Driver, Name: b.Key.Name, Apps: []app.ID{b.App}, AgentID: b.AgentID, Hostname: b.Hostname,
		State: "bound", Instances: []string{}, Epoch: b.Epoch, Zone: b.Zone, Text: b.Text,
	}
}

// leftoverJSON is what carries our labels on an agent and nothing runs on.
type leftoverJSON struct {
	AgentID        string   `json:"agentId"`
	Hostname       string   `json:"hostname"`
	InstanceID     string   `json:"instance"`
	PersistenceIDs []string `json:"persistenceIds"`
	Bytes          int64    `json:"bytes"`
	Text           string   `json:"text"`
}

// leftovers lists the reservations that nothing runs on.
func (s *server) leftovers(r *http.Request) ([]leftoverJSON, error) {
	list, err := s.svc.Leftovers(r.Context())
	if err != nil {
		return nil, err
	}
	out := make([]leftoverJSON, 0, len(list))
	for _, l := range list {
		if l.PersistenceIDs == nil {
			l.PersistenceIDs = []string{}
		}
		out = append(out, leftoverJSON(l))
	}
	return out, nil
}

// claims lists who holds which exclusive volume, which are to be removed or bound
// to a place, the Mesos persistent volumes, and what is left over on agents. It is
// not part of Marathon's API.
func (s *server) claims(w http.ResponseWriter, r *http.Request, _ params) error {
	list, err := s.svc.Claims(r.Context())
	if err != nil {
		return err
	}
	removals, err := s.svc.Removals(r.Context())
	if err != nil {
		return err
	}
	out := make([]claimJSON, 0, len(list)+len(removals))
	for _, c := range list {
		out = append(out, claimView(c))
	}
	for _, r := range removals {
		out = append(out, removalView(r))
	}
	persistent, err := s.svc.PersistentVolumes(r.Context())
	if err != nil {
		return err
	}
	local := make([]persistentJSON, 0, len(persistent))
	for _, v := range persistent {
		local = append(local, persistentJSON(v))
	}
	bound, err := s.svc.Bound(r.Context())
	if err != nil {
		return err
	}
	for _, b := range bound {
		out = append(out, boundView(b))
	}
	left, err := s.leftovers(r)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"volumes": out, "persistent": local, "leftovers": left})
}

// releaseClaim ends a claim by the operator's word that its holder is dead. The
// word must be given by force=true: a living holder would lose data.
func (s *server) releaseClaim(w http.ResponseWriter, r *http.Request, p params) error {
	key := scheduler.VolumeKey{Driver: p["driver"], Name: p["name"]}
	force := flag(r, "force", false)
	if !force {
		return badRequest("Releasing the claim on volume %s of driver %s lets another task write to it. "+
			"Make sure that its holder is dead, then repeat the request with '?force=true'.", key.Name, key.Driver)
	}
	if err := s.svc.ReleaseClaim(r.Context(), key, force); err != nil {
		return err
	}
	s.audit(r, core.DeploymentRef{})
	return writeJSON(w, http.StatusOK, map[string]string{
		"message": "The claim on volume " + key.Name + " of driver " + key.Driver + " is released.",
	})
}

// keepVolume ends the removal of a volume that no app owns any more: it stays
// with its data, and its driver's administrator has to remove it one day.
func (s *server) keepVolume(w http.ResponseWriter, r *http.Request, p params) error {
	key := scheduler.VolumeKey{Driver: p["driver"], Name: p["name"]}
	if err := s.svc.KeepVolume(r.Context(), key); err != nil {
		return err
	}
	s.audit(r, core.DeploymentRef{})
	return writeJSON(w, http.StatusOK, map[string]string{
		"message": "Volume " + key.Name + " of driver " + key.Driver + " is kept.",
	})
}

// volumeClasses lists the classes that apps may name. It is not part of
// Marathon's API.
func (s *server) volumeClasses(w http.ResponseWriter, _ *http.Request, _ params) error {
	out := make([]app.VolumeClass, 0, len(s.cfg.App.Classes))
	for _, name := range slices.Sorted(maps.Keys(s.cfg.App.Classes)) {
		out = append(out, s.cfg.App.Classes[name])
	}
	return writeJSON(w, http.StatusOK, map[string]any{"classes": out})
}
