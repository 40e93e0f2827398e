package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// full is a record with all fields.
func full() *Record {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &Record{
		Version: 1, Driver: "d", Volume: "v", BootID: "boot", Phase: PhasePending, MountID: "id", Adopted: true,
		Holders: []Holder{{Name: "mesos-agent:/w", Since: at, Instance: "i"}}, Since: at, Epoch: 7,
		Path: "/vol/v", Resolved: "/data/vol/v", Kind: KindMountPoint, Device: 42, FSType: "ext4", Source: "/dev/x", Namespace: "mnt:[1]",
		Target: "/target", BackendID: "backend", Context: map[string]string{"pool": "p"}, PublishContext: map[string]string{"device": "/dev/x"},
		Options: map[string]string{"size": "5"},
		Call: &Call{Op: OpUnmount, Started: at, StartedBoot: 5 * time.Second, SettledBoot: 75 * time.Second, PID: 9,
			Server: &volume.Process{PID: 8, Started: 77, Namespace: "pid:[1]"}},
		Doubt: true, Attempts: 3, LastError: "busy", NextTryBoot: 80 * time.Second, EarlierBoot: true, WatchUntilBoot: 900 * time.Second,
	}
}

// What version 1 looks like on disk stays as it is: programs of different releases
// work beside each other. Who has to change testdata/format has to raise
// FormatVersion, unless a field was added that older programs may drop.
func TestFormatVersion1(t *testing.T) {
	if FormatVersion != 1 {
		t.Fatal("keep testdata/format for reading it, and add that of the new version")
	}
	for name, v := range map[string]any{
		"record.json":   full(),
		"identity.json": &Identity{Version: 1, Driver: "d", Volume: "v", BackendID: "backend", Context: map[string]string{"pool": "p"}},
		"driver.json":   &DriverFacts{Version: 1, Driver: "d", Kind: KindDirectory},
		"epoch.json": &Registration{Version: 1, Driver: "d", Volume: "v", Framework: "f", Epoch: 7, Withdrawn: true, Lease: time.Minute,
			Trusted: true, Fenced: true, NeverRegistered: true},
		"lease.json":   &Lease{Version: 1, BootID: "boot", Epoch: 7, ExpiresBoot: time.Minute},
		"refusal.json": &refusal{Version: 1, Driver: "d", Volume: "v", BootID: "boot", Holder: "h"},
	} {
		fields := reflect.ValueOf(v).Elem()
		for i := range fields.NumField() {
			if fields.Field(i).IsZero() {
				t.Errorf("%s: the test has nothing in %s", name, fields.Type().Field(i).Name)
			}
		}
		data, err := os.ReadFile(filepath.Join("testdata", "format", name))
		if err != nil {
			t.Fatal(err)
		}
		read := reflect.New(fields.Type()).Interface()
		if err := json.Unmarshal(data, read); err != nil || !reflect.DeepEqual(read, v) {
			t.Errorf("%s is read as %+v, %v", name, read, err)
		}
		written, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(append(written, '\n'), data) {
			t.Errorf("%s is written as %s", name, written)
		}
	}
}

// Lines behind a record of version 1 belong to that version; one of a later version
// makes the file one of that.
func TestFormatOfLines(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "format", "mount-lines.json"))
	if err != nil {
		t.Fatal(err)
	}
	name := Key{Driver: "d", Volume: "v"}.fileName()
	r, err := decode(data, name)
	if err != nil || r.Phase != PhaseMounted || r.Path != "/vol/v" || r.Call != nil {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := decode(append(data, []byte(`{"version": 2, "phase": {}}`)...), name); !IsNewer(err) {
		t.Errorf("error %v", err)
	}
}

// Files of a newer program are refused and stay as they are, whichever they are and
// however different their fields.
func TestNewerFilesAreNeverRewritten(t *testing.T) {
	const newer = `{"version": 2, "driver": {}, "epoch": "x", "kind": 7, "backendId": [], "holder": 1, "bootId": 2}`
	l := open(t, t.TempDir())
	e := lock(t, l, sample)
	defer closeEntry(t, e)
	if err := l.SaveRefusal(sample, "h"); err != nil { // makes the directory
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, path  string
		read, write func() error
	}{
		{"identity", filepath.Join(l.StateDir(), dirVolumes, sample.fileName()),
			func() error { _, err := e.Identity(); return err },
			func() error { return e.SaveIdentity(Identity{BackendID: "b"}) }},
		{"driver", filepath.Join(l.StateDir(), dirDrivers, Key{Driver: sample.Driver}.fileName()),
			func() error { _, err := l.DriverFacts(sample.Driver); return err },
			func() error { return l.LearnKind(t.Context(), sample.Driver, KindMountPoint) }},
		{"epoch", filepath.Join(l.StateDir(), dirEpochs, sample.fileName()),
			func() error { _, err := e.Registration(); return err },
			func() error { return e.SaveRegistration(Registration{Framework: "f", Epoch: 3}) }},
		{"lease", filepath.Join(l.RunDir(), dirLeases, sample.fileName()), nil,
			func() error { return l.SaveLease(sample, 3, time.Hour) }},
		{"refusal", filepath.Join(l.RunDir(), dirRefusals, refusalName(sample, "h")), nil,
			func() error { return l.SaveRefusal(sample, "h") }},
	} {
		if err := os.WriteFile(c.path, []byte(newer), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, do := range []func() error{c.read, c.write} {
			if do == nil {
				continue
			}
			if err := do(); !errors.Is(err, volume.BadRecord) || !IsNewer(err) {
				t.Errorf("%s: error %v", c.what, err)
			}
			if data, err := os.ReadFile(c.path); err != nil || string(data) != newer {
				t.Errorf("%s: rewritten as %s, %v", c.what, data, err)
			}
		}
	}
	if lease := l.Lease(sample); lease != (Lease{}) {
		t.Errorf("%+v", lease)
	}
	if refused, err := l.Refused(sample, "h"); err != nil || !refused {
		t.Errorf("%v %v", refused, err)
	}
	if aside, err := l.Kept(); err != nil || len(aside) != 0 {
		t.Errorf("set aside: %v %v", aside, err)
	}
}
