package scheduler_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// TestPropertyStrangeSnapshots changes numbers, words and lists of snapshots to
// what no cluster would offer: there must be a plan, not a panic.
func TestPropertyStrangeSnapshots(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var tree map[string]any
		if err := json.Unmarshal([]byte(encoded(rt, anyWorld(rt))), &tree); err != nil {
			rt.Fatal(err)
		}
		tree["snapshot"] = bend(rt, tree["snapshot"])
		line, err := json.Marshal(tree)
		if err != nil {
			rt.Fatal(err)
		}
		s, err := scheduler.DecodeSnapshot(line)
		if err != nil {
			return // a word or number that the format does not know
		}
		if _, err := scheduler.EncodePlan(scheduler.Decide(s)); err != nil {
			rt.Fatal(err)
		}
	})
}

// bend changes one in 150 of the leaves and lists of a JSON value.
func bend(t *rapid.T, v any) any {
	hit := rapid.IntRange(0, 149).Draw(t, "bend") == 0
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			switch k {
			case "Kind":
				v[k] = rapid.SampledFrom([]any{v[k], v[k], v[k], "", "set"}).Draw(t, "kind")
			case "Access", "State", "Source":
			default:
				v[k] = bend(t, v[k])
			}
		}
	case []any:
		if hit {
			return append(v, v...)
		}
		for i := range v {
			v[i] = bend(t, v[i])
		}
	case float64:
		if hit {
			return rapid.SampledFrom([]any{-1, 0, 1, -1 << 62, 1 << 62}).Draw(t, "number")
		}
	case string:
		if _, err := time.Parse(time.RFC3339, v); err != nil && hit {
			return rapid.SampledFrom([]any{"", "a1", "v1", "*", "dvdi", "["}).Draw(t, "word")
		}
	}
	return v
}
