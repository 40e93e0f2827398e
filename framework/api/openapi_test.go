package api

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gopkg.in/yaml.v3"
)

// document is what the tests need of an OpenAPI document.
type document struct {
	Paths      map[string]map[string]any
	Components struct {
		Schemas    map[string]*schema
		Responses  map[string]response
		Parameters map[string]any
	}
}

type response struct {
	Ref     string `yaml:"$ref"`
	Content map[string]struct{ Schema *schema }
}

// schema is the part of JSON schema that the document uses.
type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Required   []string
	Properties map[string]*schema
	Additional *schema `yaml:"additionalProperties"`
	Items      *schema
	OneOf      []*schema `yaml:"oneOf"`
	Enum       []string
}

var readDocument = sync.OnceValues(func() (*document, error) {
	var d document
	if err := yaml.Unmarshal(openAPIDocument, &d); err != nil {
		return nil, err
	}
	return &d, nil
})

// check says where v is not of the schema; nil is fine.
func (d *document) check(path string, s *schema, v any) error {
	switch {
	case s == nil:
		return nil
	case s.Ref != "":
		name := s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		target := d.Components.Schemas[name]
		if target == nil {
			return fmt.Errorf("%s: no schema %s", path, name)
		}
		return d.check(path, target, v)
	case len(s.OneOf) > 0:
		return d.checkOneOf(path, s, v)
	}
	if err := d.checkType(path, s, v); err != nil {
		return err
	}
	switch v := v.(type) {
	case map[string]any:
		return d.checkObject(path, s, v)
	case []any:
		for i, e := range v {
			if err := d.check(path+"/"+strconv.Itoa(i), s.Items, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *document) checkOneOf(path string, s *schema, v any) error {
	var fits int
	var last error
	for _, one := range s.OneOf {
		if err := d.check(path, one, v); err == nil {
			fits++
		} else {
			last = err
		}
	}
	if fits != 1 {
		return fmt.Errorf("%s: fits %d alternatives: %w", path, fits, last)
	}
	return nil
}

func (d *document) checkType(path string, s *schema, v any) error {
	ok := true
	switch s.Type {
	case "string":
		_, ok = v.(string)
	case "boolean":
		_, ok = v.(bool)
	case "number":
		_, ok = v.(float64)
	case "integer":
		f, number := v.(float64)
		ok = number && f == math.Trunc(f)
	case "object":
		_, ok = v.(map[string]any)
	case "array":
		_, ok = v.([]any)
	}
	if !ok {
		return fmt.Errorf("%s: %v is no %s", path, v, s.Type)
	}
	if text, isText := v.(string); isText && len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
		return fmt.Errorf("%s: %s is none of %v", path, text, s.Enum)
	}
	return nil
}

func (d *document) checkObject(path string, s *schema, v map[string]any) error {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Errorf("%s: %s is missing", path, name)
		}
	}
	for name, member := range v {
		sub, known := s.Properties[name]
		switch {
		case known:
		case s.Additional != nil:
			sub = s.Additional
		case len(s.Properties) > 0:
			return fmt.Errorf("%s: %s is not documented", path, name)
		}
		if err := d.check(path+"/"+name, sub, member); err != nil {
			return err
		}
	}
	return nil
}

// template is the path of a route as the document writes it.
func template(pattern string) string { return strings.ReplaceAll(pattern, "...}", "}") }

// documented holds that an answer is one that the document describes.
func documented(t *testing.T, req *http.Request, resp *http.Response, body []byte) {
	t.Helper()
	d, err := readDocument()
	if err != nil {
		t.Fatal(err)
	}
	responses := map[string]response{"default": {Ref: "Problem"}}
	path := segments(req.URL.Path)
	for _, rt := range (&server{}).table() {
		if rt.match(path) == nil {
			continue
		}
		method := strings.ToLower(req.Method)
		if method == "head" {
			method = "get"
		}
		if op, ok := d.Paths[template(rt.pattern)][method]; ok {
			responses = d.responses(t, op)
		}
		break
	}
	r, ok := responses[strconv.Itoa(resp.StatusCode)]
	if !ok {
		if resp.StatusCode < 300 && req.Method != http.MethodOptions {
			t.Errorf("%s %s: status %d is not documented", req.Method, req.URL, resp.StatusCode)
		}
		r = responses["default"]
	}
	if r.Ref != "" {
		r = d.Components.Responses[r.Ref[strings.LastIndexByte(r.Ref, '/')+1:]]
	}
	content, ok := r.Content["application/json"]
	if !ok || req.Method == http.MethodHead || req.Method == http.MethodOptions {
		return
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%s %s: %v in %s", req.Method, req.URL, err, body)
		return
	}
	if err := d.check("", content.Schema, v); err != nil {
		t.Errorf("%s %s: %d is not as documented: %v in %s", req.Method, req.URL, resp.StatusCode, err, body)
	}
}

// responses decodes the answers of an operation.
func (d *document) responses(t *testing.T, op any) map[string]response {
	t.Helper()
	b, err := yaml.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	var o struct{ Responses map[string]response }
	if err := yaml.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	return o.Responses
}

// TestDocumentHasEveryResource holds the OpenAPI document against the table of
// resources, in both directions.
func TestDocumentHasEveryResource(t *testing.T) {
	d, err := readDocument()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	for _, rt := range (&server{}).table() {
		for name, h := range map[string]handler{
			"get": rt.methods.get, "post": rt.methods.post, "put": rt.methods.put, "patch": rt.methods.patch, "delete": rt.methods.del,
		} {
			if h == nil && (name != "get" || rt.methods.any == nil) {
				continue
			}
			served[template(rt.pattern)+" "+name] = true
			if d.Paths[template(rt.pattern)][name] == nil {
				t.Errorf("%s %s is not documented", name, rt.pattern)
			}
		}
	}
	for path, ops := range d.Paths {
		for name := range ops {
			if name != "parameters" && !served[path+" "+name] {
				t.Errorf("%s %s is documented but not served", name, path)
			}
		}
	}
}

func TestReferencesOfTheDocument(t *testing.T) {
	d, err := readDocument()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(openAPIDocument)) {
		for rest := line; ; {
			_, after, found := strings.Cut(rest, "'#/components/")
			if !found {
				break
			}
			target, tail, _ := strings.Cut(after, "'")
			kind, name, _ := strings.Cut(target, "/")
			known := kind == "schemas" && d.Components.Schemas[name] != nil || kind == "parameters" && d.Components.Parameters[name] != nil
			if _, ok := d.Components.Responses[name]; !known && (kind != "responses" || !ok) {
				t.Errorf("nothing at %s: %s", target, line)
			}
			rest = tail
		}
	}
	w := start(t, everything())
	if a := w.ok(200, "GET", "/v2/openapi.yaml", ""); string(a.body) != string(openAPIDocument) {
		t.Error("another document is served")
	}
}
