package app

import (
	"fmt"
	"strings"
)

// The messages of ValidationError that Marathon's clients know (contract 0.3).
const (
	msgShape   = "Invalid JSON"
	msgInvalid = "Object is not valid"
)

// SyntaxError means that a request body is no JSON at all, or JSON of a kind
// that is refused before anything is read from it (duplicate keys, invalid
// UTF-8, nesting beyond reason). The API answers it with 400.
type SyntaxError struct {
	Message string // for the user, one of Marathon's texts
	Details string // what is wrong and where
}

func (e *SyntaxError) Error() string { return e.Message + ": " + e.Details }

// Detail is what is wrong at one place of a definition. Path is in Marathon's
// notation: "/container/volumes(0)/mode", and "/" for the whole.
type Detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// ValidationError means that a request was understood as JSON but breaks a
// rule. The API answers it with 422. All breaches that one stage of processing
// finds are in Details; without Details, Message says it all.
type ValidationError struct {
	Message string
	Details []Detail
}

func (e *ValidationError) Error() string {
	if len(e.Details) == 0 {
		return e.Message
	}
	var b strings.Builder
	b.WriteString(e.Message)
	sep := ": "
	for _, d := range e.Details {
		fmt.Fprintf(&b, "%s%s: %s", sep, d.Path, strings.Join(d.Errors, ", "))
		sep = "; "
	}
	return b.String()
}

// problems collects what one stage finds wrong, grouped by path in the order of
// discovery.
type problems struct {
	details []Detail
	index   map[string]int
}

func (p *problems) add(path, message string) {
	if path == "" {
		path = "/"
	}
	if i, ok := p.index[path]; ok {
		p.details[i].Errors = append(p.details[i].Errors, message)
		return
	}
	if p.index == nil {
		p.index = map[string]int{}
	}
	p.index[path] = len(p.details)
	p.details = append(p.details, Detail{Path: path, Errors: []string{message}})
}

func (p *problems) addf(path, format string, args ...any) {
	p.add(path, fmt.Sprintf(format, args...))
}

// err returns nil when nothing was found wrong.
func (p *problems) err(message string) error {
	if len(p.details) == 0 {
		return nil
	}
	return &ValidationError{Message: message, Details: p.details}
}
