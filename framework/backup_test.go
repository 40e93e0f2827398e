package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackupOfAFrameworkThatRuns needs the credentials of the API, and leaves no
// file where the answer is no whole backup.
func TestBackupOfAFrameworkThatRuns(t *testing.T) {
	p := start(t, "--http_credentials=admin:secret")
	address := p.serving(t)
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"backup":"dvdi-framework state","format":1,"time":"2026-01-01T00:00:00Z"}` + "\n"))
	}))
	defer half.Close()
	for _, tc := range []struct {
		url  string
		code int
		says string
	}{
		{"http://admin:secret@" + address, 0, "records written"},
		{"http://" + address, exitRefused, "credentials"},
		{"http://admin:wrong@" + address, exitRefused, "credentials"},
		{"http://admin:secret@127.0.0.1:1", exitUnreachable, "127.0.0.1:1"},
		{"http://admin:se%cret@" + address, exitBadFlag, "--url"},
		{half.URL, exitStateUnusable, "ends too early"},
	} {
		file := filepath.Join(t.TempDir(), "backup")
		code, out := runProgram(t, "backup", "--url="+tc.url, file)
		if code != tc.code || !strings.Contains(out, tc.says) || strings.Contains(out, "cret") {
			t.Errorf("%s: exit code %d, output %q", tc.url, code, out)
		}
		if _, err := os.Stat(file); (err == nil) != (code == 0) {
			t.Errorf("%s: exit code %d and the file: %v", tc.url, code, err)
		}
	}
}
