package dockerplugin

import (
	"bytes"
	"encoding/json"
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

// redactJSON takes the values of secrets out of a body: out of its strings, if
// it is JSON, since there are many ways to escape one.
func redactJSON(body []byte, secrets volume.Secrets) string {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if !json.Valid(body) || decoder.Decode(&value) != nil {
		return secrets.Redact(string(body))
	}
	clean, err := json.Marshal(secrets.RedactJSON(value))
	if err != nil { // which what was decoded cannot give
		return secrets.Redact(string(body))
	}
	return string(clean)
}
