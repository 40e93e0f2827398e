package mesos

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gogo/protobuf/proto"

	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

const (
	protobufType   = "application/x-protobuf"
	streamIDHeader = "Mesos-Stream-Id"

	schedulerPath = "/api/v1/scheduler"
	operatorPath  = "/api/v1"

	// maxRedirects bounds how often masters may name another leader in a row.
	maxRedirects = 5
	// maxErrorBody is how much of a refusal's explanation is kept.
	maxErrorBody = 4 << 10
)

// TLSFiles makes the TLS settings for masters whose certificates are signed by
// the authorities in caFile (empty: those of the system). certFile and keyFile
// hold the client certificate, both empty for none.
func TLSFiles(caFile, certFile, keyFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := inputfile.Read(caFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authorities for Mesos masters: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificate authorities for Mesos masters: no certificate in %s", caFile)
		}
	}
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("a client certificate for Mesos masters needs both its file and its key file")
	}
	if certFile != "" {
		pair, err := inputfile.KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate for Mesos masters: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// transport sends protobuf calls to masters over HTTP.
type transport struct {
	client *http.Client
	config Config

	mu      sync.Mutex // guards what follows
	calls   int        // that wait for their answer
	closing bool       // once there are none
}

func newTransport(config Config) *transport {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.Proxy = nil // masters are inside of the cluster
	if config.Dial != nil {
		base.DialContext = config.Dial
	}
	base.TLSClientConfig = config.TLS.Clone()
	base.DisableCompression = true // events must not wait for a compressor's block
	base.TLSHandshakeTimeout = min(config.CallTimeout, 10*time.Second)
	base.MaxIdleConnsPerHost = 16
	return &transport{
		config: config,
		client: &http.Client{
			Transport: base,
			// Redirects are followed in post: the call must be repeated with
			// its credentials, and the leader be remembered.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// close closes the connections without a call, as soon as no call waits for its
// answer: net/http takes a connection for idle a moment before it hands over an
// answer without a body, which closing it then would cut off.
func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closing = true
	t.closeIdle()
}

// closeIdle does what close has asked for, if that can be done now. The caller holds
// mu.
func (t *transport) closeIdle() {
	if t.closing && t.calls == 0 {
		t.closing = false
		t.client.CloseIdleConnections()
	}
}

// do sends a request and waits for its answer.
func (t *transport) do(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	t.calls++
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.calls--
		t.closeIdle()
	}()
	return t.client.Do(req)
}

// baseURL is the URL of a master given as host:port or as a URL. With TLS its
// name is preferred.
func (t *transport) baseURL(leader detect.Leader) (*url.URL, error) {
	address := leader.Address
	if t.config.TLS != nil && leader.Name != "" {
		address = leader.Name
	}
	if !strings.Contains(address, "://") {
		scheme := "http"
		if t.config.TLS != nil {
			scheme = "https"
		}
		address = scheme + "://" + address
	}
	base, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address of the Mesos master: %w", err)
	}
	return base, nil
}

// postToLeader sends a call that needs no subscription and returns the answer,
// whatever its status, and the base URL of the master that gave it, which is
// another one after a redirect. The caller closes the body. ctx bounds the whole
// exchange, reading included.
func (t *transport) postToLeader(ctx context.Context, base *url.URL, path string, call proto.Message) (*http.Response, *url.URL, error) {
	for range maxRedirects {
		resp, err := t.postTo(ctx, base, path, call, "")
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") == "" {
			return resp, base, nil
		}
		drain(resp)
		if base, err = leaderOf(base, resp.Header.Get("Location")); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("no leading Mesos master after %d redirects, the last one to %s", maxRedirects, base.Host)
}

// postTo sends a call to one master and follows no redirect: a call of a
// subscription means nothing to another master.
func (t *transport) postTo(ctx context.Context, base *url.URL, path string, call proto.Message, streamID string) (*http.Response, error) {
	body, err := proto.Marshal(call)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", protobufType)
	req.Header.Set("Accept", protobufType)
	if streamID != "" {
		req.Header.Set(streamIDHeader, streamID)
	}
	secret, authenticate, err := t.config.secret()
	if err != nil {
		return nil, err
	}
	if authenticate {
		req.SetBasicAuth(t.config.Principal, secret)
	}
	return t.do(req)
}

// leaderOf takes the leading master's base URL from the Location of a redirect.
// Mesos sends it without a scheme (//host:port/master/api/v1/scheduler); the
// secret is never sent in clear because a redirect says so.
func leaderOf(base *url.URL, location string) (*url.URL, error) {
	target, err := base.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("redirect to the leading Mesos master: %w", err)
	}
	if target.Host == "" || target.Scheme != base.Scheme {
		return nil, fmt.Errorf("redirect from %s to %q, which is not the same scheme", base, location)
	}
	return &url.URL{Scheme: target.Scheme, Host: target.Host}, nil
}

// explanation reads the text of a refusal.
func explanation(resp *http.Response) string {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(text) == 0 {
		return "unreadable answer: " + err.Error()
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(text), "?"))
}

// drain reads a little and closes, so that the connection can be used again.
// Whatever fails here concerns only that reuse.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	_ = resp.Body.Close()
}
