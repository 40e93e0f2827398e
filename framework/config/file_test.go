package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileOfSettings(t *testing.T) {
	path := file(t, "master: zk://h:2181/mesos\nhttp_port: 9000\nmesos_role: fromfile\ndisable_checkpoint: true\n"+
		"failover_timeout: 60\nenable_features: [secrets, external_volumes]\nhttp_realm: fromfile\n")
	t.Setenv("DVDI_MESOS_ROLE", "fromenv")
	cfg, err := read(t, "--config", path, "--http_realm", "fromflag")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Master != "zk://h:2181/mesos" || cfg.HTTPPort != 9000 || cfg.Checkpoint || cfg.Failover != time.Minute || !cfg.Feature("secrets") {
		t.Errorf("the file counts for nothing: %+v", cfg)
	}
	if cfg.Role != "fromenv" || cfg.HTTPRealm != "fromflag" {
		t.Errorf("the file wins over environment or flag: %q %q", cfg.Role, cfg.HTTPRealm)
	}
}

func TestFileOfSettingsFromTheEnvironment(t *testing.T) {
	t.Setenv("DVDI_CONFIG", file(t, "master: m:5050\n"))
	if cfg, err := read(t); err != nil || cfg.Master != "m:5050" {
		t.Errorf("%+v %v", cfg, err)
	}
}

func TestMistakesInTheFileOfSettings(t *testing.T) {
	for content, want := range map[string]string{
		"master: m\nhttpport: 1\n":          "line 2: httpport: there is no such setting",
		"master: m\nhttp_port: many\n":      "http_port",
		"master: m\nmesos_role: {a: b}\n":   "plain value",
		"master: m\nenable_features: [[x]]": "plain values",
		"- master\n":                        "cannot unmarshal",
		"master: m\nconfig: other\n":        "no such setting",
		"master: m\nhttp_port: 70000\n":     "70000 is no port",
	} {
		_, err := read(t, "--config", file(t, content))
		var mistake *Error
		if !errors.As(err, &mistake) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if _, err := read(t, "--config", "/nonexistent"); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("no file: %v", err)
	}
}

func TestVolumeClasses(t *testing.T) {
	path := file(t, `
classes:
  fast:
    driver: rexray
    options: {iops: 100, volumetype: io1}
    backendExclusive: true
    explicitCreate: true
  nfs:
    driver: netshare
    access: many-writers
    zonal: true
  here:
    driver: lvm
    scope: local
`)
	cfg, err := read(t, "--master", "m", "--volume-classes", path)
	if err != nil {
		t.Fatal(err)
	}
	fast, nfs := cfg.VolumeClasses["fast"], cfg.VolumeClasses["nfs"]
	if fast.Name != "fast" || fast.Driver != "rexray" || fast.Options["iops"] != "100" || fast.Access != app.AccessOneTask ||
		fast.Reclaim != app.ReclaimRetain || !fast.BackendExclusive || !fast.ExplicitCreate {
		t.Errorf("fast: %+v", fast)
	}
	if nfs.Access != app.AccessManyWriters || nfs.BackendExclusive || !nfs.Zonal || nfs.Scope != "" {
		t.Errorf("nfs: %+v", nfs)
	}
	if here := cfg.VolumeClasses["here"]; here.Scope != app.ScopeLocal || here.Zonal {
		t.Errorf("here: %+v", here)
	}
	for content, want := range map[string]string{
		"classes: {a: {driver: d, iops: 1}}":                            "iops",
		"classes: {a: {}}":                                              "volume class a: driver",
		"classes: {a: {driver: d}, b: {driver: d, access: x}}":          "volume class b: access",
		"classes: {a: {driver: d, scope: host}}":                        "volume class a: scope",
		"classes: {a: {driver: d, scope: local, access: many-readers}}": "exclude each other",
		"volumes: {}": "volumes",
		"classes: {a: {driver: d}}\n---\nclasses: {}": "more than one document",
		"classes: {A: {driver: d}}":                   "lower-case",
		"classes: {a: {driver: d, reclaim: delete}}":  "--bridge_token_file",
	} {
		if _, err := read(t, "--master", "m", "--volume-classes", file(t, content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if cfg, err := read(t, "--master", "m", "--volume-classes", file(t, "")); err != nil || len(cfg.VolumeClasses) != 0 {
		t.Errorf("an empty file: %v", err)
	}
}

func TestHTTPSNeedsItsFiles(t *testing.T) {
	for flag, args := range map[string][]string{
		"ssl_cert":     {"--ssl_cert", "c"},
		"ssl_key":      {"--ssl_key", "k"},
		"disable_http": {"--disable_http"},
		"https_port":   {"--https_port", "-1"},
	} {
		if _, err := read(t, append([]string{"--master", "m"}, args...)...); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
