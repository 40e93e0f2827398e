package api

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"go.uber.org/zap"
)

// Backup writes the framework's state as it is at one moment, while it is in use.
type Backup func(ctx context.Context, w io.Writer) error

// backup answers with the state in the form that dvdi-framework restore reads,
// whose end tells whether it is whole. It is not part of Marathon's API.
func (s *server) backup(w http.ResponseWriter, r *http.Request, _ params) error {
	if s.cfg.Backup == nil {
		return &statusError{status: http.StatusNotFound, message: "This framework makes no backups of its state."}
	}
	var out bytes.Buffer
	if err := s.cfg.Backup(r.Context(), &out); err != nil {
		return err
	}
	s.log.Info("backup of the state handed out", zap.String("client", r.RemoteAddr), zap.Int("bytes", out.Len()))
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	_, _ = out.WriteTo(w) // the status is out, and the client sees what is missing
	return nil
}
