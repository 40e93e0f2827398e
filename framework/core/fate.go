package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Fate says what becomes of an instance when the framework loses its id, because
// the master has removed it or is about to: the master kills all its tasks, and
// the framework never hears of them again.
type Fate struct {
	App      app.ID `json:"app"`
	Instance string `json:"instance"`
	TaskID   string `json:"taskId,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	AgentID  string `json:"agentId,omitempty"`
	// Volumes are the exclusive volumes that its task may have mounted.
	Volumes []scheduler.VolumeKey `json:"volumes,omitempty"`
	// Text says it in words.
	Text string `json:"text"`
}

// Fates lists the instances in a store, by app, and the framework id that they
// belong to. The store must not be in use by a running core.
func Fates(st store.Store) (frameworkID string, fates []Fate, err error) {
	s, err := loadState(st)
	if err != nil {
		return "", nil, fmt.Errorf("load the framework's state: %w", err)
	}
	list := s.allInstances()
	slices.SortStableFunc(list, func(a, b *instance) int { return strings.Compare(string(a.App), string(b.App)) })
	for _, i := range list {
		fates = append(fates, s.fate(i))
	}
	return s.meta.FrameworkID, fates, nil
}

func (s *state) fate(i *instance) Fate {
	f := Fate{App: i.App, Instance: i.ID}
	if i.Task == nil {
		f.Text = "has no task; it is launched under the new id"
		if i.parked() {
			f.Text = "has no task; its reservation and volumes stay"
		}
		return f
	}
	f.TaskID, f.Hostname, f.AgentID = i.Task.ID, i.Task.Hostname, i.Task.AgentID
	for _, key := range i.Task.Volumes {
		if v := s.volumes[key]; v != nil && v.Claim != nil && slices.Contains(v.Claim.Holders, i.ID) {
			f.Volumes = append(f.Volumes, key)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "its task on %s ends", i.Task.Hostname)
	if i.lost() {
		b.WriteString(", once that agent, which is unreachable now, is back")
	}
	if len(f.Volumes) > 0 {
		var names []string
		for _, key := range f.Volumes {
			names = append(names, key.Driver+"/"+key.Name)
		}
		fmt.Fprintf(&b, "; %s stays with that agent until it is known to be unmounted there", strings.Join(names, ", "))
	}
	if i.Reserved != nil {
		b.WriteString("; its reservation and persistent volumes stay")
	}
	if i.Stop || i.Forgotten {
		b.WriteString("; it was to end anyway")
	} else {
		b.WriteString("; it is launched again under the new id")
	}
	f.Text = b.String()
	return f
}

// Abandon makes the framework in a store forget its id: at its next start it
// registers anew. Apps, versions, deployments and volumes stay as they are.
// Instances lose their tasks, which the master has killed or will kill, and
// wait to be launched; what they had mounted stays claimed on its agent, since
// nobody has seen it unmounted, and is not used before that agent has been
// registered for Config.EndingHold. The store must not be in use by a running core.
func Abandon(st store.Store, now time.Time) error {
	s, err := loadState(st)
	if err != nil {
		return fmt.Errorf("load the framework's state: %w", err)
	}
	tx := &txn{now: now, dirty: map[recordKey]any{}}
	for _, i := range s.allInstances() {
		s.abandonInstance(tx, i)
	}
	s.meta.formerly(s.meta.FrameworkID)
	s.meta.FrameworkID = ""
	tx.put(kindMeta, metaKey, &s.meta)
	writes, err := tx.writes()
	if err != nil {
		return err
	}
	if err := st.Commit(writes); err != nil {
		return fmt.Errorf("commit the framework's state: %w", err)
	}
	return nil
}

func (s *state) abandonInstance(tx *txn, i *instance) {
	if i.Task == nil {
		return
	}
	for _, key := range i.Task.Volumes {
		v := s.volumes[key]
		if v == nil || v.Claim == nil || !slices.Contains(v.Claim.Holders, i.ID) {
			continue
		}
		held := v.Claim
		held.Holders = slices.DeleteFunc(slices.Clone(held.Holders), func(h string) bool { return h == i.ID })
		held.Since, held.Used = tx.now, true
		v.Ending = held.AgentID
		if held.Exclusive && len(held.Holders) == 0 {
			v.Claim = nil
		}
		tx.put(kindVolume, volumeStoreKey(key), v)
	}
	ending := i.Stop || i.Forgotten
	if ending && i.Reserved == nil {
		tx.remove(kindInstance, i.ID)
		return
	}
	i.Task, i.Phase, i.Since = nil, waiting, tx.now
	if ending {
		// It keeps its reservation and volumes, as after any other end.
		i.Phase, i.Stop, i.Forgotten = suspended, false, false
		if i.Wipe {
			i.Phase = wiping
		}
	}
	tx.put(kindInstance, i.ID, i)
}

// formerly notes an id that the framework had, whose reservations stay its own.
func (m *metaRecord) formerly(id string) {
	if id != "" && !slices.Contains(m.FormerIDs, id) {
		m.FormerIDs = append(m.FormerIDs, id)
	}
}

// Clear removes everything from a store: the framework starts with no apps.
// What is in volumes is not touched; that volumes may still be mounted somewhere
// is forgotten, too. The store must not be in use by a running core.
func Clear(st store.Store) error {
	var writes []store.Write
	err := st.Load(func(kind, key string, _ []byte) error {
		writes = append(writes, store.Write{Kind: kind, Key: key})
		return nil
	})
	if err != nil {
		return fmt.Errorf("load the framework's state: %w", err)
	}
	if err := st.Commit(writes); err != nil {
		return fmt.Errorf("remove the framework's state: %w", err)
	}
	return nil
}
