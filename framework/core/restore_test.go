package core

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// content reads all records of the halted rig's state.
func (r *rig) content() []store.Write {
	r.t.Helper()
	var out []store.Write
	r.withStore(func(st store.Store) error {
		return st.Load(func(kind, key string, value []byte) error {
			out = append(out, store.Write{Kind: kind, Key: key, Value: slices.Clone(value)})
			return nil
		})
	})
	return out
}

// withStore opens the halted rig's state.
func (r *rig) withStore(do func(st store.Store) error) {
	r.t.Helper()
	st, err := store.OpenBolt(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(do(st), st.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// stopped halts the core, does something with its state, and starts it again.
func (r *rig) stopped(do func()) {
	r.t.Helper()
	if err := r.halt(); err != nil {
		r.t.Fatal(err)
	}
	do()
	r.start()
}

// moveVolume has /db, which runs on one agent, run on the other: its volume is
// seen unmounted while its agent is away.
func (r *rig) moveVolume() (from, to string) {
	r.t.Helper()
	from = r.running("/db").AgentID
	epoch := r.claims()[0].Claim.Epoch
	r.scale("/db", 0)
	r.idle()
	r.cluster.partition(from)
	r.pass(time.Second)
	if err := r.core.VolumeReleased(r.t.Context(), r.claims()[0].Claim.Key, from, epoch); err != nil {
		r.t.Fatal(err)
	}
	r.scale("/db", 1)
	to = r.running("/db").AgentID
	if from == to {
		r.t.Fatalf("/db is still on %s", from)
	}
	r.cluster.heal(from)
	r.idle()
	return from, to
}

func TestAnOldBackupDoesNotMountAVolumeTwice(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.cfg.RestoreHold = 3 * time.Minute
		r.post(db)
		r.post(web)
		r.running("/db")
		r.idle()
		var backup []store.Write
		r.stopped(func() { backup = r.content() })
		_, now := r.moveVolume()
		later := r.cluster.liveTasks("/db")

		r.stopped(func() {
			r.dir = t.TempDir() // the state is lost
			r.withStore(func(st store.Store) error {
				report, err := Restore(st, backup, time.Now())
				if report.Apps != 2 || report.Instances != 3 || len(report.Kept) != 0 {
					t.Errorf("report %+v", report)
				}
				return err
			})
		})
		r.until("the task that the backup does not know has ended", func() bool {
			return !slices.Contains(r.cluster.liveTasks("/db"), later[0])
		})
		r.pass(2 * time.Minute)
		if tasks := r.cluster.liveTasks("/db"); len(tasks) != 0 {
			t.Fatalf("%v runs while the state is not yet believed", tasks)
		}
		if n := len(r.cluster.liveTasks("/web")); n != 2 {
			t.Errorf("%d tasks of /web, which has no volume", n)
		}
		v := r.running("/db")
		if v.AgentID != now {
			t.Errorf("/db runs on %s, its volume was last on %s", v.AgentID, now)
		}
		r.restart()
		r.pass(time.Minute)
		if again := r.running("/db"); again.ID != v.ID {
			t.Errorf("the end of the caution was forgotten: %s became %s", v.ID, again.ID)
		}
	})
}

// TestAnOldBackupAndAnUnreachableAgent: a task that the backup does not know is cut
// off all the time, and writes.
func TestAnOldBackupAndAnUnreachableAgent(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.cfg.RestoreHold = 3 * time.Minute
		r.post(db)
		r.running("/db")
		r.idle()
		var backup []store.Write
		r.stopped(func() { backup = r.content() })
		_, now := r.moveVolume()
		r.stopped(func() {
			r.dir = t.TempDir()
			r.withStore(func(st store.Store) error { _, err := Restore(st, backup, time.Now()); return err })
			r.cluster.partition(now)
		})
		r.pass(10 * time.Minute)
		if tasks := r.cluster.agentsOf("/db"); len(tasks) != 1 {
			t.Errorf("on agents %v", tasks)
		}
	})
}

