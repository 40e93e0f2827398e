// Package client calls the framework's REST API over HTTP, for the operating
// commands. It knows Marathon's shapes and what this framework adds to them.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// Config says where the API is and who asks.
type Config struct {
	// URL is the base URL. Credentials in it are used unless User is set.
	URL string
	// User and Password are sent with basic authentication when User is set.
	User, Password string
	// CA is a file of PEM certificates to trust instead of the system's.
	CA string
	// Timeout bounds one request [30s]; streams are not bounded.
	Timeout time.Duration
}

// Client calls one framework. Its methods may be called concurrently. Errors
// are *Error where the API answered, *UnreachableError where it did not.
type Client struct {
	base           string
	user, password string
	timeout        time.Duration
	http           *http.Client
}

// New checks the configuration; it does not connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		shown := fmt.Sprintf(" %q", cfg.URL)
		if strings.Contains(cfg.URL, "@") {
			shown = "" // it may hold a password
		}
		return nil, fmt.Errorf("the API's URL%s is not of the form http://user:pass@host:port", shown)
	}
	c := &Client{user: cfg.User, password: cfg.Password, timeout: cfg.Timeout}
	if c.timeout == 0 {
		c.timeout = 30 * time.Second
	}
	if u.User != nil && c.user == "" {
		c.user = u.User.Username()
		c.password, _ = u.User.Password()
	}
	u.User = nil
	c.base = strings.TrimRight(u.String(), "/")
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
	if cfg.CA != "" {
		pem, err := inputfile.Read(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", cfg.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c.http = &http.Client{Transport: transport}
	return c, nil
}

// URL is the base URL without credentials.
func (c *Client) URL() string { return c.base }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Detail is one thing that is wrong with a request.
type Detail struct {
	Path   string   `json:"path"`
	Errors []string `json:"errors"`
}

// Error is an answer of the API other than success.
type Error struct {
	Method, Path string
	Status       int
	Message      string
	Details      []Detail // of definitions that break rules
	Deployments  []string // that lock the app
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Message)
	if e.Message == "" {
		fmt.Fprintf(&b, "%s %s was answered with status %d", e.Method, e.Path, e.Status)
	}
	for _, d := range e.Details {
		fmt.Fprintf(&b, "\n  %s: %s", d.Path, strings.Join(d.Errors, "; "))
	}
	for _, d := range e.Deployments {
		fmt.Fprintf(&b, "\n  locked by deployment %s", d)
	}
	if e.Status == http.StatusUnauthorized {
		b.WriteString(" Give them with --credentials USER:PASSWORD or DVDI_CREDENTIALS.")
	}
	return b.String()
}

// UnreachableError means that no answer came.
type UnreachableError struct {
	URL string
	Err error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the framework's API at %s does not answer: %v; is it running there? Name another place with --url or DVDI_URL", e.URL, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// do calls the API with body (nil or JSON) and decodes the answer into out
// unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, body, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return &UnreachableError{URL: c.base, Err: fmt.Errorf("read the answer to %s %s: %w", method, path, err)}
	}
	if resp.StatusCode/100 != 2 {
		return problem(method, path, resp.StatusCode, data)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s%s: the answer is not that of a dvdi-framework: %w", method, c.base, path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body []byte, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", accept)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without method and URL, which the error names itself
		}
		return nil, &UnreachableError{URL: c.base, Err: err}
	}
	return resp, nil
}

// problem reads the body of an error answer.
func problem(method, path string, status int, data []byte) error {
	e := &Error{Method: method, Path: path, Status: status}
	var body struct {
		Message     string          `json:"message"`
		Details     json.RawMessage `json:"details"`
		Deployments []struct {
			ID string `json:"id"`
		} `json:"deployments"`
	}
	if json.Unmarshal(data, &body) != nil {
		e.Message = fmt.Sprintf("%s %s was answered with status %d: %.200s", method, path, status, bytes.TrimSpace(data))
		return e
	}
	e.Message = body.Message
	var text string
	if json.Unmarshal(body.Details, &e.Details) != nil && json.Unmarshal(body.Details, &text) == nil {
		e.Message += ": " + text
	}
	for _, d := range body.Deployments {
		e.Deployments = append(e.Deployments, d.ID)
	}
	return e
}
