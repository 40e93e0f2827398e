package takeover

import (
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// What is wrong with a definition is told once.
func TestAnInvalidDefinitionIsToldOnce(t *testing.T) {
	const wrong = "A resident app must have `acceptedResourceRoles"
	_, findings := examine(App{ID: "/x", Definition: map[string]any{
		"id": "/x", "cmd": "sleep 100", "role": "prod", "acceptedResourceRoles": []any{"prod"},
		"container": map[string]any{"type": "MESOS", "volumes": []any{
			map[string]any{"containerPath": "data", "mode": "RW", "persistent": map[string]any{"size": 1}}}},
	}}, app.Options{Role: "prod"}, true)
	if len(findings) != 1 || !findings[0].Refused || strings.Count(findings[0].Text, wrong) != 1 {
		t.Errorf("%+v", findings)
	}
}
