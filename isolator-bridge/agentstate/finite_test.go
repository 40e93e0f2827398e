package agentstate

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// An agent that runs a task without limits answers with numbers that are not
// JSON; its volumes are seen all the same.
func TestAnswersWithInfiniteNumbersAreUnderstood(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"type":"GET_STATE","get_state":{"get_tasks":{"launched_tasks":[{
			"task_id":{"value":"Infinity"},"framework_id":{"value":"\"NaN"},"state":"TASK_RUNNING",
			"limits":{"cpus":{"value":Infinity},"mem":{"value":-Infinity},"disk":{"value":NaN},"gpus":{"value":-1.5}},
			"container":{"type":"MESOS","volumes":[{"source":{"docker_volume":{"driver":"d","name":"v"}}}]}}]}}}`)
	}))
	defer server.Close()
	api, err := NewAPI(APIConfig{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	got, err := api.Workloads(t.Context())
	if err != nil || len(got) != 1 || got[0].TaskID != "Infinity" || got[0].FrameworkID != `"NaN` ||
		len(got[0].Volumes) != 1 || got[0].Volumes[0] != (ledger.Key{Driver: "d", Volume: "v"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}
