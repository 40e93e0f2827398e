package embeddedmesos_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// line is one line of a recorded session (README of the recordings).
type line struct {
	number int

	T       float64           `json:"t"`
	Dir     string            `json:"dir"`
	Note    string            `json:"note"`
	Error   *string           `json:"error"`
	Call    map[string]any    `json:"call"`
	Raw     *string           `json:"raw"`
	Sent    map[string]string `json:"headers_sent"`
	Status  int               `json:"status"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
	Event   map[string]any    `json:"event"`
}

func readCapture(t *testing.T, name string) []line {
	t.Helper()
	var lines []line
	for _, text := range readLines(t, name) {
		l := line{number: len(lines) + 1}
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lines = append(lines, l)
	}
	return lines
}

func readLines(t *testing.T, name string) [][]byte {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	var lines [][]byte
	for scanner.Scan() {
		lines = append(lines, append([]byte(nil), scanner.Bytes()...))
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

// at is a value inside a decoded JSON tree, nil if it is not there.
func at(tree any, path ...string) any {
	for _, key := range path {
		object, ok := tree.(map[string]any)
		if !ok {
			return nil
		}
		tree = object[key]
	}
	return tree
}

func textAt(tree any, path ...string) string {
	text, _ := at(tree, path...).(string)
	return text
}

// units splits an event into what is compared on its own: every offer of an
// OFFERS event, other events as they are.
func units(event map[string]any) []map[string]any {
	if event["type"] != "OFFERS" {
		return []map[string]any{event}
	}
	list, _ := at(event, "offers", "offers").([]any)
	var out []map[string]any
	for _, offer := range list {
		out = append(out, map[string]any{"type": "OFFERS", "offers": map[string]any{"offers": []any{offer}}})
	}
	return out
}

func offerOf(unit map[string]any) any {
	list, _ := at(unit, "offers", "offers").([]any)
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// repetition is the id under which an unacknowledged update is repeated.
func repetition(unit map[string]any) string {
	if id := textAt(unit, "update", "status", "uuid"); id != "" {
		return id
	}
	return textAt(unit, "update_operation_status", "status", "uuid", "value")
}

// mapStrings calls f for every string in a tree and puts its result there.
func mapStrings(tree any, f func(string) string) any {
	switch tree := tree.(type) {
	case map[string]any:
		out := make(map[string]any, len(tree))
		for key, value := range tree {
			out[key] = mapStrings(value, f)
		}
		return out
	case []any:
		out := make([]any, len(tree))
		for i, value := range tree {
			out[i] = mapStrings(value, f)
		}
		return out
	case string:
		return f(tree)
	default:
		return tree
	}
}
