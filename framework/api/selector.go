package api

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// selector is a label selector: all its terms must hold (contract 1.1).
type selector []term

// term is one condition on a label, which must exist whatever the operator.
type term struct {
	key    string
	op     string // "", "==", "!=", "in", "notin"
	values []string
}

func (s selector) matches(labels map[string]string) bool {
	for _, t := range s {
		if !t.matches(labels) {
			return false
		}
	}
	return true
}

func (t term) matches(labels map[string]string) bool {
	value, ok := labels[t.key]
	if !ok {
		return false
	}
	switch t.op {
	case "==", "in":
		return slices.Contains(t.values, value)
	case "!=", "notin":
		return !slices.Contains(t.values, value)
	}
	return true
}

// parseSelector reads "key", "key==v", "key!=v", "key in (a,b)" and "key notin
// (a,b)", joined by commas. In words, characters other than letters, digits,
// "-", "_" and "." are escaped by a backslash.
func parseSelector(text string) (selector, error) {
	p := selectorParser{text: []rune(text)}
	var sel selector
	for {
		t, err := p.term()
		if err == nil {
			sel = append(sel, t)
			if p.spaces(); p.end() {
				return sel, nil
			}
			err = p.expect(',')
		}
		if err != nil {
			return nil, &app.ValidationError{Message: fmt.Sprintf("Can not parse label selector %s. Reason: %v", text, err)}
		}
	}
}

type selectorParser struct {
	text []rune
	pos  int
}

func (p *selectorParser) end() bool { return p.pos >= len(p.text) }

func (p *selectorParser) spaces() {
	for !p.end() && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

// take consumes s if it is next.
func (p *selectorParser) take(s string) bool {
	if strings.HasPrefix(string(p.text[p.pos:]), s) {
		p.pos += len([]rune(s))
		return true
	}
	return false
}

func (p *selectorParser) expect(r rune) error {
	p.spaces()
	if p.end() {
		return fmt.Errorf("%q expected at the end", r)
	}
	if p.text[p.pos] != r {
		return fmt.Errorf("%q expected but %q found at position %d", r, p.text[p.pos], p.pos+1)
	}
	p.pos++
	return nil
}

func bare(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

func (p *selectorParser) word() (string, error) {
	p.spaces()
	var b strings.Builder
	for !p.end() {
		r := p.text[p.pos]
		if r == '\\' && p.pos+1 < len(p.text) {
			b.WriteRune(p.text[p.pos+1])
			p.pos += 2
			continue
		}
		if !bare(r) {
			break
		}
		b.WriteRune(r)
		p.pos++
	}
	if b.Len() == 0 {
		if p.end() {
			return "", fmt.Errorf("a word expected at the end")
		}
		return "", fmt.Errorf("a word expected but %q found at position %d", p.text[p.pos], p.pos+1)
	}
	return b.String(), nil
}

func (p *selectorParser) term() (term, error) {
	key, err := p.word()
	if err != nil {
		return term{}, err
	}
	p.spaces()
	for _, op := range []string{"==", "!="} {
		if p.take(op) {
			v, err := p.word()
			return term{key, op, []string{v}}, err
		}
	}
	for _, op := range []string{"notin", "in"} {
		if p.take(op) {
			values, err := p.list()
			return term{key, op, values}, err
		}
	}
	return term{key: key}, nil
}

func (p *selectorParser) list() ([]string, error) {
	if err := p.expect('('); err != nil {
		return nil, err
	}
	var values []string
	for {
		v, err := p.word()
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if p.spaces(); !p.take(",") {
			return values, p.expect(')')
		}
	}
}
