package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
)

// limitedBody is a request's body that has a size and a time to arrive in.
type limitedBody struct {
	io.ReadCloser
	connection *http.ResponseController
}

// limitBody gives a request's body the size and the time that it may take.
func (s *server) limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	b := limitedBody{http.MaxBytesReader(w, r.Body, s.cfg.MaxBody), http.NewResponseController(w)}
	b.deadline(time.Now().Add(s.cfg.BodyTimeout))
	r.Body = b
}

// deadline sets when the body must have arrived. Not every connection knows
// deadlines (a recorder in a test does not); one that does must not be kept by a
// client that never sends.
func (b limitedBody) deadline(t time.Time) { _ = b.connection.SetReadDeadline(t) }

// Read implements io.Reader. At the end it lifts the deadline: the server goes on
// reading, to notice a client that goes away, and would take one that waits for its
// answer for such a client.
func (b limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.deadline(time.Time{})
	}
	return n, err
}

// body reads the whole request body. Its errors are the client's.
func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return b, nil
	case errors.As(err, &tooLarge):
		return nil, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &statusError{status: http.StatusRequestTimeout, message: "The request body did not arrive in time; send it again, or less at a time."}
	}
	return nil, badRequest("The request body could not be read: %v", err)
}

// readable refuses bodies that are not what they should be by their headers.
func readable(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	// No coding is understood, in Marathon neither. The answer says so in the header
	// that stands for it (RFC 9110, section 12.5.3).
	coding := strings.Join(r.Header.Values("Content-Encoding"), ", ")
	if coding != "" && !strings.EqualFold(coding, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return &statusError{status: http.StatusUnsupportedMediaType, message: fmt.Sprintf("The content encoding %q is not supported; send the body as it is.", coding)}
	}
	// A browser lets any page send a body of some types, or of none, to any server
	// with the user's credentials, but asks the server before it sends JSON. Other
	// clients may call JSON what they like, as curl does.
	if r.Header.Get("Origin") != "" && !isJSON(r.Header.Get("Content-Type")) {
		return &statusError{status: http.StatusUnsupportedMediaType, message: "Unsupported Media Type: what a browser sends must be of the type application/json."}
	}
	return nil
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/json"
}
