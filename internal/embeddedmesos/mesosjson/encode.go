package mesosjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/gogo/protobuf/proto"
)

// Marshal returns the JSON of a message: fields in declaration order, enums by
// name, bytes in base64, 64-bit integers as numbers, unset fields left out
// unless they have a default.
func Marshal(m proto.Message) ([]byte, error) {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("encode %T as JSON: not a generated message", m)
	}
	var out bytes.Buffer
	if err := encodeMessage(&out, v.Elem()); err != nil {
		return nil, fmt.Errorf("encode %T as JSON: %w", m, err)
	}
	return out.Bytes(), nil
}

func encodeMessage(out *bytes.Buffer, v reflect.Value) error {
	m := describe(v.Type())
	out.WriteByte('{')
	first := true
	separate := func() {
		if !first {
			out.WriteByte(',')
		}
		first = false
	}
	for _, f := range m.fields {
		value := v.Field(f.index)
		if !present(f, value) && f.preset != "" {
			var err error
			if value, err = presetValue(f, value.Type()); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		if !present(f, value) {
			continue
		}
		separate()
		out.WriteString(strconv.Quote(f.name))
		out.WriteByte(':')
		if err := encodeField(out, f, value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if m.later != "" {
		separate()
		out.WriteString(m.later)
	}
	out.WriteByte('}')
	return nil
}

// presetValue is a field's default, which the tag has as text.
func presetValue(f field, t reflect.Type) (reflect.Value, error) {
	if t.Kind() != reflect.Pointer {
		// gogo's non-nullable fields have zero as default.
		return reflect.Zero(t), nil
	}
	v := reflect.New(t.Elem())
	text := f.preset
	if v.Elem().Kind() == reflect.Bool {
		text = strconv.FormatBool(text == "1")
	}
	if err := decodePreset(text, v.Elem()); err != nil {
		return v, fmt.Errorf("default %q: %w", f.preset, err)
	}
	return v, nil
}

func decodePreset(text string, v reflect.Value) error {
	if v.Kind() == reflect.String {
		v.SetString(text)
		return nil
	}
	return json.Unmarshal([]byte(text), v.Addr().Interface())
}

// present tells whether the field is set. gogo's non-nullable optional fields
// do not remember it: their zero value counts as unset.
func present(f field, v reflect.Value) bool {
	switch {
	case f.repeated:
		return v.Len() > 0 || f.always
	case v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice:
		return !v.IsNil()
	default:
		return f.required || !v.IsZero()
	}
}

func encodeField(out *bytes.Buffer, f field, v reflect.Value) error {
	switch {
	case v.Kind() == reflect.Map:
		return encodeMap(out, f, v)
	case f.repeated:
		out.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := encodeValue(out, f, v.Index(i)); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	default:
		return encodeValue(out, f, v)
	}
}

func encodeMap(out *bytes.Buffer, f field, v reflect.Value) error {
	keys := v.MapKeys()
	sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
	out.WriteByte('{')
	for i, key := range keys {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := encodeString(out, key.String()); err != nil {
			return err
		}
		out.WriteByte(':')
		element := reflect.New(v.Type().Elem()).Elem()
		element.Set(v.MapIndex(key))
		if err := encodeValue(out, f, element); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func encodeValue(out *bytes.Buffer, f field, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		return encodeMessage(out, v)
	case reflect.String:
		return encodeString(out, v.String())
	case reflect.Bool:
		out.WriteString(strconv.FormatBool(v.Bool()))
	case reflect.Int32, reflect.Int64:
		if f.enum != "" {
			return encodeString(out, enumName(f.enum, int32(v.Int())))
		}
		out.WriteString(strconv.FormatInt(v.Int(), 10))
	case reflect.Uint32, reflect.Uint64:
		out.WriteString(strconv.FormatUint(v.Uint(), 10))
	case reflect.Float32, reflect.Float64:
		return encodeFloat(out, v.Float())
	case reflect.Slice:
		return encodeString(out, base64.StdEncoding.EncodeToString(v.Bytes()))
	default:
		return fmt.Errorf("no JSON for %s", v.Type())
	}
	return nil
}

func encodeString(out *bytes.Buffer, s string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	out.Write(b)
	return nil
}

// encodeFloat prints whole numbers with ".0", as stout does, and refuses what
// JSON cannot express.
func encodeFloat(out *bytes.Buffer, f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%v is not a JSON number", f)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	out.WriteString(s)
	if !strings.Contains(s, ".") {
		out.WriteString(".0")
	}
	return nil
}

func enumName(enum string, value int32) string {
	if name, ok := laterEnumNames[enum][value]; ok {
		return name
	}
	for name, v := range proto.EnumValueMap(enum) {
		if v == value {
			return name
		}
	}
	return strconv.Itoa(int(value))
}