func TestARestoredTaskThatRunsIsLeftAlone(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		before := r.running("/db")
		r.idle()
		r.stopped(func() {
			backup := r.content()
			r.withStore(func(st store.Store) error {
				_, err := Restore(st, backup, time.Now())
				return err
			})
		})
		r.pass(20 * time.Minute)
		if after := r.running("/db"); after.ID != before.ID {
			t.Errorf("%s became %s", before.ID, after.ID)
		}
	})
}

// TestATaskOfAnAppThatTheBackupDoesNotKnow may hold any volume: it runs on.
func TestATaskOfAnAppThatTheBackupDoesNotKnow(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.cfg.RestoreHold = time.Minute
		r.idle()
		var backup []store.Write
		r.stopped(func() { backup = r.content() })
		r.post(db)
		before := r.running("/db")
		r.idle()
		r.stopped(func() {
			r.withStore(func(st store.Store) error {
				report, err := Restore(st, backup, time.Now())
				if len(report.Kept) != 1 || report.Kept[0].Name != "vol" {
					t.Errorf("kept %v", report.Kept)
				}
				return err
			})
		})
		r.pass(5 * time.Minute)
		if tasks := r.cluster.liveTasks("/db"); !slices.Contains(tasks, before.ID) {
			t.Errorf("%v runs", tasks)
		}
		claims := r.claims()
		if len(claims) != 1 || claims[0].Claim.AgentID != before.AgentID {
			t.Fatalf("claims %+v", claims)
		}
		// Once the app is defined again its task is ended, and the volume stays
		// where it was.
		r.post(db)
		r.until("the old task has ended", func() bool { return !slices.Contains(r.cluster.liveTasks("/db"), before.ID) })
		if v := r.running("/db"); v.AgentID != before.AgentID {
			t.Errorf("/db runs on %s, its volume was on %s", v.AgentID, before.AgentID)
		}
	})
}

func TestRestoreKeepsWhatIsKnownOfVolumes(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		r.running("/db")
		r.idle()
		var backup []store.Write
		r.stopped(func() { backup = r.content() })
		_, to := r.moveVolume()
		r.stopped(func() {
			r.withStore(func(st store.Store) error {
				report, err := Restore(st, backup, time.Now())
				if len(report.Kept) != 1 {
					t.Errorf("kept %v", report.Kept)
				}
				return err
			})
		})
		if claims := r.claims(); len(claims) != 1 || claims[0].Claim.AgentID != to {
			t.Errorf("claims %+v, the volume is on %s", claims, to)
		}
		r.pass(15 * time.Minute)
		if v := r.running("/db"); v.AgentID != to {
			t.Errorf("/db runs on %s, its volume is on %s", v.AgentID, to)
		}
	})
}

// Which framework id a restored state has: that under which the tasks run of
// which the backup knows, or the one that took its place.
func TestRestoredFrameworkID(t *testing.T) {
	for name, tc := range map[string]struct {
		backup, before metaRecord
		want, left     string
		former         []string
	}{
		"the same":          {metaRecord{FrameworkID: "a"}, metaRecord{FrameworkID: "a"}, "a", "", nil},
		"state lost":        {metaRecord{FrameworkID: "a"}, metaRecord{}, "a", "", nil},
		"new id since":      {metaRecord{FrameworkID: "a"}, metaRecord{FrameworkID: "b", FormerIDs: []string{"a"}}, "b", "", []string{"a"}},
		"new id before":     {metaRecord{FrameworkID: "b", FormerIDs: []string{"a"}}, metaRecord{FrameworkID: "a"}, "b", "", []string{"a"}},
		"begun anew":        {metaRecord{FrameworkID: "a"}, metaRecord{FrameworkID: "b"}, "a", "b", []string{"b"}},
		"before the first":  {metaRecord{}, metaRecord{FrameworkID: "b"}, "b", "", nil},
		"begun anew, twice": {metaRecord{FrameworkID: "a"}, metaRecord{FrameworkID: "c", FormerIDs: []string{"b"}}, "a", "c", []string{"b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := store.OpenBolt(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if err := st.Commit(metaWrites(t, tc.before)); err != nil {
				t.Fatal(err)
			}
			report, err := Restore(st, metaWrites(t, tc.backup), time.Now())
			if err != nil || report.FrameworkID != tc.want || report.Left != tc.left {
				t.Errorf("%+v, %v; want %s, left %q", report, err, tc.want, tc.left)
			}
			s, err := loadState(st)
			if err != nil || s.meta.FrameworkID != tc.want || !slices.Equal(s.meta.FormerIDs, tc.former) {
				t.Errorf("state of %q, formerly %q, %v", s.meta.FrameworkID, s.meta.FormerIDs, err)
			}
		})
	}
}

