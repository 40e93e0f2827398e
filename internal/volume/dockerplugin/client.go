package dockerplugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// acceptType is what Docker asks for. The type of the answer is not checked:
// plugins send any.
const acceptType = "application/vnd.docker.plugins.v1.2+json"

// unixHost is the Host header on Unix sockets. The path would be refused by
// Go's own server, and some plugins are written with it.
const unixHost = "plugin"

// maxSocketPath is what unix(7) leaves for a path in sun_path.
const maxSocketPath = 107

// client sends single requests to one endpoint.
type client struct {
	endpoint  endpoint
	transport *http.Transport

	mu        sync.Mutex // guards what follows
	activated bool
	pid       int // who listened the last time, 0 if unknown
}

func newClient(e endpoint) (*client, error) {
	c := &client{endpoint: e}
	c.transport = &http.Transport{
		// A connection of its own for each request: a reused one may turn out
		// to be dead only after the request was written, and then nobody knows
		// whether a Mount was done.
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if e.network == "unix" && len(e.target) > maxSocketPath {
				return nil, fmt.Errorf("the socket's path has %d bytes and the kernel allows %d: move it, or name it in a shorter directory by a symbolic link", len(e.target), maxSocketPath)
			}
			return new(net.Dialer).DialContext(ctx, e.network, e.target)
		},
	}
	if e.https {
		config, err := tlsConfig(e.tls)
		if err != nil {
			return nil, err
		}
		c.transport.TLSClientConfig = config
	}
	return c, nil
}

func tlsConfig(files tlsFiles) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: files.InsecureSkipVerify}
	if files.CAFile != "" {
		pem, err := os.ReadFile(files.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CAFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CAFile %s holds no certificate", files.CAFile)
		}
	}
	if files.CertFile != "" || files.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("CertFile and KeyFile: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// reply is a complete answer.
type reply struct {
	status int
	body   []byte
	// pid is the process that listens on the other side, 0 if unknown.
	pid int
}

// errTooLarge says that the answer was cut off.
var errTooLarge = errors.New("the answer is too large")

// send makes one request. sent says whether any byte may have reached the
// plugin; it is true whenever err is nil.
func (c *client) send(ctx context.Context, method string, body []byte, limit int64) (r reply, sent bool, err error) {
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		sent = true
		r.pid = peerPID(info.Conn)
		c.mu.Lock()
		c.pid = r.pid
		c.mu.Unlock()
		if method != methodActivate {
			volume.Reached(ctx, r.pid)
		}
	}}
	request, err := c.request(httptrace.WithClientTrace(ctx, trace), method, body)
	if err != nil {
		return reply{}, false, err
	}
	// RoundTrip and not a Client: redirects must not be followed, they would
	// send a Mount twice.
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return reply{}, sent, err
	}
	defer func() { _ = response.Body.Close() }()
	r.status = response.StatusCode
	r.body, err = io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return r, true, fmt.Errorf("answer cut off: %w", err)
	}
	if int64(len(r.body)) > limit {
		r.body = r.body[:limit]
		return r, true, fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return r, true, nil
}

func (c *client) request(ctx context.Context, method string, body []byte) (*http.Request, error) {
	scheme, host := "http", unixHost
	if c.endpoint.https {
		scheme = "https"
	}
	if c.endpoint.network == "tcp" {
		host = c.endpoint.target
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+host+"/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	// Without it the transport cannot send a request a second time on its own.
	request.GetBody = nil
	request.Header.Set("Accept", acceptType)
	return request, nil
}

// peerPID asks the kernel who listens on a Unix socket.
func peerPID(conn net.Conn) int {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	// An error leaves the pid unknown, which is an answer.
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
