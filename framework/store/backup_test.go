package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
)

func backupOf(t *testing.T, records []Write) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteBackup(&out, records, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func same(a, b []Write) bool {
	return slices.EqualFunc(a, b, func(x, y Write) bool {
		return x.Kind == y.Kind && x.Key == y.Key && bytes.Equal(x.Value, y.Value)
	})
}

func TestBackupOfEveryStore(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		s, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		want := []Write{{"app", "/a", []byte(`{"x":1}`)}, {"app", "/b", []byte{}}, {"task", "\u00e4;1", bytes.Repeat([]byte{0, 255}, 5000)}}
		if err := s.Commit(want); err != nil {
			t.Fatal(err)
		}
		records, err := Records(s)
		if err != nil || !same(records, want) {
			t.Fatalf("%v, %v", records, err)
		}
		got, made, err := ReadBackup(bytes.NewReader(backupOf(t, records)))
		if err != nil || !same(got, want) || !made.Equal(time.Unix(1000, 0)) {
			t.Fatalf("%v of %s, %v", got, made, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamagedBackups cuts a backup at every byte and changes every byte: no
// such file is taken for whole, unless the change is within white space.
func TestDamagedBackups(t *testing.T) {
	want := []Write{{"app", "/a", []byte("1")}, {"app", "/b", []byte("2")}}
	whole := backupOf(t, want)
	for n := range whole {
		if _, _, err := ReadBackup(bytes.NewReader(whole[:n])); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d: %v", n, err)
		}
		changed := slices.Clone(whole)
		changed[n] ^= 1
		if got, _, err := ReadBackup(bytes.NewReader(changed)); err == nil && !same(got, want) {
			t.Errorf("changed at %d: %v", n, got)
		}
	}
	for _, other := range []string{"", "{}\n", "[1]\n", `{"apps":[]}` + "\n"} {
		if _, _, err := ReadBackup(strings.NewReader(other)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%q: %v", other, err)
		}
	}
}

func TestABackupOfAnotherFormat(t *testing.T) {
	old := backupOf(t, []Write{{"app", "/a", []byte("1")}})
	next := format{2, []migration{func(list []Write) ([]Write, error) {
		return []Write{{"app", "/a", nil}, {"app", "/z", list[0].Value}}, nil
	}}}
	got, _, err := readBackup(bytes.NewReader(old), next)
	if err != nil || !same(got, []Write{{"app", "/z", []byte("1")}}) {
		t.Errorf("%v, %v", got, err)
	}
	newer := bytes.Replace(old, []byte(`"format":1`), []byte(`"format":9`), 1)
	if _, _, err := ReadBackup(bytes.NewReader(newer)); err == nil {
		t.Error("a backup with another format and an old checksum is taken")
	}
}

// TestSnapshotOfAStateInUse reads while another writes two records that are
// always the same: no snapshot shows them different, and the writer goes on.
func TestSnapshotOfAStateInUse(t *testing.T) {
	p := zkPlace{server: zktest.StartWithSessions(t, time.Minute), root: "/snapshot", opts: ZooKeeperOptions{MaxNode: 64, MaxBatch: 600}}
	s, err := p.open(t, current)
	if err != nil {
		t.Fatal(err)
	}
	session := p.session(t)
	write := func(n int) error {
		value := []byte(strings.Repeat(fmt.Sprint(n), 100)) // goes through the journal
		return s.Commit([]Write{{"n", "a", value}, {"n", "b", value}, {"n", "c", value}, {"n", "d", value}, {"n", "e", value}})
	}
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for n := 1; n < 30; n++ {
			if err := write(n); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	taken := 0
	for writing := true; writing; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			writing = false
		default:
		}
		records, err := SnapshotZooKeeper(session, p.ensemble(), p.root)
		if err != nil {
			if !errors.Is(err, errChanged) || !writing {
				t.Fatal(err)
			}
			continue
		}
		taken++
		for _, r := range records {
			if !bytes.Equal(r.Value, records[0].Value) {
				t.Fatalf("half a commit: %s and %s", r.Value, records[0].Value)
			}
		}
	}
	if taken == 0 {
		t.Error("no snapshot")
	}
	if _, err := SnapshotZooKeeper(session, p.ensemble(), "/nowhere"); err == nil || !strings.Contains(err.Error(), "no state") {
		t.Errorf("a place without a state: %v", err)
	}
}

// TestSnapshotOfAStateThatNeverRests commits without a pause for as long as it is
// read by the process that does: it gets a snapshot all the same.
func TestSnapshotOfAStateThatNeverRests(t *testing.T) {
	p := zkPlace{server: zktest.StartWithSessions(t, time.Minute), root: "/busy"}
	s, err := p.open(t, current)
	if err != nil {
		t.Fatal(err)
	}
	z := s.(*ZooKeeper)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			value := []byte(strings.Repeat(fmt.Sprint(n), 100))
			if err := z.Commit([]Write{{"n", "a", value}, {"n", "b", value}}); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 3 {
		records, err := z.Snapshot()
		if err != nil {
			t.Error(err)
			break
		}
		if len(records) > 0 && (len(records) != 2 || !bytes.Equal(records[0].Value, records[1].Value)) {
			t.Errorf("half a commit: %v", records)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
