package facts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access/accesstest"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

func (r *rig) refused(reason access.Reason) {
	r.t.Helper()
	await(r, func() (int, error) { return r.refusals.of(reason), nil }, func(n int) bool { return n > 0 })
}

func TestNeverOpen(t *testing.T) {
	if _, err := NewServer(ServerConfig{}); !errors.Is(err, access.ErrOpen) {
		t.Errorf("served to everybody: %v", err)
	}
	pair := accesstest.NewAuthority(t).Issue("bridge", time.Now().Add(time.Hour))
	if _, err := NewServer(ServerConfig{Credentials: access.Credentials{CertFile: pair.Cert, KeyFile: pair.Key}}); !errors.Is(err, access.ErrOpen) {
		t.Errorf("encrypted, but served to everybody: %v", err)
	}
}

func TestBadCredentialsAreToldAtStart(t *testing.T) {
	ca := accesstest.NewAuthority(t)
	pair := ca.Issue("bridge", time.Now().Add(time.Hour))
	open := tokenFile(t, theToken)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]access.Credentials{
		"token that is a pipe":         {TokenFile: pipe},
		"token that is missing":        {TokenFile: open + ".not"},
		"token that is short":          {TokenFile: tokenFile(t, "secret")},
		"token that everybody reads":   {TokenFile: open},
		"certificate without key":      {CertFile: pair.Cert, TokenFile: tokenFile(t, theToken)},
		"client CA without own":        {ClientCAFile: ca.File},
		"client CA that is none":       {CertFile: pair.Cert, KeyFile: pair.Key, ClientCAFile: pair.Key},
		"key that is another's":        {CertFile: pair.Cert, KeyFile: ca.Issue("other", time.Now().Add(time.Hour)).Key, ClientCAFile: ca.File},
		"certificate that is no file":  {CertFile: "/nonexistent", KeyFile: pair.Key, ClientCAFile: ca.File},
		"client CA that is not a file": {CertFile: pair.Cert, KeyFile: pair.Key, ClientCAFile: "/nonexistent"},
	} {
		if err := c.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTokens(t *testing.T) {
	r := serve(t, nil)
	for name, c := range map[string]struct {
		token  string
		reason access.Reason
	}{
		"wrong token":    {strings.Repeat("f", 64), access.WrongToken},
		"longer token":   {theToken + "0", access.WrongToken},
		"shorter token":  {theToken[1:], access.WrongToken},
		"its hash's hex": {"x", access.WrongToken},
	} {
		before := r.refusals.of(c.reason)
		a := client.NewAgentClient(r.dial(client.Credentials{TokenFile: tokenFile(t, c.token)}))
		if _, err := a.GetFacts(r.context(), &client.GetFactsRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
		if r.refusals.of(c.reason) != before+1 {
			t.Errorf("%s: not counted", name)
		}
	}
	a := client.NewAgentClient(r.dial(client.Credentials{TokenFile: tokenFile(t, "x")}))
	stream, err := a.WatchFacts(r.context(), &client.WatchFactsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("watch with a wrong token: %v", err)
	}
	if code := r.raw("", nil); code != codes.Unauthenticated {
		t.Errorf("no token: %v", code)
	}
	r.refused(access.NoToken)
	if code := r.raw("Basic "+theToken, nil); code != codes.Unauthenticated {
		t.Errorf("another scheme: %v", code)
	}
	// A new token takes effect without a restart.
	next := strings.Repeat("fedcba9876543210", 4)
	if err := os.WriteFile(r.tokens, []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := r.raw("Bearer "+theToken, nil); code != codes.Unauthenticated {
		t.Errorf("the old token: %v", code)
	}
	if code := r.raw("bearer "+next, nil); code != codes.OK && code != codes.Unavailable {
		t.Errorf("the new token: %v", code)
	}
}

// raw makes a call by hand: a gRPC frame around a body.
func (r *rig) raw(authorization string, body []byte) codes.Code {
	r.t.Helper()
	frame := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	return r.post(authorization, io.NopCloser(bytes.NewReader(append(frame, body...))))
}

// post sends a request body as it is.
func (r *rig) post(authorization string, body io.ReadCloser) codes.Code {
	r.t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(r.context(), http.MethodPost, "http://"+r.address+client.Agent_GetFacts_FullMethodName, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		r.t.Logf("rest of the answer: %v", err)
	}
	for _, h := range []http.Header{resp.Trailer, resp.Header} {
		if s := h.Get("Grpc-Status"); s != "" {
			var code codes.Code
			if err := code.UnmarshalJSON([]byte(s)); err != nil {
				r.t.Fatal(err)
			}
			return code
		}
	}
	r.t.Fatalf("no status in %v", resp)
	return 0
}

func TestCertificates(t *testing.T) {
	ca, stranger := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	soon := time.Now().Add(time.Hour)
	server := ca.Issue("bridge", soon)
	r := serve(t, func(s *ServerConfig, _ *BoardConfig) {
		s.Credentials = access.Credentials{CertFile: server.Cert, KeyFile: server.Key, ClientCAFile: ca.File}
	})
	call := func(pair accesstest.Pair, caFile string) error {
		a := client.NewAgentClient(r.dial(client.Credentials{CAFile: caFile, CertFile: pair.Cert, KeyFile: pair.Key}))
		_, err := a.Withdraw(r.context(), &client.WithdrawRequest{FrameworkId: "f", Volume: nameV, Epoch: 1})
		return err
	}
	if err := call(ca.Issue("framework", soon), ca.File); err != nil {
		t.Errorf("a good certificate: %v", err)
	}
	for name, c := range map[string]struct {
		pair accesstest.Pair
		ca   string
	}{
		"an expired certificate":   {ca.Issue("late", time.Now().Add(-time.Hour)), ca.File},
		"a stranger's certificate": {stranger.Issue("stranger", soon), ca.File},
	} {
		before := r.refusals.of(access.Certificate)
		if err := call(c.pair, c.ca); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		await(r, func() (int, error) { return r.refusals.of(access.Certificate), nil }, func(n int) bool { return n > before })
	}
	if err := call(ca.Issue("framework2", soon), stranger.File); status.Code(err) != codes.Unavailable {
		t.Errorf("a bridge of a stranger: %v", err)
	}
	before := r.refusals.of(access.Certificate)
	r.withoutCertificate(ca)
	await(r, func() (int, error) { return r.refusals.of(access.Certificate), nil }, func(n int) bool { return n > before })
}

// withoutCertificate shakes hands and shows none.
func (r *rig) withoutCertificate(ca *accesstest.Authority) {
	r.t.Helper()
	pem, err := os.ReadFile(ca.File)
	if err != nil {
		r.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", r.address, &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		r.t.Errorf("%d bytes from a server that should have hung up", n)
	}
}

// limited is a bridge for few connections and small requests, which have so long to
// shake hands and to arrive.
func limited(t *testing.T, handshake, arrival time.Duration) *rig {
	return serve(t, func(s *ServerConfig, _ *BoardConfig) {
		s.Limits = access.DefaultLimits()
		s.Limits.Message, s.Limits.Connections = 1000, 3
		s.Limits.Handshake, s.Limits.Arrival = handshake, arrival
	})
}

func TestOversizedRequests(t *testing.T) {
	r := limited(t, time.Minute, time.Minute)
	big := &client.VolumeName{Driver: "d", Name: strings.Repeat("x", 2000)}
	if _, err := r.client().Withdraw(r.context(), &client.WithdrawRequest{Volume: big}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an oversized request: %v", err)
	}
	r.refused(access.TooLarge)
}

func TestMalformedRequests(t *testing.T) {
	r := limited(t, time.Minute, time.Minute)
	if code := r.raw("Bearer "+theToken, []byte{0xff, 0xff, 0xff}); code != codes.Internal {
		t.Errorf("a message that is none: %v", code)
	}
	r.refused(access.Malformed)
	before := r.refusals.of(access.Malformed)
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, io.EOF) {
		t.Logf("hung up with %v", err)
	}
	await(r, func() (int, error) { return r.refusals.of(access.Malformed), nil }, func(n int) bool { return n > before })
}

func TestSlowHandshakes(t *testing.T) {
	r := limited(t, time.Second, time.Minute)
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("PRI *")); err != nil {
		t.Fatal(err)
	}
	r.refused(access.TooSlow)
}

// One that shakes hands in time may be slow all the same.
func TestSlowRequests(t *testing.T) {
	r := limited(t, time.Minute, time.Second)
	never, hold := io.Pipe()
	defer hold.Close()
	if code := r.post("Bearer "+theToken, never); code != codes.DeadlineExceeded {
		t.Errorf("a request that never arrives: %v", code)
	}
	r.refused(access.TooSlow)
}

func TestTooManyConnections(t *testing.T) {
	r := limited(t, time.Second, time.Second)
	for range 10 {
		conn, err := net.Dial("tcp", r.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	r.refused(access.TooMany)
	// They are cut off when they say nothing, and there is room again.
	r.facts(func(*client.Facts) bool { return true })
}
