package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestImportNeverShowsPasswords gives --from and --url that cannot be used.
func TestImportNeverShowsPasswords(t *testing.T) {
	for _, from := range []string{
		"http://admin:se%cret@marathon:8080", "admin:secret@marathon:8080", "http://admin:secret@", "ftp://admin:secret@marathon",
		"http://admin:secret@127.0.0.1:1",
	} {
		for _, flag := range []string{"--from", "--url"} {
			code, out := runProgram(t, "import", flag, from, "--journal", filepath.Join(t.TempDir(), "j"))
			if code == 0 || strings.Contains(out, "cret") {
				t.Errorf("%s %s: exit code %d, output %q", flag, from, code, out)
			}
		}
	}
}

// TestImportShortensRefusals: what answers at --from may be anything.
func TestImportShortensRefusals(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		for range 1000 {
			if _, err := w.Write([]byte(strings.Repeat("no ", 1000))); err != nil {
				return // it has heard enough
			}
		}
	}))
	defer s.Close()
	p := start(t)
	code, out := runProgram(t, "import", "--from", s.URL, "--url", "http://"+p.serving(t), "--journal", filepath.Join(t.TempDir(), "j"))
	if code == 0 || !strings.Contains(out, "status 403") || len(out) > 10<<10 {
		t.Errorf("exit code %d, %d bytes of output", code, len(out))
	}
}
