package app

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The words of Marathon's shape errors (contract 0.3).
const (
	errString    = "error.expected.jsstring"
	errNumber    = "error.expected.jsnumber"
	errBool      = "error.expected.jsboolean"
	errObject    = "error.expected.jsobject"
	errArray     = "error.expected.jsarray"
	errInt       = "error.expected.int"
	errMin       = "error.min"
	errMax       = "error.max"
	errMinLength = "error.minLength"
	errMaxLength = "error.maxLength"
	errPattern   = "error.pattern"
	errEnum      = "error.unknown.enum.literal"
)

// shape reads a tree of JSON values into typed ones and collects what does not
// fit. Rules that Marathon checks only later, but that need the JSON to be
// told apart, go to semantic.
type shape struct {
	problems
	semantic problems
}

// object is a JSON object at a path. Its readers return zero values for absent
// members, and also, after noting the problem, for members of a wrong type.
type object struct {
	s      *shape
	path   string
	fields map[string]any
}

func (s *shape) root(v any) (object, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		s.add("/", errObject)
	}
	return object{s: s, fields: m}, ok
}

func (o object) at(key string) string { return o.path + "/" + key }

func (o object) has(key string) bool { _, ok := o.fields[key]; return ok }

// require notes the absence of key in Marathon's words.
func (o object) require(key string) bool {
	if o.has(key) {
		return true
	}
	o.s.addf(o.at(key), "'%s' is undefined on object: %s", key, o.excerpt())
	return false
}

// excerpt is the object's JSON, cut to a length that suits an error message.
func (o object) excerpt() string {
	const limit = 400
	b, err := json.Marshal(o.fields)
	if err != nil { // cannot happen for what decodeTree made
		return "{}"
	}
	if len(b) > limit {
		for i := limit; ; i-- {
			if utf8.RuneStart(b[i]) {
				return string(b[:i]) + "…"
			}
		}
	}
	return string(b)
}

func (o object) str(key string) string {
	v, ok := o.fields[key]
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		o.s.add(o.at(key), errString)
	}
	return s
}

// strLen is str with bounds on the length in characters; max 0 is no bound.
func (o object) strLen(key string, min, max int) string {
	s := o.str(key)
	if _, ok := o.fields[key].(string); !ok {
		return s
	}
	switch n := utf8.RuneCountInString(s); {
	case n < min:
		o.s.add(o.at(key), errMinLength)
	case max > 0 && n > max:
		o.s.add(o.at(key), errMaxLength)
	}
	return s
}

func (o object) pattern(key string, re *regexp.Regexp) string {
	s := o.str(key)
	if _, ok := o.fields[key].(string); ok && !re.MatchString(s) {
		o.s.add(o.at(key), errPattern)
	}
	return s
}

// enum reads one of values, whatever its case, and returns it as listed; absent
// gives def.
func (o object) enum(key, def string, values ...string) string {
	if !o.has(key) {
		return def
	}
	s, ok := o.fields[key].(string)
	if !ok {
		o.s.add(o.at(key), errString)
		return def
	}
	for _, v := range values {
		if strings.EqualFold(s, v) {
			return v
		}
	}
	o.s.add(o.at(key), errEnum)
	return def
}

func (o object) boolean(key string, def bool) bool {
	v, ok := o.fields[key]
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		o.s.add(o.at(key), errBool)
	}
	return b
}

func (o object) optBool(key string) *bool {
	if !o.has(key) {
		return nil
	}
	b := o.boolean(key, false)
	return &b
}

// num reads a number within [min, max]; absent gives def.
func (o object) num(key string, def, min, max float64) float64 {
	v, ok := o.fields[key]
	if !ok {
		return def
	}
	n, ok := v.(json.Number)
	if !ok {
		o.s.add(o.at(key), errNumber)
		return def
	}
	f, err := n.Float64()
	switch {
	case err != nil:
		o.s.add(o.at(key), errNumber)
		return def
	case f < min:
		o.s.add(o.at(key), errMin)
	case f > max:
		o.s.add(o.at(key), errMax)
	}
	return f
}

