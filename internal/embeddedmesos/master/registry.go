package master

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	maintenancepb "github.com/mesos/mesos-go/api/v1/lib/maintenance"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// registryFile is the registry's name in the master's directory.
const registryFile = "registry.json"

// registry is what outlives a master (src/master/registry.proto): agents that
// were admitted, those that are unreachable, those that are gone, and the
// maintenance schedule. Frameworks are not in it, as on Mesos.
type registry struct {
	path        string
	admitted    map[string]mesos.AgentInfo
	unreachable map[string]time.Time
	gone        map[string]time.Time
	draining    map[string]mesos.DrainInfo
	deactivated map[string]bool
	maintenance *maintenance
}

// registryJSON is the file's form; messages are in Mesos's JSON.
type registryJSON struct {
	Admitted    map[string]json.RawMessage `json:"admitted"`
	Unreachable map[string]time.Time       `json:"unreachable,omitempty"`
	Gone        map[string]time.Time       `json:"gone,omitempty"`
	Draining    map[string]json.RawMessage `json:"draining,omitempty"`
	Deactivated map[string]bool            `json:"deactivated,omitempty"`
	Maintenance maintenanceJSON            `json:"maintenance"`
}

type maintenanceJSON struct {
	Schedule json.RawMessage `json:"schedule,omitempty"`
	Down     []machine       `json:"down,omitempty"`
}

func openRegistry(dir string) (*registry, error) {
	r := &registry{
		path:        filepath.Join(dir, registryFile),
		admitted:    make(map[string]mesos.AgentInfo),
		unreachable: make(map[string]time.Time),
		gone:        make(map[string]time.Time),
		draining:    make(map[string]mesos.DrainInfo),
		deactivated: make(map[string]bool),
		maintenance: newMaintenance(),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	body, err := os.ReadFile(r.path)
	if os.IsNotExist(err) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	if err := r.decode(body); err != nil {
		return nil, fmt.Errorf("registry %s cannot be read: %w; move it away to start with an empty cluster", r.path, err)
	}
	return r, nil
}

func (r *registry) decode(body []byte) error {
	var file registryJSON
	if err := json.Unmarshal(body, &file); err != nil {
		return err
	}
	for id, text := range file.Admitted {
		var info mesos.AgentInfo
		if err := mesosjson.Unmarshal(text, &info); err != nil {
			return fmt.Errorf("agent %s: %w", id, err)
		}
		r.admitted[id] = info
	}
	for id, text := range file.Draining {
		var info mesos.DrainInfo
		if err := mesosjson.Unmarshal(text, &info); err != nil {
			return fmt.Errorf("drain of agent %s: %w", id, err)
		}
		r.draining[id] = info
	}
	for id, at := range file.Unreachable {
		r.unreachable[id] = at
	}
	for id, at := range file.Gone {
		r.gone[id] = at
	}
	for id, yes := range file.Deactivated {
		r.deactivated[id] = yes
	}
	if file.Maintenance.Schedule != nil {
		if err := mesosjson.Unmarshal(file.Maintenance.Schedule, &r.maintenance.schedule); err != nil {
			return fmt.Errorf("maintenance schedule: %w", err)
		}
	}
	for _, m := range file.Maintenance.Down {
		r.maintenance.down[m] = true
	}
	return nil
}

func (r *registry) encode() ([]byte, error) {
	file := registryJSON{
		Admitted:    make(map[string]json.RawMessage),
		Unreachable: r.unreachable,
		Gone:        r.gone,
		Draining:    make(map[string]json.RawMessage),
		Deactivated: r.deactivated,
	}
	for id, info := range r.admitted {
		text, err := mesosjson.Marshal(&info)
		if err != nil {
			return nil, err
		}
		file.Admitted[id] = text
	}
	for id, info := range r.draining {
		text, err := mesosjson.Marshal(&info)
		if err != nil {
			return nil, err
		}
		file.Draining[id] = text
	}
	schedule := maintenancepb.Schedule(r.maintenance.schedule)
	text, err := mesosjson.Marshal(&schedule)
	if err != nil {
		return nil, err
	}
	file.Maintenance.Schedule = text
	for m := range r.maintenance.down {
		file.Maintenance.Down = append(file.Maintenance.Down, m)
	}
	return json.MarshalIndent(file, "", " ")
}

// save writes the registry so that a crash leaves the old or the new one.
func (r *registry) save() error {
	body, err := r.encode()
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if err := replaceFile(r.path, body); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}

func replaceFile(path string, body []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(body)
	if err == nil {
		err = temporary.Sync()
	}
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// admit records an agent as part of the cluster, reachable again if it was not.
func (r *registry) admit(info mesos.AgentInfo) error {
	r.admitted[info.ID.Value] = info
	delete(r.unreachable, info.ID.Value)
	return r.save()
}

// markUnreachable records since when an agent does not answer.
func (r *registry) markUnreachable(id string, at time.Time) error {
	delete(r.admitted, id)
	r.unreachable[id] = at
	return r.save()
}

// markGone records that an agent will not come back.
func (r *registry) markGone(id string, at time.Time) error {
	r.forget(id)
	r.gone[id] = at
	return r.save()
}

// remove drops an agent that left in good order.
func (r *registry) remove(id string) error {
	r.forget(id)
	return r.save()
}

func (r *registry) forget(id string) {
	delete(r.admitted, id)
	delete(r.unreachable, id)
	delete(r.draining, id)
	delete(r.deactivated, id)
}
