package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A secret with which no task could be launched is refused with the app.
func TestSecretsThatNoLaunchTakes(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "secrets")
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(dir, "token"), filepath.Join(base, "outside")} {
		if err := os.WriteFile(file, []byte("not for the answer"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const docker = `"container":{"type":"DOCKER","docker":{"image":"i"}},`
	for _, c := range []struct {
		flags     []string
		source    string
		container string
		status    int
		path      string
	}{
		{[]string{"--secrets-dir=" + dir}, "token", docker, 201, ""},
		{[]string{"--secrets-dir=" + dir}, "left/to/the/agent", "", 201, ""},
		{[]string{"--secrets-dir=" + dir}, "left/to/the/agent", docker, 422, "/env/TOKEN/secret"},
		{[]string{"--secrets-dir=" + dir}, "../outside", "", 422, "/secrets/s/source"},
		{[]string{"--secrets-dir=" + dir}, "db", "", 422, "/secrets/s/source"},
		{nil, "../outside", "", 201, ""},
		{nil, "token", docker, 422, "/env/TOKEN/secret"},
	} {
		p := start(t, append(c.flags, "--enable_features=secrets")...)
		body := `{"id":"/a","cmd":"x",` + c.container + `"env":{"TOKEN":{"secret":"s"}},"secrets":{"s":{"source":"` + c.source + `"}}}`
		resp, err := http.Post("http://"+p.serving(t)+"/v2/apps", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status || c.path != "" && !strings.Contains(string(answer), `"path":"`+c.path+`"`) ||
			strings.Contains(string(answer), "not for the answer") {
			t.Errorf("%v, %s: %d %s", c.flags, body, resp.StatusCode, answer)
		}
	}
}