// unclaimed is a volume's record after many launches that failed.
func unclaimed(t *testing.T, record []byte) []byte {
	t.Helper()
	var v volumeRecord
	if err := json.Unmarshal(record, &v); err != nil {
		t.Fatal(err)
	}
	v.Epoch, v.Claim = v.Epoch+1000, nil
	value, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func metaWrites(t *testing.T, m metaRecord) []store.Write {
	t.Helper()
	value, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return []store.Write{{Kind: kindMeta, Key: metaKey, Value: value}}
}

// A state that was begun without the one that was lost gives way to its backup,
// unless it has tasks; what it found out of volumes does not count against the
// backup's claims.
func TestABackupReplacesAStateThatWasBegunAnew(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.cfg.RestoreHold = time.Minute
		r.post(db)
		r.running("/db")
		task := r.cluster.liveTasks("/db")
		r.idle()
		r.stopped(func() {
			content := r.content()
			backup := make([]store.Write, len(content))
			for n, w := range content {
				backup[n] = w
				switch w.Kind {
				case kindMeta:
					w.Value = []byte(strings.Replace(string(w.Value), testFramework, "begun-anew", 1))
				case kindVolume:
					w.Value = unclaimed(t, w.Value)
				}
				content[n] = w
			}
			r.dir = t.TempDir()
			r.withStore(func(st store.Store) error {
				if err := st.Commit(content); err != nil {
					return err
				}
				if _, err := Restore(st, backup, time.Now()); err == nil || !strings.Contains(err.Error(), "begun-anew, which has 1 tasks") {
					t.Errorf("a state with a task is replaced: %v", err)
				}
				var instances []store.Write
				for _, w := range content {
					if w.Kind == kindInstance {
						instances = append(instances, store.Write{Kind: w.Kind, Key: w.Key})
					}
				}
				if err := st.Commit(instances); err != nil {
					return err
				}
				_, err := Restore(st, backup, time.Now())
				return err
			})
		})
		r.pass(5 * time.Minute)
		if now := r.cluster.liveTasks("/db"); !slices.Equal(now, task) {
			t.Errorf("%v runs, it was %v", now, task)
		}
		if claims := r.claims(); len(claims) != 1 || claims[0].Claim.State != scheduler.Held {
			t.Errorf("claims %+v", claims)
		}
	})
}

func TestADamagedBackupChangesNothing(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		r.stopped(func() {
			before := r.content()
			r.withStore(func(st store.Store) error {
				_, err := Restore(st, []store.Write{{Kind: kindApp, Key: "/x", Value: []byte("{")}}, time.Now())
				if err == nil || !strings.Contains(err.Error(), "backup") {
					t.Errorf("got %v", err)
				}
				return nil
			})
			if after := r.content(); len(after) != len(before) {
				t.Errorf("%d records became %d", len(before), len(after))
			}
		})
	})
}

