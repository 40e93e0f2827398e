package mesosjson_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// TestCapturesSurvive decodes everything that a real master sent and was sent
// and encodes it again: nothing may be lost or added.
func TestCapturesSurvive(t *testing.T) {
	for _, name := range []string{"stateful-session.jsonl", "partition-failover-session.jsonl"} {
		file, err := os.Open(filepath.Join("..", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var line struct {
				Call  json.RawMessage
				Event json.RawMessage
				Raw   *string
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			if line.Event != nil {
				survives(t, line.Event, &scheduler.Event{})
			}
			if line.Call != nil && line.Raw == nil && !bytes.Contains(line.Call, []byte("NOPE")) {
				// A list without items is not distinct from no list.
				accepted(t, bytes.Replace(line.Call, []byte(`{"tasks": []}`), []byte("{}"), 1))
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOperatorAnswersSurvive(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "testdata", "operator-*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		survives(t, body, &master.Response{})
	}
}

func survives(t *testing.T, original []byte, m proto.Message) {
	t.Helper()
	if err := mesosjson.Unmarshal(original, m); err != nil {
		t.Fatalf("%v in %s", err, original)
	}
	again, err := mesosjson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if want, got := tree(t, original), tree(t, again); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", again, original)
	}
}

// accepted decodes a recorded call and encodes it again: nothing may be lost,
// only defaults added.
func accepted(t *testing.T, original []byte) {
	t.Helper()
	call := &scheduler.Call{}
	if err := mesosjson.Unmarshal(original, call); err != nil {
		t.Fatalf("%v in %s", err, original)
	}
	again, err := mesosjson.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	if !within(tree(t, original), tree(t, again)) {
		t.Errorf("got  %s\nwant %s", again, original)
	}
}

func within(part, whole any) bool {
	object, ok := part.(map[string]any)
	if !ok {
		list, ok := part.([]any)
		if !ok {
			return reflect.DeepEqual(part, whole)
		}
		other, _ := whole.([]any)
		for i := range list {
			if len(other) != len(list) || !within(list[i], other[i]) {
				return false
			}
		}
		return true
	}
	other, _ := whole.(map[string]any)
	for key, value := range object {
		if !within(value, other[key]) {
			return false
		}
	}
	return true
}

func TestDefaultsAreWritten(t *testing.T) {
	for want, m := range map[string]proto.Message{
		`{"shell":true}`:         &mesos.CommandInfo{},
		`{"refuse_seconds":5.0}`: &mesos.Filters{},
		`{"protocol":"IPv4"}`:    &mesos.NetworkInfo_IPAddress{},
		`{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false}`: &mesos.FrameworkInfo{User: "u", Name: "n"},
		`{"name":"cpus"}`: &mesos.Resource{Name: "cpus"},
	} {
		got, err := mesosjson.Marshal(m)
		if err != nil || string(got) != want {
			t.Errorf("%T: %s (%v), want %s", m, got, err, want)
		}
	}
}

func tree(t *testing.T, body []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

func TestSyntaxErrorsAreWordedAsMesosDoes(t *testing.T) {
	for body, want := range map[string]string{
		"{not json":          "syntax error at line 1 near: not json",
		"{\n\"type\" 3}\n x": "syntax error at line 2 near: 3}",
		"":                   "syntax error at line 1 near: ",
		`{} {}`:              "syntax error at line 1 near:  {}",
	} {
		err := mesosjson.Unmarshal([]byte(body), &scheduler.Call{})
		var syntax *mesosjson.SyntaxError
		if !errors.As(err, &syntax) || syntax.Error() != want {
			t.Errorf("%q: %v, want %q", body, err, want)
		}
	}
}

func TestValuesThatDoNotFitAreRefused(t *testing.T) {
	for _, body := range []string{
		`[]`,
		`{"framework_id": "x"}`,
		`{"framework_id": {}}`,
		`{"type": 3}`,
		`{"decline": {"offer_ids": {}}}`,
		`{"acknowledge": {"uuid": "%"}}`,
		`{"decline": {"offer_ids": [], "filters": {"refuse_seconds": "soon"}}}`,
		`{"subscribe": {"framework_info": {"user": 1, "name": "x"}}}`,
		`{"subscribe": {"force": 1, "framework_info": {"checkpoint": 1, "user": "", "name": "x"}}}`,
		`{"accept": {"operations": [{"launch": {"task_infos": [{"health_check": {"http": {"port": -1}}}]}}]}}`,
	} {
		if err := mesosjson.Unmarshal([]byte(body), &scheduler.Call{}); err == nil {
			t.Errorf("%s was accepted", body)
		}
	}
}

func TestUnknownFieldsAndEnumsAreIgnored(t *testing.T) {
	var call scheduler.Call
	body := `{"type": "LATER", "later": {"x": 1}, "decline": {"offer_ids": [], "filters": {"refuse_seconds": "2.5"}}}`
	if err := mesosjson.Unmarshal([]byte(body), &call); err != nil {
		t.Fatal(err)
	}
	if call.Type != scheduler.Call_UNKNOWN || call.Decline.Filters.GetRefuseSeconds() != 2.5 {
		t.Errorf("got %v", call)
	}
}

func TestNumbersThatJSONLacksAreRefused(t *testing.T) {
	var nan float64
	nan /= nan
	if _, err := mesosjson.Marshal(&mesos.Value_Scalar{Value: nan}); err == nil {
		t.Error("NaN was encoded")
	}
}
