package facts

import (
	"slices"
	"strings"
	"testing"
)

// Whatever a driver says of replicas, it is names of hosts, and not too many.
func TestReplicasIn(t *testing.T) {
	long, many := strings.Repeat("x", 257), strings.Split(strings.Repeat("h ", 101), " ")[:101]
	list := func(names ...string) (out []any) {
		for _, n := range names {
			out = append(out, n)
		}
		return out
	}
	for _, test := range []struct {
		said any
		want []string
		told bool
	}{
		{"a, b c", []string{"a", "b", "c"}, true},
		{list("a", "", long, "b"), []string{"a", "b"}, true},
		{[]string{"a", long}, []string{"a"}, true},
		{long + ",a", []string{"a"}, true},
		{[]any{7.0, "a"}, []string{"a"}, true},
		{list(many...), many[:100], true},
		{strings.Join(many, ","), many[:100], true},
		{list(), nil, true},
		{7.0, nil, false},
	} {
		if got, told := replicasIn(map[string]any{"Replicas": test.said}); !slices.Equal(got, test.want) || told != test.told {
			t.Errorf("%.60v: %.60v %v, want %.60v %v", test.said, got, told, test.want, test.told)
		}
	}
}
