// Package client is the generated client of the bridge's APIs (facts.proto for
// frameworks, isolator.proto for programs on the agent's host), and what every
// client of the first needs to know: how to reach a bridge, and when a lease may
// be taken to be over.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// Credentials are what a client shows and checks, as files. They are read anew
// with each connection or call, so that they can be replaced.
type Credentials struct {
	// CAFile signs the bridges' certificates. Empty: connections are not
	// encrypted, and a token crosses the network in the clear.
	CAFile string
	// CertFile and KeyFile are the client's own certificate.
	CertFile, KeyFile string
	// TokenFile holds a bearer token.
	TokenFile string
}

// Check says what is wrong with the credentials.
func (c Credentials) Check() error {
	switch {
	case c.TokenFile == "" && c.CertFile == "":
		return errors.New("bridges ask for a bearer token or a certificate: give one of them")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("certificate and key belong together: give both")
	case c.CertFile != "" && c.CAFile == "":
		return errors.New("a certificate is shown only on encrypted connections: give the CA of the bridges")
	}
	if c.TokenFile != "" {
		if _, err := readToken(c.TokenFile); err != nil {
			return err
		}
	}
	if c.CAFile != "" {
		if _, err := c.tls(); err != nil {
			return err
		}
	}
	return nil
}

func (c Credentials) tls() (*tls.Config, error) {
	pem, err := inputfile.Read(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("CA of the bridges: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !out.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of the bridges: %s holds no certificate", c.CAFile)
	}
	if c.CertFile == "" {
		return out, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := inputfile.KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate towards the bridges: %w", err)
		}
		return &pair, nil
	}
	out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	_, err = load()
	return out, err
}

// maxMessage is the size of an answer: the facts of an agent with some ten
// thousand volumes.
const maxMessage = 64 << 20

// Dial makes a connection that is established, and established again, when it is
// used. A peer that is gone without a word is noticed within half a minute.
func Dial(address string, c Credentials) (*grpc.ClientConn, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if c.CAFile != "" {
		config, err := c.tls()
		if err != nil {
			return nil, err
		}
		transport = credentials.NewTLS(config)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 15 * time.Second},
			MinConnectTimeout: 5 * time.Second}),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	}
	if c.TokenFile != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{c.TokenFile, c.CAFile != ""}))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("bridge at %s: %w", address, err)
	}
	return conn, nil
}

// bearer sends a token with each call.
type bearer struct {
	file      string
	encrypted bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := readToken(b.file)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.encrypted }

func readToken(path string) (string, error) {
	data, err := inputfile.Read(path)
	if err != nil {
		return "", fmt.Errorf("bearer token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("bearer token: %s must hold one line", path)
	}
	return token, nil
}
