package api

import (
	"errors"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"tier": "db", "a b": "x,y", "empty": ""}
	for text, want := range map[string]bool{
		"tier":                        true,
		"none":                        false,
		"tier==db":                    true,
		" tier == db , empty ":        true,
		"tier==web":                   false,
		"tier!=web":                   true,
		"none!=web":                   false,
		"tier in (web, db)":           true,
		"tier notin (web)":            true,
		"none notin (web)":            false,
		`a\ b==x\,y`:                  true,
		"tier==db,tier!=web,a\\ b":    true,
		"tier==db,none":               false,
		"tier in(db)":                 true,
		"tier notin (db),tier in(db)": false,
	} {
		sel, err := parseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := sel.matches(labels); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestSelectorErrors(t *testing.T) {
	for _, text := range []string{"", ",", "a,", "a==", "a=b", "a in", "a in (", "a in ()", "a in (b", "a b", "a==b((", "a in b", `\`} {
		_, err := parseSelector(text)
		var ve *app.ValidationError
		if !errors.As(err, &ve) || !strings.HasPrefix(ve.Message, "Can not parse label selector "+text+". Reason: ") {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{"a", "a==b", "a!=b,c", "a in (b,c)", "a notin (b)", `a\ b==\,`, "a in (", "\\", "ä==ö", "a  ==  b ", "((", "a==b,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		sel, err := parseSelector(text)
		if err != nil {
			return
		}
		if len(sel) == 0 {
			t.Fatalf("%q gives an empty selector, which would select everything", text)
		}
		labels := map[string]string{}
		for _, term := range sel {
			if term.key == "" {
				t.Fatalf("%q has a term without key", text)
			}
			if term.op == "==" || term.op == "in" {
				labels[term.key] = term.values[0]
			} else if _, ok := labels[term.key]; !ok {
				labels[term.key] = "\x00"
			}
		}
		// Without labels nothing may match, whatever the operators.
		if sel.matches(nil) {
			t.Fatalf("%q matches an app without labels", text)
		}
		sel.matches(labels)
	})
}
