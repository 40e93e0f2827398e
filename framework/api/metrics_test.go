package api

import (
	"strings"
	"testing"
)

func TestMetricsInTheFormThatIsAskedFor(t *testing.T) {
	w := start(t, everything())
	w.ok(404, "GET", "/v2/apps/none", "")
	w.ok(404, "GET", "/nowhere", "")
	for _, tc := range []struct{ path, accept, want string }{
		{"/metrics", "*/*", `"marathon.apps.active.gauge":{"value":0}`},
		{"/metrics", "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "dvdi_apps 0"},
		{"/metrics/prometheus", "", `dvdi_http_request_duration_seconds_count{code="404",method="GET",resource="/v2/apps/{id...}"} 1`},
		{"/metrics/prometheus", "", `resource="none"} 1`},
	} {
		a := w.do("GET", tc.path, "", "Accept", tc.accept)
		if a.status != 200 || !strings.Contains(string(a.body), tc.want) {
			t.Errorf("%s for %q: %d without %q: %s", tc.path, tc.accept, a.status, tc.want, a.body)
		}
	}
}
