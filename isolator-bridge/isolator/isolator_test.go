package isolator

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFromEnvironment(t *testing.T) {
	spec := func(driver, name string) Spec {
		return Spec{Key: ledger.Key{Driver: driver, Volume: name}, Options: map[string]string{}}
	}
	full := Spec{Key: ledger.Key{Driver: "d", Volume: "n"}, Options: map[string]string{"size": "5", "text": "a=b"}, Explicit: true, ContainerPath: "/tmp/x"}
	for _, test := range []struct {
		name  string
		env   map[string]string
		want  []Spec
		notes int
		bad   bool
	}{
		{name: "nothing", env: map[string]string{"PATH": "/bin", "DVDI_OTHER": "x"}},
		{name: "name only", env: map[string]string{"DVDI_VOLUME_NAME": "n"}, want: []Spec{spec("rexray", "n")}},
		{name: "all", env: map[string]string{"DVDI_VOLUME_NAME4": "n", "DVDI_VOLUME_DRIVER4": "d", "DVDI_VOLUME_OPTS4": "size=5,text=a=b",
			"DVDI_VOLUME_CONTAINERPATH4": "/tmp/x", "DVDI_VOLUME_EXPLICITCREATE4": " True "}, want: []Spec{full}},
		{name: "ten", env: map[string]string{"DVDI_VOLUME_NAME": "0", "DVDI_VOLUME_NAME9": "9", "DVDI_VOLUME_NAME1": "1"},
			want: []Spec{spec("rexray", "0"), spec("rexray", "1"), spec("rexray", "9")}},
		{name: "companions of another digit", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_DRIVER1": "d"}, want: []Spec{spec("rexray", "n")}, notes: 1},
		{name: "program of the user's choice", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_DVDCLI": "/x", "DVDI_VOLUME_DVDCLI3": "/y"},
			want: []Spec{spec("rexray", "n")}, notes: 2},
		{name: "twice", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_NAME1": "n"}, want: []Spec{spec("rexray", "n")}, notes: 1},
		{name: "explicit in other words", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_EXPLICITCREATE": "yes"}, want: []Spec{spec("rexray", "n")}},
		{name: "twice with a path", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_NAME1": "n", "DVDI_VOLUME_CONTAINERPATH1": "/x"}, bad: true},
		{name: "digit 0", env: map[string]string{"DVDI_VOLUME_NAME0": "n"}, bad: true},
		{name: "two digits", env: map[string]string{"DVDI_VOLUME_NAME11": "n"}, bad: true},
		{name: "letter", env: map[string]string{"DVDI_VOLUME_NAMEx": "n"}, bad: true},
		{name: "unknown", env: map[string]string{"DVDI_VOLUME_SIZE": "n", "DVDI_VOLUME_": "n", "DVDI_VOLUME_3": "n", "DVDI_VOLUME_NAME": "n"},
			want: []Spec{spec("rexray", "n")}, notes: 3},
		{name: "engine's option", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_OPTS": "dvdi.epoch=1"}, bad: true},
		{name: "option without a key", env: map[string]string{"DVDI_VOLUME_NAME": "n", "DVDI_VOLUME_OPTS": "=1"}, bad: true},
	} {
		got, notes, err := FromEnvironment(test.env, "rexray")
		if test.bad {
			if volume.KindOf(err) != volume.Invalid {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, test.want) || len(notes) != test.notes {
			t.Errorf("%s: %+v, %q, %v", test.name, got, notes, err)
		}
	}
}

// Symbolic links that users can make in /tmp lead nowhere.
func TestContainerPath(t *testing.T) {
	dir, err := os.MkdirTemp(temporary, "dvdi-path-")
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join("/var/tmp", filepath.Base(dir))
	t.Cleanup(func() {
		for _, d := range []string{dir, outside} {
			if err := os.RemoveAll(d); err != nil {
				t.Error(err)
			}
		}
	})
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, ok := range map[string]bool{
		"": true, dir: true, "/": true, filepath.Join(dir, "a", "b"): true, dir + "/../" + filepath.Base(dir) + "/c": true,
		"relative": false, "/nowhere/x": false, file: false, filepath.Join(dir, "link", "made"): false, "/tmp/../nowhere": false, "/tmpx/a": false,
	} {
		if err := containerPath(path); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "b")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
}

// A damaged file of a container stops nothing: it is set aside.
func TestDamagedContainerIsSetAside(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), "containers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c"} {
		if err := s.save(&container{ID: id, Phase: prepared}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.name("", "b"), []byte(`{"version":1,"id`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.name("", "c"), s.name("", "other")); err != nil {
		t.Fatal(err)
	}
	list, bad, err := s.list()
	if err != nil || len(list) != 1 || list[0].ID != "a" || len(bad) != 2 {
		t.Errorf("%v, %v, %v", list, bad, err)
	}
	for _, d := range bad {
		if _, err := os.Stat(d.file); err != nil || !strings.HasSuffix(d.file, ".damaged") {
			t.Errorf("%s: %v", d.file, err)
		}
	}
	if list, bad, err := s.list(); err != nil || len(list) != 1 || len(bad) != 0 {
		t.Errorf("again: %v, %v, %v", list, bad, err)
	}
	// One that cannot be read now may be as good as ever. (Reading a directory
	// fails for root, too.)
	if err := os.Mkdir(s.name("", "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.list(); err == nil {
		t.Error("an error passed over")
	}
	if _, err := os.Stat(s.name("", "d")); err != nil {
		t.Errorf("moved away: %v", err)
	}
}