func TestFatesAndANewFrameworkID(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		r.post(web)
		task := r.running("/db")
		r.idle()
		r.stopped(func() {
			r.withStore(func(st store.Store) error {
				id, fates, err := Fates(st)
				if err != nil || id != testFramework || len(fates) != 3 {
					t.Fatalf("%s, %+v, %v", id, fates, err)
				}
				f := fates[0]
				if f.App != "/db" || f.TaskID != task.ID || f.AgentID != task.AgentID || len(f.Volumes) != 1 ||
					!strings.Contains(f.Text, "ref/vol stays with that agent") || !strings.Contains(f.Text, "launched again") {
					t.Errorf("fate %+v", f)
				}
				if f := fates[1]; f.App != "/web" || len(f.Volumes) != 0 {
					t.Errorf("fate %+v", f)
				}
				if err := Abandon(st, time.Now()); err != nil {
					return err
				}
				id, fates, err = Fates(st)
				if id != "" || fates[0].TaskID != "" || !strings.Contains(fates[0].Text, "has no task") {
					t.Errorf("after Abandon: %q, %+v", id, fates)
				}
				return err
			})
			// The master has killed the removed framework's tasks.
			r.cluster.set(func(c *cluster) { clear(c.tasks) })
		})
		if v := r.running("/db"); v.AgentID != task.AgentID || v.ID == task.ID {
			t.Errorf("/db runs as %s on %s, its volume was on %s", v.ID, v.AgentID, task.AgentID)
		}
		r.until("/web runs", func() bool { return r.steady("/web", 2) })
	})
}

// TestAbandonWaitsForTheOldTasks: the agents need time to end what the old id ran.
func TestAbandonWaitsForTheOldTasks(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		task := r.running("/db")
		r.idle()
		r.stopped(func() {
			r.withStore(func(st store.Store) error { return Abandon(st, time.Now()) })
			r.cluster.set(func(c *cluster) { c.tasks[task.ID].former = true })
		})
		for range 2 { // the caution outlives a restart
			r.pass(defaultEndingHold / 2)
			for _, id := range r.cluster.liveTasks("/db") {
				if id != task.ID {
					t.Fatalf("%s runs while the old task may still write", id)
				}
			}
			r.restart()
		}
		r.cluster.set(func(c *cluster) { delete(c.tasks, task.ID) }) // the agent has ended it
		if v := r.running("/db"); v.AgentID != task.AgentID || v.ID == task.ID {
			t.Errorf("/db runs as %s on %s, its volume was on %s", v.ID, v.AgentID, task.AgentID)
		}
	})
}

// abandonDuringPartition gives up the framework id while the agent of /db is
// unreachable, and waits for longer than any hold.
func (r *rig) abandonDuringPartition() TaskView {
	r.t.Helper()
	task := r.running("/db")
	r.idle()
	r.cluster.partition(task.AgentID)
	r.pass(time.Second)
	r.stopped(func() {
		r.withStore(func(st store.Store) error { return Abandon(st, time.Now()) })
		r.cluster.set(func(c *cluster) { c.tasks[task.ID].former = true })
	})
	r.pass(20 * defaultEndingHold)
	return task
}

// TestTheHoldCountsFromTheAgentsReturn: an agent that comes back is told only then
// to end what the old id ran.
func TestTheHoldCountsFromTheAgentsReturn(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		task := r.abandonDuringPartition()
		r.cluster.heal(task.AgentID)
		r.pass(defaultEndingHold / 2)
		// It is away once more: what it has been told by now is not known.
		r.cluster.partition(task.AgentID)
		r.pass(2 * defaultEndingHold)
		r.cluster.heal(task.AgentID)
		r.pass(defaultEndingHold * 3 / 4)
		if tasks := r.cluster.liveTasks("/db"); len(tasks) != 1 || tasks[0] != task.ID {
			t.Fatalf("%v runs while the old task may still write", tasks)
		}
		r.cluster.set(func(c *cluster) { delete(c.tasks, task.ID) }) // the agent has ended it
		if v := r.running("/db"); v.AgentID != task.AgentID {
			t.Errorf("/db runs on %s, its volume was on %s", v.AgentID, task.AgentID)
		}
	})
}

