package api

import (
	"compress/gzip"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// accepts tells whether a client that sent these values of a header takes what
// is offered: an exact name, or a range of media types that holds it. Without any
// value it takes everything. What q=0 stands at is not taken.
func accepts(values []string, offered string) bool {
	if len(values) == 0 {
		return true
	}
	kind, _, _ := strings.Cut(offered, "/")
	taken := false
	for _, line := range values {
		for part := range strings.SplitSeq(line, ",") {
			name, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil {
				// mime knows no values that stand for everything.
				name, _, _ = strings.Cut(strings.TrimSpace(part), ";")
			}
			q, err := strconv.ParseFloat(params["q"], 64)
			refused := err == nil && q == 0
			switch name {
			case offered:
				return !refused // the closest match counts
			case kind + "/*", "*/*", "*":
				taken = taken || !refused
			}
		}
	}
	return taken
}

// acceptable refuses as Marathon does clients that ask for something else than
// JSON, such as for the lists in plain text of its old versions: they must not
// take JSON for one. Resources of other types look after themselves.
func acceptable(rt route, r *http.Request) error {
	switch {
	case !strings.HasPrefix(rt.pattern, "/v2/"), rt.pattern == "/v2/events", rt.pattern == "/v2/openapi.yaml":
		return nil
	case !accepts(r.Header.Values("Accept"), "application/json"):
		return &statusError{status: http.StatusNotAcceptable, message: "Not Acceptable: this resource is application/json"}
	}
	return nil
}

// minCompressed is the shortest answer in bytes that is worth compressing.
const minCompressed = 2048

var compressors = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one that exists
	return w
}}

// compressed compresses longer answers in JSON for clients that take gzip.
func compressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values := r.Header.Values("Accept-Encoding")
		if len(values) == 0 || r.Method == http.MethodHead || !accepts(values, "gzip") {
			next.ServeHTTP(w, r)
			return
		}
		c := &compressor{ResponseWriter: w}
		defer c.end()
		next.ServeHTTP(c, r)
	})
}

// compressor compresses an answer if its header says that this is worth it.
type compressor struct {
	http.ResponseWriter
	gzip    *gzip.Writer // nil: as it is
	started bool
}

func (c *compressor) WriteHeader(status int) {
	if !c.started {
		c.started = true
		h := c.Header()
		length, err := strconv.Atoi(h.Get("Content-Length"))
		if err == nil && length >= minCompressed && h.Get("Content-Type") == "application/json" {
			h.Set("Content-Encoding", "gzip")
			h.Add("Vary", "Accept-Encoding")
			h.Del("Content-Length")
			c.gzip = compressors.Get().(*gzip.Writer)
			c.gzip.Reset(c.ResponseWriter)
		}
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *compressor) Write(b []byte) (int, error) {
	if !c.started {
		c.WriteHeader(http.StatusOK)
	}
	if c.gzip != nil {
		return c.gzip.Write(b)
	}
	return c.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (c *compressor) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *compressor) end() {
	if c.gzip == nil {
		return
	}
	_ = c.gzip.Close() // the status is out: a client that is gone gets no other answer
	compressors.Put(c.gzip)
}
