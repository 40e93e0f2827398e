package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFenceByClassLabelOrOption(t *testing.T) {
	classes := map[string]VolumeClass{}
	for name, c := range map[string]VolumeClass{
		"fenced":  {Driver: "d", Fence: "60s"},
		"plain":   {Driver: "d"},
		"readers": {Driver: "d", Access: AccessManyReaders, Fence: "60s"},
	} {
		complete, err := c.Complete(name)
		if err != nil {
			t.Fatal(err)
		}
		classes[name] = complete
	}
	for _, c := range []struct {
		name, class, label, option string
		mode                       string
		want                       time.Duration
	}{
		{"nothing said", "plain", "", "", "RW", 0},
		{"by class", "fenced", "", "", "RW", time.Minute},
		{"by label", "plain", "30s", "", "RW", 30 * time.Second},
		{"by option", "plain", "", "45s", "RW", 45 * time.Second},
		{"option before label and class", "fenced", "30s", "45s", "RW", 45 * time.Second},
		{"label before class", "fenced", "none", "", "RW", 0},
		{"option says none", "fenced", "30s", "none", "RW", 0},
		{"volume of many agents", "readers", "", "", "RO", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			option := ""
			if c.option != "" {
				option = fmt.Sprintf(`,"dvdi/fence":%q`, c.option)
			}
			label := ""
			if c.label != "" {
				label = fmt.Sprintf(`,"labels":{"DVDI_FENCE":%q}`, c.label)
			}
			a, err := Parse([]byte(fmt.Sprintf(`{"id":"/db","cmd":"sleep 1"%s,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":%q,
				"external":{"name":"v","provider":"dvdi","options":{"dvdi/class":%q%s}}}]}}`, label, c.mode, c.class, option)), Options{Classes: classes})
			if err != nil {
				t.Fatal(err)
			}
			e := a.Container.Volumes[0].External
			if got := e.Lease(a); got != c.want {
				t.Errorf("lease %s, want %s", got, c.want)
			}
			if _, passed := e.DriverOptions()["fence"]; passed {
				t.Error("the driver gets the option")
			}
		})
	}
}

func TestFenceThatIsNone(t *testing.T) {
	for _, value := range []string{"1s", "100h", "lease", "-5s"} {
		for _, definition := range []string{`"labels":{"DVDI_FENCE":%q}, "container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d"}}}]}`,
			`"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"d","dvdi/fence":%q}}}]}`} {
			_, err := Parse([]byte(`{"id":"/db","cmd":"sleep 1",`+fmt.Sprintf(definition, value)+`}`), Options{})
			var invalid *ValidationError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error()+fmt.Sprint(invalid), "10s") {
				t.Errorf("%s: %v", value, err)
			}
		}
	}
}
