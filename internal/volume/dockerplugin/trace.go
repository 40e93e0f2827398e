package dockerplugin

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Exchange is one request and what came of it, for tracing. Values of secrets
// are replaced in Request and Answer.
type Exchange struct {
	Driver  string
	Address string // without credentials
	Method  string
	Request string
	Status  int    // 0 without an answer
	Answer  string // body as received, up to the limit
	Err     error  // nil with an answer
	Elapsed time.Duration
}

const redacted = "***"

// redactJSON takes the values of secrets out of a body: out of its strings, if
// it is JSON, since there are many ways to escape one.
func redactJSON(body []byte, secrets volume.Secrets) string {
	if len(secrets) == 0 {
		return string(body)
	}
	var value any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if !json.Valid(body) || decoder.Decode(&value) != nil {
		return redact(string(body), secrets)
	}
	clean, err := json.Marshal(redactValue(value, secrets))
	if err != nil {
		return redacted
	}
	return string(clean)
}

func redactValue(value any, secrets volume.Secrets) any {
	switch value := value.(type) {
	case string:
		return redact(value, secrets)
	case json.Number:
		if text := redact(value.String(), secrets); text != value.String() {
			return text
		}
	case []any:
		for i := range value {
			value[i] = redactValue(value[i], secrets)
		}
	case map[string]any:
		for k := range value {
			value[k] = redactValue(value[k], secrets)
		}
	}
	return value
}

// redact takes the values of secrets out of a text. Longer values go first, so
// that none is left half.
func redact(text string, secrets volume.Secrets) string {
	values := slices.DeleteFunc(slices.Collect(maps.Values(secrets)), func(v string) bool { return v == "" })
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	for _, value := range values {
		text = strings.ReplaceAll(text, value, redacted)
	}
	return text
}
