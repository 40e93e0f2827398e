package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// state is the framework's state in memory: the records of the store and
// indexes over them.
type state struct {
	meta        metaRecord
	apps        map[app.ID]*appRecord
	versions    map[app.ID]map[app.Timestamp]*app.App
	instances   map[string]*instance
	byApp       map[app.ID]map[string]*instance
	forgotten   map[string]*instance // those that do not count any more
	deployments map[string]*deployment
	locks       map[app.ID]*deployment // which deployment changes an app
	volumes     map[scheduler.VolumeKey]*volumeRecord
}

// source is what records are read from.
type source interface {
	Load(fn func(kind, key string, value []byte) error) error
}

func loadState(st source) (*state, error) {
	s := &state{
		apps:        map[app.ID]*appRecord{},
		versions:    map[app.ID]map[app.Timestamp]*app.App{},
		instances:   map[string]*instance{},
		byApp:       map[app.ID]map[string]*instance{},
		forgotten:   map[string]*instance{},
		deployments: map[string]*deployment{},
		locks:       map[app.ID]*deployment{},
		volumes:     map[scheduler.VolumeKey]*volumeRecord{},
	}
	if err := st.Load(s.load); err != nil {
		return nil, err
	}
	return s, nil
}

// load takes one record of the store into the state.
func (s *state) load(kind, key string, value []byte) error {
	switch kind {
	case kindMeta:
		return loadRecord(kind, key, value, func(r *metaRecord) { s.meta = *r })
	case kindApp:
		return loadRecord(kind, key, value, func(r *appRecord) { s.apps[r.App.ID] = r })
	case kindVersion:
		return loadRecord(kind, key, value, s.indexVersion)
	case kindInstance:
		return loadRecord(kind, key, value, s.indexInstance)
	case kindDeployment:
		return loadRecord(kind, key, value, s.indexDeployment)
	case kindVolume:
		return loadRecord(kind, key, value, func(r *volumeRecord) { s.volumes[r.Key] = r })
	default:
		return fmt.Errorf("%w: record %q is of the unknown kind %q; start the version that wrote it", ErrState, key, kind)
	}
}

func loadRecord[T any](kind, key string, value []byte, take func(*T)) error {
	r, err := decode[T](kind, key, value)
	if err != nil {
		return err
	}
	take(r)
	return nil
}

func (s *state) indexVersion(a *app.App) {
	if s.versions[a.ID] == nil {
		s.versions[a.ID] = map[app.Timestamp]*app.App{}
	}
	s.versions[a.ID][a.Version] = a
}

func (s *state) indexInstance(i *instance) {
	s.instances[i.ID] = i
	if s.byApp[i.App] == nil {
		s.byApp[i.App] = map[string]*instance{}
	}
	s.byApp[i.App][i.ID] = i
	if i.Forgotten {
		s.forgotten[i.ID] = i
	} else {
		delete(s.forgotten, i.ID)
	}
}

func (s *state) indexDeployment(d *deployment) {
	s.deployments[d.ID] = d
	for id := range d.Changes {
		s.locks[id] = d
	}
}

// appIDs returns the ids of all apps in order.
func (s *state) appIDs() []app.ID { return slices.Sorted(maps.Keys(s.apps)) }

// definitions returns the current definition of every app, by id.
func (s *state) definitions() map[app.ID]*app.App {
	out := make(map[app.ID]*app.App, len(s.apps))
	for id, r := range s.apps {
		out[id] = r.App
	}
	return out
}

// instancesOf returns the instances that count for an app, oldest first.
func (s *state) instancesOf(id app.ID) []*instance {
	var out []*instance
	for _, i := range s.byApp[id] {
		if !i.Forgotten && !i.parked() {
			out = append(out, i)
		}
	}
	sortInstances(out)
	return out
}

// allInstances returns every instance in a fixed order.
func (s *state) allInstances() []*instance {
	out := slices.Collect(maps.Values(s.instances))
	sortInstances(out)
	return out
}

func sortInstances(list []*instance) {
	slices.SortFunc(list, func(a, b *instance) int {
		if c := a.started().Compare(b.started()); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
}

// definition returns the definition that an instance runs, or the app's
// current one where that version is not kept any more; nil if there is none.
func (s *state) definition(i *instance) *app.App {
	if a := s.versions[i.App][i.Version]; a != nil {
		return a
	}
	if r := s.apps[i.App]; r != nil {
		return r.App
	}
	return nil
}

// sortedDeployments returns the deployments in the order of their start.
func (s *state) sortedDeployments() []*deployment {
	return slices.SortedFunc(maps.Values(s.deployments), func(a, b *deployment) int {
		return cmp.Compare(a.Sequence, b.Sequence)
	})
}

// sortedVolumes returns the volume records by key.
func (s *state) sortedVolumes() []*volumeRecord {
	return slices.SortedFunc(maps.Values(s.volumes), func(a, b *volumeRecord) int {
		if c := cmp.Compare(a.Key.Driver, b.Key.Driver); c != 0 {
			return c
		}
		return cmp.Compare(a.Key.Name, b.Key.Name)
	})
}

// roles returns the default role and those of all apps and tasks, sorted.
func (s *state) roles(defaultRole string) []string {
	set := map[string]bool{defaultRole: true}
	for _, r := range s.apps {
		set[roleOf(r.App, defaultRole)] = true
	}
	for _, i := range s.instances {
		if i.Task != nil {
			set[i.Task.Role] = true
		} else if i.Reserved != nil {
			set[i.Reserved.Role] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func roleOf(a *app.App, defaultRole string) string {
	if a.Role == "" {
		return defaultRole
	}
	return a.Role
}
