package embeddedmesos_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// comparison compares what was recorded with what the embedded cluster says,
// under the rules of the table of differences. Values that may be another but
// always the same one are paired: once a recorded id stands for one of ours,
// it always has to, and no other may.
type comparison struct {
	rules map[string][]*regexp.Regexp
	ours  map[string]string // recorded → ours
	back  map[string]string // ours → recorded
}

func newComparison() *comparison {
	return &comparison{rules: fieldRules(), ours: make(map[string]string), back: make(map[string]string)}
}

func (c *comparison) may(difference, path string) bool {
	for _, rule := range c.rules[difference] {
		if rule.MatchString(path) {
			return true
		}
	}
	return false
}

// pair has a recorded value stand for one of ours.
func (c *comparison) pair(recorded, ours string) error {
	if known, ok := c.ours[recorded]; ok && known != ours {
		return fmt.Errorf("%q stands for %q already, not for %q", recorded, known, ours)
	}
	if known, ok := c.back[ours]; ok && known != recorded {
		return fmt.Errorf("%q is what %q stands for, not %q", ours, known, recorded)
	}
	c.ours[recorded], c.back[ours] = ours, recorded
	return nil
}

// translate replaces all recorded ids in a text with ours, longer ones first.
func (c *comparison) translate(text string) string {
	var recorded []string
	for id := range c.ours {
		if len(id) >= 8 {
			recorded = append(recorded, id)
		}
	}
	sort.Slice(recorded, func(i, j int) bool { return len(recorded[i]) > len(recorded[j]) })
	for _, id := range recorded {
		text = strings.ReplaceAll(text, id, c.ours[id])
	}
	return text
}

// equal returns how ours differs from what was recorded, nil if it does not
// beyond what it may.
func (c *comparison) equal(path string, recorded, ours any) error {
	switch want := recorded.(type) {
	case map[string]any:
		got, ok := ours.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: %v, recorded was an object", path, ours)
		}
		return c.objects(path, want, got)
	case []any:
		got, ok := ours.([]any)
		if !ok || len(got) != len(want) {
			return fmt.Errorf("%s: %s, recorded was %s", path, short(ours), short(recorded))
		}
		for i := range want {
			if err := c.equal(fmt.Sprintf("%s.%d", path, i), want[i], got[i]); err != nil {
				return err
			}
		}
		return nil
	default:
		return c.values(path, recorded, ours)
	}
}

func (c *comparison) objects(path string, want, got map[string]any) error {
	for key := range got {
		if _, ok := want[key]; !ok {
			return fmt.Errorf("%s.%s: %s, recorded was nothing", path, key, short(got[key]))
		}
	}
	keys := make([]string, 0, len(want))
	for key := range want {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		value, ok := got[key]
		if c.may("build", path+"."+key) {
			continue
		}
		if !ok {
			return fmt.Errorf("%s.%s: missing, recorded was %s", path, key, short(want[key]))
		}
		if err := c.equal(path+"."+key, want[key], value); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) values(path string, want, got any) error {
	if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
		return fmt.Errorf("%s: %s, recorded was %s", path, short(got), short(want))
	}
	switch {
	case c.may("times", path):
		return nil
	case c.may("ids", path):
		if err := c.pair(fmt.Sprint(want), fmt.Sprint(got)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	case c.may("ports", path):
		// Ports are numbers; what they are part of is compared without them.
		wantText, gotText := withoutPort(fmt.Sprint(want)), withoutPort(fmt.Sprint(got))
		if wantText != gotText {
			return fmt.Errorf("%s: %v, recorded was %v", path, got, want)
		}
		if err := c.pair("port "+portOf(want), "port "+portOf(got)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
	if text, ok := want.(string); ok {
		want = c.translate(text)
	}
	if want != got {
		return fmt.Errorf("%s: %s, recorded was %s", path, short(got), short(want))
	}
	return nil
}

var portPattern = regexp.MustCompile(`[0-9]+$`)

func portOf(v any) string { return portPattern.FindString(fmt.Sprint(v)) }

func withoutPort(text string) string { return portPattern.ReplaceAllString(text, "") }

func short(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
