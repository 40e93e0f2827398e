package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFlagsOfMarathonsAreExplained(t *testing.T) {
	for _, f := range Flags() {
		for _, name := range f.Names() {
			if elsewhere[name] != "" {
				t.Errorf("--%s exists", name)
			}
		}
	}
	for name := range elsewhere {
		_, err := read(t, "--master=m", "--"+name+"=x")
		if err == nil {
			t.Errorf("--%s is taken", name)
			continue
		}
		if got := Explain(err).Error(); !strings.Contains(got, "--"+name+" ") || !strings.Contains(got, elsewhere[name]) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := Explain(errors.New(notDefined + "metrics_statsd")).Error(); !strings.Contains(got, "/metrics") {
		t.Error(got)
	}
	for _, text := range []string{notDefined + "http_prot", "something else"} {
		if got := Explain(errors.New(text)).Error(); got != text {
			t.Errorf("%s became %s", text, got)
		}
	}
}

// What the explanations name exists.
func TestExplanationsNameFlagsThatExist(t *testing.T) {
	var known []string
	for _, f := range Flags() {
		known = append(known, f.Names()...)
	}
	for name, text := range elsewhere {
		for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,()=:", r) }) {
			if flag, ok := strings.CutPrefix(word, "--"); ok && !slices.Contains(known, flag) {
				t.Errorf("%s: --%s does not exist", name, flag)
			}
		}
	}
}
