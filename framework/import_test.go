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

// TestImportByHTTPS takes from and to frameworks whose certificate no system knows.
func TestImportByHTTPS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certificate(t, cert, key, 1)
	p := start(t, "--ssl_cert="+cert, "--ssl_key="+key, "--https_port=0", "--disable_http")
	url := "https://" + p.serving(t)
	args := []string{"import", "--from", url, "--url", url, "--journal", filepath.Join(dir, "j")}
	if code, out := runProgram(t, args...); code == 0 || !strings.Contains(out, "certificate") {
		t.Errorf("without --ca: exit code %d, output %q", code, out)
	}
	if code, out := runProgram(t, append(args, "--ca", cert)...); code != 0 {
		t.Errorf("exit code %d, output %q", code, out)
	}
	if code, out := runProgram(t, append(args, "--ca", key)...); code != exitBadFlag || !strings.Contains(out, "--ca") {
		t.Errorf("a file without certificates: exit code %d, output %q", code, out)
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
