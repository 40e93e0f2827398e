package mesosjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/gogo/protobuf/proto"
)

// SyntaxError is a body that is not JSON at all. Its text is picojson's, which
// Mesos hands to the client.
type SyntaxError struct {
	Line int
	Near string // the rest of the line, from the first byte that does not fit
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("syntax error at line %d near: %s", e.Line, e.Near)
}

// Unmarshal fills a message from JSON as stout's protobuf::parse does: unknown
// fields are ignored, an unknown value of an optional enum leaves the field
// unset, numbers may be quoted. It returns a *SyntaxError when body is not one
// JSON object, and another error when a value does not fit its field.
func Unmarshal(body []byte, m proto.Message) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return syntaxError(body, err)
	}
	object, ok := tree.(map[string]any)
	if !ok {
		return errors.New("expecting a JSON object")
	}
	end := decoder.InputOffset()
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return near(body, end)
	}
	return decodeMessage(object, reflect.ValueOf(m).Elem())
}

func syntaxError(body []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && syntax.Offset > 0 && syntax.Offset <= int64(len(body)) {
		return near(body, syntax.Offset-1)
	}
	return near(body, int64(len(body)))
}

func near(body []byte, offset int64) *SyntaxError {
	rest, _, _ := strings.Cut(string(body[offset:]), "\n")
	return &SyntaxError{Line: 1 + bytes.Count(body[:offset], []byte("\n")), Near: rest}
}

func decodeMessage(object map[string]any, v reflect.Value) error {
	m := describe(v.Type())
	for name, value := range object {
		f, known := m.byName[name]
		if !known || value == nil {
			continue
		}
		if err := decodeField(value, f, v.Field(f.index)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, f := range m.fields {
		if _, given := object[f.name]; f.required && !given {
			return fmt.Errorf("missing required field '%s'", f.name)
		}
	}
	return nil
}

func decodeField(value any, f field, v reflect.Value) error {
	switch {
	case v.Kind() == reflect.Map:
		return decodeMap(value, f, v)
	case f.repeated:
		return decodeList(value, f, v)
	default:
		return decodeValue(value, f, v)
	}
}

func decodeList(value any, f field, v reflect.Value) error {
	list, ok := value.([]any)
	if !ok {
		return mismatch("an array", value)
	}
	for _, item := range list {
		element := reflect.New(v.Type().Elem()).Elem()
		if err := decodeValue(item, f, element); err != nil {
			return err
		}
		v.Set(reflect.Append(v, element))
	}
	return nil
}

func decodeMap(value any, f field, v reflect.Value) error {
	object, ok := value.(map[string]any)
	if !ok {
		return mismatch("an object", value)
	}
	v.Set(reflect.MakeMap(v.Type()))
	for key, item := range object {
		element := reflect.New(v.Type().Elem()).Elem()
		if err := decodeValue(item, f, element); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(key), element)
	}
	return nil
}

func decodeValue(value any, f field, v reflect.Value) error {
	if f.enum != "" {
		return decodeEnum(value, f, v)
	}
	if v.Kind() == reflect.Pointer {
		target := reflect.New(v.Type().Elem())
		if err := decodeScalar(value, target.Elem()); err != nil {
			return err
		}
		v.Set(target)
		return nil
	}
	return decodeScalar(value, v)
}

func decodeEnum(value any, f field, v reflect.Value) error {
	name, ok := value.(string)
	if !ok {
		return mismatch("an enum name", value)
	}
	number, ok := proto.EnumValueMap(f.enum)[name]
	if !ok {
		for later, laterName := range laterEnumNames[f.enum] {
			if laterName == name {
				number, ok = later, true
			}
		}
	}
	if !ok && f.required {
		return fmt.Errorf("failed to find enum for '%s'", name)
	}
	if !ok {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	v.SetInt(int64(number))
	return nil
}

func decodeScalar(value any, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Struct:
		object, ok := value.(map[string]any)
		if !ok {
			return mismatch("an object", value)
		}
		return decodeMessage(object, v)
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			return mismatch("a string", value)
		}
		v.SetString(s)
	case reflect.Bool:
		b, ok := value.(bool)
		if !ok {
			return mismatch("a boolean", value)
		}
		v.SetBool(b)
	case reflect.Slice:
		s, ok := value.(string)
		if !ok {
			return mismatch("base64 text", value)
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return fmt.Errorf("failed to base64 decode bytes field: %w", err)
		}
		v.SetBytes(b)
	default:
		return decodeNumber(value, v)
	}
	return nil
}

func decodeNumber(value any, v reflect.Value) error {
	number, ok := value.(json.Number)
	if !ok {
		s, quoted := value.(string)
		if !quoted {
			return mismatch("a number", value)
		}
		number = json.Number(s)
	}
	switch v.Kind() {
	case reflect.Int32, reflect.Int64:
		i, err := number.Int64()
		if err != nil || v.OverflowInt(i) {
			return mismatch("an integer", value)
		}
		v.SetInt(i)
	case reflect.Uint32, reflect.Uint64:
		var u uint64
		if err := json.Unmarshal([]byte(number), &u); err != nil || v.OverflowUint(u) {
			return mismatch("an unsigned integer", value)
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		f, err := number.Float64()
		if err != nil {
			return mismatch("a number", value)
		}
		v.SetFloat(f)
	default:
		return fmt.Errorf("no JSON for %s", v.Type())
	}
	return nil
}

func mismatch(want string, got any) error {
	text, err := json.Marshal(got)
	if err != nil {
		return fmt.Errorf("expecting %s: %w", want, err)
	}
	return fmt.Errorf("expecting %s, not %s", want, text)
}
