package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a request body; a definition needs about ten.
const maxDepth = 100

// decodeTree reads exactly one JSON value into maps, slices, strings,
// json.Number and bool. Members whose value is null are left out, since null
// means absent. Errors are *SyntaxError. Unlike encoding/json it refuses
// duplicate keys, invalid UTF-8 and deep nesting: all three are mistakes or
// attacks, and guessing which of two values was meant would hide them.
func decodeTree(data []byte) (any, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, &SyntaxError{Message: "Please specify data in JSON format", Details: "No content to map due to end-of-input"}
	}
	if !utf8.Valid(data) {
		return nil, syntaxError("the body is not valid UTF-8 at byte %d", invalidUTF8At(data))
	}
	t := treeReader{dec: json.NewDecoder(bytes.NewReader(data))}
	t.dec.UseNumber()
	v, err := t.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := t.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, syntaxError("unexpected content after the end of the value at byte %d", t.dec.InputOffset())
	}
	return v, nil
}

func syntaxError(format string, args ...any) error {
	return &SyntaxError{Message: msgShape, Details: fmt.Sprintf(format, args...)}
}

func invalidUTF8At(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

type treeReader struct{ dec *json.Decoder }

func (t treeReader) token() (json.Token, error) {
	tok, err := t.dec.Token()
	if err == nil {
		return tok, nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, syntaxError("unexpected end of input at byte %d", t.dec.InputOffset())
	}
	return nil, syntaxError("%v at byte %d", err, t.dec.InputOffset())
}

func (t treeReader) value(depth int) (any, error) {
	tok, err := t.token()
	if err != nil {
		return nil, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tok, nil
	}
	if depth >= maxDepth {
		return nil, syntaxError("nested deeper than %d levels at byte %d", maxDepth, t.dec.InputOffset())
	}
	if delim == '{' {
		return t.object(depth + 1)
	}
	return t.array(depth + 1)
}

func (t treeReader) object(depth int) (any, error) {
	out := map[string]any{}
	seen := map[string]bool{}
	for t.dec.More() {
		tok, err := t.token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, syntaxError("expected a property name at byte %d", t.dec.InputOffset())
		}
		if seen[key] {
			return nil, syntaxError("duplicate property %q at byte %d", key, t.dec.InputOffset())
		}
		seen[key] = true
		v, err := t.value(depth)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[key] = v
		}
	}
	_, err := t.token()
	return out, err
}

func (t treeReader) array(depth int) (any, error) {
	out := []any{}
	for t.dec.More() {
		v, err := t.value(depth)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := t.token()
	return out, err
}
