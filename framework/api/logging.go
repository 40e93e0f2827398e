package api

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/loglevel"
)

// loggerLevels are those that Marathon's API knows (LoggerLevel in
// docs/docs/rest-api/public/api/v2/types/logging.raml). The log here has nothing
// below debug.
var loggerLevels = map[string]zapcore.Level{
	"trace": zapcore.DebugLevel, "debug": zapcore.DebugLevel, "info": zapcore.InfoLevel,
	"warn": zapcore.WarnLevel, "error": zapcore.ErrorLevel,
}

// maxLogger is the length in bytes of a logger's name: it is kept, and told with
// the levels, for as long as its level lasts.
const maxLogger = 256

// loggerChange is the body of POST /logging, and its answer.
type loggerChange struct {
	Level           string `json:"level"`
	Logger          string `json:"logger"`
	DurationSeconds *int32 `json:"durationSeconds,omitempty"`
}

// logging tells the levels of loggers, in the form that Marathon has for them.
func (s *server) logging(w http.ResponseWriter, _ *http.Request, _ params) error {
	levels := map[string]string{}
	for logger, level := range s.levels.All() {
		levels[logger] = level.CapitalString()
	}
	return writeJSON(w, http.StatusOK, levels)
}

// changeLogging gives a logger a level, for a time or for as long as this process
// runs.
func (s *server) changeLogging(w http.ResponseWriter, r *http.Request, _ params) error {
	change, err := readLoggerChange(r)
	if err != nil {
		return err
	}
	var lasts time.Duration
	if change.DurationSeconds != nil {
		lasts = time.Duration(*change.DurationSeconds) * time.Second
	}
	switch err := s.levels.Set(change.Logger, loggerLevels[change.Level], lasts); {
	case errors.Is(err, loglevel.ErrTooMany):
		return &app.ValidationError{Message: err.Error()}
	case err != nil:
		return err
	}
	s.audit(r, core.DeploymentRef{})
	return writeJSON(w, http.StatusOK, change)
}

func readLoggerChange(r *http.Request) (loggerChange, error) {
	var change loggerChange
	data, err := body(r)
	if err != nil {
		return change, err
	}
	if len(data) == 0 {
		return change, &app.SyntaxError{Message: "Please specify data in JSON format", Details: "No content to map due to end-of-input"}
	}
	var fields struct {
		Level, Logger   any
		DurationSeconds any
	}
	if err := json.Unmarshal(data, &fields); err != nil {
		return change, &app.SyntaxError{Message: "Invalid JSON", Details: err.Error()}
	}
	var wrong []app.Detail
	refuse := func(path, why string) { wrong = append(wrong, app.Detail{Path: path, Errors: []string{why}}) }
	text := func(path string, v any) string {
		s, ok := v.(string)
		switch {
		case v == nil:
			refuse(path, "error.path.missing")
		case !ok:
			refuse(path, "error.expected.jsstring")
		}
		return strings.TrimSpace(s)
	}
	change.Level, change.Logger = strings.ToLower(text("/level", fields.Level)), text("/logger", fields.Logger)
	if _, known := loggerLevels[change.Level]; change.Level != "" && !known {
		refuse("/level", "error.unknown.enum.literal")
	}
	if len(change.Logger) > maxLogger {
		refuse("/logger", "error.maxLength")
	}
	switch seconds, ok := fields.DurationSeconds.(float64); {
	case fields.DurationSeconds == nil:
	case !ok:
		refuse("/durationSeconds", "error.expected.jsnumber")
	case seconds != math.Trunc(seconds) || seconds > math.MaxInt32:
		refuse("/durationSeconds", "error.expected.int")
	case seconds < 1:
		refuse("/durationSeconds", "error.min")
	default:
		whole := int32(seconds)
		change.DurationSeconds = &whole
	}
	if len(wrong) > 0 {
		return change, &app.ValidationError{Message: "Invalid JSON", Details: wrong}
	}
	for path, v := range map[string]string{"/level": change.Level, "/logger": change.Logger} {
		if v == "" {
			return change, &app.ValidationError{Message: "Object is not valid", Details: []app.Detail{{Path: path, Errors: []string{"must not be empty"}}}}
		}
	}
	return change, nil
}
