package takeover

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A volume that is listed for where it is, while nobody claims it, is no claim: it
// is neither waited for nor released.
func TestBoundVolumesAreNoClaims(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(`{"volumes":[{"name":"a","state":"bound"},{"name":"b","state":"held"},{"name":"c","state":"bound"}]}`)); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	api, err := NewAPI(srv.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	defer api.http.CloseIdleConnections()
	list, err := api.Claims(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "b" {
		t.Errorf("claims %+v, %v", list, err)
	}
}
