package app

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// clientMistake says whether err is one that the API answers with 4xx.
func clientMistake(err error) bool {
	var syntax *SyntaxError
	var invalid *ValidationError
	return errors.As(err, &syntax) || errors.As(err, &invalid)
}

func addSeeds(f *testing.F) {
	f.Helper()
	for _, body := range corpus {
		f.Add([]byte(body))
	}
	var rules []rule
	data, err := os.ReadFile("testdata/rules.json")
	if err != nil {
		f.Fatal(err)
	}
	if err := json.Unmarshal(data, &rules); err != nil {
		f.Fatal(err)
	}
	for _, r := range rules {
		f.Add([]byte(r.Body))
	}
	for _, s := range []string{
		dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"v-${instance}","options":{"dvdi/class":"gold","dvdi/x":"y"}}`, `,"instances":3`),
		dvdi(Mesos, "RW", "p", `{"provider":"dvdi","name":"v","shared":true,"options":{"dvdi/class":"gold"},"class":{"name":"x"}}`, ""),
		`{"id":"/a","cmd":"x","env":{"DVDI_VOLUME_NAME":"v","DVDI_VOLUME_OPTS":"size=1,,a=b","DVDI_VOLUME_NAME3":"w","DVDI_VOLUME_CONTAINERPATH3":"/x"}}`,
		"", "null", "[]", "{}", `{"id":null}`, `{"id":"/a","id":"/b"}`, "{\"id\":\"\xff\"}", `{"id":"\ud800"}`,
		`{"id":"/a","cmd":"x","instances":1e400}`, `{"id":"/a","cmd":"x","instances":-0}`, `{"id":"/a","cmd":"x","cpus":1e308}`,
		strings.Repeat(`{"container":`, 200), strings.Repeat("[", 200),
	} {
		f.Add([]byte(s))
	}
}

// FuzzParse holds that whatever a client sends is either refused as the client's
// mistake or gives a definition whose own JSON gives the same definition again.
func FuzzParse(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Parse(data, everything)
		if err != nil {
			if !clientMistake(err) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		again, err := Parse(out, everything)
		if err != nil {
			t.Fatalf("%q: own output %s is refused: %v", data, out, err)
		}
		if !a.SameConfig(again) || a.Instances != again.Instances {
			t.Fatalf("%q: changed by a round trip: %s", data, out)
		}
	})
}

// FuzzUpdate holds that an update is refused as the client's mistake or gives a
// valid definition of the same app.
func FuzzUpdate(f *testing.F) {
	addSeeds(f)
	f.Add([]byte(`{"version":"2026-01-02T03:04:05.006Z"}`))
	f.Add([]byte(`{"networks":[{"mode":"container/bridge"}]}`))
	stored, err := Parse([]byte(corpus[4]), everything)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := ParseUpdate(data, everything)
		if err != nil {
			if !clientMistake(err) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if _, ok := u.Rollback(); ok {
			return
		}
		for _, partial := range []bool{true, false} {
			a, err := u.Apply(stored.ID, stored, partial)
			if err != nil && !clientMistake(err) {
				t.Fatalf("%q: %v", data, err)
			}
			if err == nil && a.ID != stored.ID {
				t.Fatalf("%q: the update moved the app to %s", data, a.ID)
			}
		}
	})
}

// FuzzGroup holds that a group's body is refused as the client's mistake or
// names only apps of the group.
func FuzzGroup(f *testing.F) {
	addSeeds(f)
	f.Add([]byte(`{"id":"g","dependencies":["../x"],"groups":[{"id":"h","apps":[{"id":"a","cmd":"x"}]}],"apps":[]}`))
	f.Add([]byte(`{"scaleBy":1e300}`))
	stored := map[ID]*App{}
	for _, body := range []string{`{"id":"/base/a","cmd":"x","instances":2}`, `{"id":"/other","cmd":"x"}`} {
		a, err := Parse([]byte(body), everything)
		if err != nil {
			f.Fatal(err)
		}
		stored[a.ID] = a
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGroup(data, "/base", everything)
		if err != nil {
			if !clientMistake(err) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		upsert, remove, err := g.Apply(stored)
		if err != nil && !clientMistake(err) {
			t.Fatalf("%q: %v", data, err)
		}
		for _, a := range upsert {
			remove = append(remove, a.ID)
			if a.Instances < 0 {
				t.Fatalf("%q: %d instances of %s", data, a.Instances, a.ID)
			}
		}
		for _, id := range remove {
			if !id.Within("/base") {
				t.Fatalf("%q: touches %s", data, id)
			}
		}
	})
}