// integer reads a whole number within [min, max]; absent gives def.
func (o object) integer(key string, def, min, max int64) int64 {
	v, ok := o.fields[key]
	if !ok {
		return def
	}
	return o.s.integerAt(o.at(key), v, min, max)
}

func (s *shape) integerAt(path string, v any, min, max int64) int64 {
	num, ok := v.(json.Number)
	if !ok {
		s.add(path, errNumber)
		return 0
	}
	n, ok := wholeNumber(num)
	switch {
	case !ok:
		s.add(path, errInt)
	case n < min:
		s.add(path, errMin)
	case n > max:
		s.add(path, errMax)
	}
	return n
}

// wholeNumber accepts 1, 1.0 and 1e3, as Marathon's parser does.
func wholeNumber(num json.Number) (int64, bool) {
	if n, err := strconv.ParseInt(num.String(), 10, 64); err == nil {
		return n, true
	}
	f, err := num.Float64()
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func (o object) int32(key string, def, min int) int {
	return int(o.integer(key, int64(def), int64(min), math.MaxInt32))
}

func (o object) optInt(key string, min, max int64) *int {
	if !o.has(key) {
		return nil
	}
	n := int(o.integer(key, 0, min, max))
	return &n
}

func (o object) optInt64(key string, min, max int64) *int64 {
	if !o.has(key) {
		return nil
	}
	n := o.integer(key, 0, min, max)
	return &n
}

func (o object) object(key string) (object, bool) {
	v, ok := o.fields[key]
	if !ok {
		return object{}, false
	}
	return o.s.objectAt(o.at(key), v)
}

func (s *shape) objectAt(path string, v any) (object, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		s.add(path, errObject)
	}
	return object{s: s, path: path, fields: m}, ok
}

// list reads an array; absent gives nil, an empty one a slice that is not nil.
func (o object) list(key string) []any {
	v, ok := o.fields[key]
	if !ok {
		return nil
	}
	l, ok := v.([]any)
	if !ok {
		o.s.add(o.at(key), errArray)
	}
	return l
}

func indexed(path string, i int) string { return path + "(" + strconv.Itoa(i) + ")" }

// strings reads an array of strings.
func (o object) strings(key string) []string {
	l := o.list(key)
	if l == nil {
		return nil
	}
	return o.s.stringsAt(o.at(key), l)
}

func (s *shape) stringsAt(path string, l []any) []string {
	out := make([]string, 0, len(l))
	for i, v := range l {
		str, ok := v.(string)
		if !ok {
			s.add(indexed(path, i), errString)
		}
		out = append(out, str)
	}
	return out
}

// matrix reads an array of arrays of strings.
func (o object) matrix(key string) [][]string {
	var out [][]string
	for i, v := range o.list(key) {
		path := indexed(o.at(key), i)
		row, ok := v.([]any)
		if !ok {
			o.s.add(path, errArray)
			continue
		}
		out = append(out, o.s.stringsAt(path, row))
	}
	return out
}

// stringMap reads an object of strings; absent gives an empty map.
func (o object) stringMap(key string) map[string]string {
	out := map[string]string{}
	m, ok := o.object(key)
	if !ok {
		return out
	}
	for _, k := range m.keys() {
		out[k] = m.str(k)
	}
	return out
}

// keys returns the members' names in a stable order, so that the same mistake
// always gives the same answer.
func (o object) keys() []string {
	keys := make([]string, 0, len(o.fields))
	for k := range o.fields {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// objects reads an array of objects with read; absent gives nil, an empty one a
// slice that is not nil.
func objects[T any](o object, key string, read func(object) T) []T {
	l := o.list(key)
	if l == nil {
		return nil
	}
	out := make([]T, 0, len(l))
	for i, v := range l {
		if m, ok := o.s.objectAt(indexed(o.at(key), i), v); ok {
			out = append(out, read(m))
		}
	}
	return out
}

// double renders a number as Marathon's messages do: 1.0, 0.25.
func double(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return fmt.Sprint(f)
}
