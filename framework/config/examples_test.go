package config

import (
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

const examples = "../../examples"

// The examples that operators start from are read as they stand.
func TestExamples(t *testing.T) {
	classes, err := LoadVolumeClasses(filepath.Join(examples, "volume-classes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(examples, "*.json"))
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := app.Parse(data, app.Options{Role: "db", Classes: classes}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestExampleSettings(t *testing.T) {
	path := filepath.Join(examples, "framework.yaml")
	cfg, err := read(t, "--config", path, "--volume-classes", filepath.Join(examples, "volume-classes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(data, &settings); err != nil {
		t.Fatal(err)
	}
	if cfg.Master != settings["master"] || cfg.HTTPSCert != settings["ssl_cert"] || cfg.MaxConcurrent != settings["http_max_concurrent_requests"] || len(cfg.VolumeClasses) == 0 {
		t.Errorf("%+v is not what the example says", cfg)
	}
}
