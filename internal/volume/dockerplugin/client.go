package dockerplugin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// acceptType is what Docker asks for. The type of the answer is not checked:
// plugins send any.
const acceptType = "application/vnd.docker.plugins.v1.2+json"

// unixHost is the Host header on Unix sockets. The path would be refused by
// Go's own server, and some plugins are written with it.
const unixHost = "plugin"

// maxSocketPath is what unix(7) leaves for a path in sun_path.
const maxSocketPath = 107

// client sends single requests to one endpoint, each on a connection of its own:
// a reused one may turn out to be dead only after the request was written, and
// then nobody knows whether a Mount was done. It does what http.Transport does
// for such requests, without its goroutines: programs that live for one mount
// would spend more time on them than on the plugin.
type client struct {
	endpoint endpoint
	tls      *tls.Config // nil without TLS

	mu        sync.Mutex // guards what follows
	activated bool
	pid       int // who listened the last time, 0 if unknown
}

func newClient(e endpoint) (*client, error) {
	c := &client{endpoint: e}
	if e.https {
		config, err := tlsConfig(e.tls)
		if err != nil {
			return nil, err
		}
		if config.ServerName, _, err = net.SplitHostPort(e.target); err != nil {
			return nil, err
		}
		c.tls = config
	}
	return c, nil
}

// dial connects, TLS handshake included.
func (c *client) dial(ctx context.Context) (net.Conn, error) {
	if c.endpoint.network == "unix" && len(c.endpoint.target) > maxSocketPath {
		return nil, fmt.Errorf("the socket's path has %d bytes and the kernel allows %d: move it, or name it in a shorter directory by a symbolic link", len(c.endpoint.target), maxSocketPath)
	}
	conn, err := new(net.Dialer).DialContext(ctx, c.endpoint.network, c.endpoint.target)
	if err != nil || c.tls == nil {
		return conn, err
	}
	secured := tls.Client(conn, c.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

func tlsConfig(files tlsFiles) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: files.InsecureSkipVerify}
	if files.CAFile != "" {
		pem, err := inputfile.Read(files.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CAFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CAFile %s holds no certificate", files.CAFile)
		}
	}
	if files.CertFile != "" || files.KeyFile != "" {
		pair, err := inputfile.KeyPair(files.CertFile, files.KeyFile)
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
	request, err := c.request(ctx, method, body)
	if err != nil {
		return reply{}, false, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return reply{}, false, err
	}
	defer func() { _ = conn.Close() }()
	r.pid = peerPID(conn)
	c.mu.Lock()
	c.pid = r.pid
	c.mu.Unlock()
	if method != methodActivate {
		volume.Reached(ctx, r.pid)
	}
	// What waits for the other side ends with ctx.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	r.status, r.body, err = converse(conn, request, limit)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return r, true, err
}

// The bounds of an answer's header: what Docker's plugins send takes some hundred
// bytes. The number of interim answers is that of http.Transport.
const (
	maxHeader  = 64 << 10
	maxInterim = 5
)

// converse writes the request and reads the answer. A plugin may answer, and hang
// up, before it has read all of the request.
func converse(conn net.Conn, request *http.Request, limit int64) (status int, body []byte, err error) {
	writeErr := request.Write(conn)
	header := &io.LimitedReader{R: conn, N: maxHeader}
	reader := bufio.NewReader(header)
	var response *http.Response
	for range maxInterim {
		response, err = http.ReadResponse(reader, request)
		if err != nil || response.StatusCode >= http.StatusOK || response.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	switch {
	case err != nil && writeErr != nil:
		return 0, nil, writeErr
	case err != nil && header.N <= 0:
		return 0, nil, fmt.Errorf("the answer's header has more than %d bytes", maxHeader)
	case err != nil:
		return 0, nil, fmt.Errorf("no answer: %w", err)
	}
	// The body is not closed, which would read all of it; the connection is.
	header.N = math.MaxInt64
	body, err = io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return response.StatusCode, body, fmt.Errorf("answer cut off: %w", err)
	}
	if int64(len(body)) > limit {
		return response.StatusCode, body[:limit], fmt.Errorf("%w: more than %d bytes", errTooLarge, limit)
	}
	return response.StatusCode, body, nil
}

func (c *client) request(ctx context.Context, method string, body []byte) (*http.Request, error) {
	host := unixHost
	if c.endpoint.network == "tcp" {
		host = c.endpoint.target
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Close = true
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
