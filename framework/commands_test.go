package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// operate runs a command of the program and returns what it left.
func operate(args ...string) (code int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	code = run(append([]string{"dvdi-framework"}, args...), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestExitCodesOfCommands(t *testing.T) {
	p := start(t)
	url := "http://" + p.serving(t)
	write := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := write("good", `{"id":"/a","cmd":"x"}`), write("bad", `{"id":"/a"}`)
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"app", "validate", good}, 0, "valid"},
		{[]string{"app", "validate", bad}, exitDiffers, "cmd"},
		{[]string{"app", "diff", "--url", url, good}, exitDiffers, "new"},
		{[]string{"app", "show", "--url", url, "/none"}, exitRefused, "does not exist"},
		{[]string{"app", "show", "--url", "http://127.0.0.1:1", "/none"}, exitUnreachable, "--url"},
		{[]string{"app", "deploy", "--url", url, "--wait", "--timeout", "5s", good}, exitFailed, "--timeout"},
		{[]string{"app", "list", "--nonsense"}, exitBadFlag, "nonsense"},
		{[]string{"app", "frobnicate"}, exitBadFlag, "frobnicate"},
		{[]string{"frobnicate"}, exitBadFlag, "frobnicate"},
		{[]string{"status", "--url", url}, 0, "NOT connected"},
		{[]string{"volume", "list", "--url", url}, 0, "DRIVER"},
		{[]string{"volume", "classes", "--url", url}, 0, "DRIVER"},
	} {
		code, out, errOut := operate(tc.args...)
		if code != tc.code || !strings.Contains(out+errOut, tc.says) {
			t.Errorf("%v: exit code %d, want %d and %q; output %s%s", tc.args, code, tc.code, tc.says, out, errOut)
		}
	}
}

func TestClassesOfAFramework(t *testing.T) {
	path := filepath.Join(t.TempDir(), "classes.yaml")
	if err := os.WriteFile(path, []byte("classes: {fast: {driver: rexray, options: {iops: 100}}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--volume-classes="+path)
	url := "http://" + p.serving(t)
	code, out, errOut := operate("volume", "classes", "--url", url, "--output", "json")
	var classes []struct {
		Name, Driver, Access string
		Options              map[string]string
	}
	if err := json.Unmarshal([]byte(out), &classes); err != nil || code != 0 || len(classes) != 1 ||
		classes[0].Name != "fast" || classes[0].Options["iops"] != "100" || classes[0].Access != "one-task" {
		t.Errorf("%d %v: %s%s", code, err, out, errOut)
	}
	app := filepath.Join(t.TempDir(), "app.json")
	if err := os.WriteFile(app, []byte(`{"id":"/db","cmd":"x","container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW",
		"external":{"provider":"dvdi","name":"v","options":{"dvdi/class":"fast"}}}]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"app", "validate", "--volume-classes", path, app}, {"app", "deploy", "--url", url, app}, {"app", "diff", "--url", url, app},
	} {
		if code, out, errOut := operate(args...); code != 0 {
			t.Errorf("%v: exit code %d, %s%s", args, code, out, errOut)
		}
	}
	if code, out, _ := operate("app", "validate", app); code != exitDiffers || !strings.Contains(out, "no volume class") {
		t.Errorf("without the classes: exit code %d, %s", code, out)
	}
}