// TestTheHoldEndsWithTheBridgesWord: it has seen the old container gone.
func TestTheHoldEndsWithTheBridgesWord(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		task := r.abandonDuringPartition()
		r.cluster.heal(task.AgentID)
		r.pass(defaultEndingHold / 4)
		r.cluster.set(func(c *cluster) { delete(c.tasks, task.ID) })
		v := r.claims()[0].Claim
		if err := r.core.VolumeReleased(t.Context(), v.Key, v.AgentID, v.Epoch); err != nil {
			t.Fatal(err)
		}
		r.pass(defaultEndingHold / 4)
		if tasks := r.cluster.liveTasks("/db"); len(tasks) != 1 {
			t.Errorf("%v run", tasks)
		}
	})
}

// TestABackendThatExcludesNeedNotWaitForTheAgent that may never return; but on
// that agent itself it keeps nobody apart.
func TestABackendThatExcludesNeedNotWaitForTheAgent(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.BackendExclusive = map[string]bool{"ref": true}
		r.cluster.set(func(c *cluster) { c.revokes = true })
		r.start()
		r.post(db)
		task := r.abandonDuringPartition()
		if v := r.running("/db"); v.AgentID == task.AgentID {
			t.Errorf("/db runs on %s, which is unreachable", v.AgentID)
		}
	})
}

func TestAbandonKeepsApartWhatAnUnreachableAgentHolds(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		task := r.running("/db")
		r.idle()
		r.cluster.partition(task.AgentID)
		r.pass(time.Second)
		r.stopped(func() {
			r.withStore(func(st store.Store) error {
				_, fates, err := Fates(st)
				if err == nil && !strings.Contains(fates[0].Text, "unreachable now") {
					t.Errorf("fate %+v", fates[0])
				}
				return errors.Join(err, Abandon(st, time.Now()))
			})
		})
		r.pass(5 * time.Minute)
		if tasks := r.cluster.agentsOf("/db"); len(tasks) != 1 {
			t.Errorf("tasks on %v while the first agent may still write", tasks)
		}
	})
}

func TestClearLeavesNothing(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		r.delete("/web")
		r.idle()
		r.stopped(func() {
			r.withStore(Clear)
			if left := r.content(); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
		if apps, err := r.core.Apps(t.Context()); err != nil || len(apps) != 0 {
			t.Errorf("%v, %v", apps, err)
		}
	})
}

// TestReservationsOutliveTheFrameworkID keeps a resident instance's volume
// through a new framework id: the reservation carries the old one.
func TestReservationsOutliveTheFrameworkID(t *testing.T) {
	s := &state{instances: map[string]*instance{}, volumes: nil}
	s.meta.FrameworkID = "old"
	tx := &txn{now: time.Unix(1, 0), dirty: map[recordKey]any{}}
	ends := &instance{ID: "ends", Phase: active, Stop: true, Task: &task{Hostname: "a"}, Reserved: &reservation{AgentID: "S0"}}
	stays := &instance{ID: "stays", Phase: active, Task: &task{Hostname: "a"}, Reserved: &reservation{AgentID: "S0"}}
	for _, i := range []*instance{ends, stays} {
		if f := s.fate(i); !strings.Contains(f.Text, "persistent volumes stay") {
			t.Errorf("%s: %s", i.ID, f.Text)
		}
		s.abandonInstance(tx, i)
	}
	if ends.Phase != suspended || ends.Reserved == nil || stays.Phase != waiting || stays.Reserved == nil {
		t.Errorf("%+v, %+v", ends, stays)
	}
	if tx.dirty[recordKey{kindInstance, "ends"}] == nil || tx.dirty[recordKey{kindInstance, "stays"}] == nil {
		t.Error("an instance is not stored")
	}
	s.meta.formerly("old")
	s.meta.formerly("old")
	s.meta.FrameworkID = "new"
	c := &Core{state: s, cfg: Config{Adopt: []string{"theirs"}}}
	var ids []string
	for _, f := range c.labelFormats() {
		ids = append(ids, f.FrameworkID)
	}
	if !slices.Equal(ids, []string{"new", "old", "theirs"}) {
		t.Errorf("reservations of %v are ours", ids)
	}
}
