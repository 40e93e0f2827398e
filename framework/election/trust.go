package election

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// Trust says which leaders that serve HTTPS a Proxy believes to be what they say.
// Its files are read for each connection, so that renewing one needs no restart.
// It may be used concurrently.
type Trust struct {
	cert, ca string
	anyName  bool
}

// NewTrust trusts the authorities in the PEM file ca (empty: those of the
// system), and the certificates in the PEM file cert, this process's own: members
// often share one, or have theirs from the same authority, which may be in the
// file. Empty cert adds none. anyName accepts a trusted certificate whatever host
// it names.
//
// The errors are those of files that cannot be read or hold no certificate.
func NewTrust(cert, ca string, anyName bool) (*Trust, error) {
	t := &Trust{cert: cert, ca: ca, anyName: anyName}
	_, err := t.roots()
	return t, err
}

func (t *Trust) roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if t == nil || t.ca == "" {
		system, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
		}
		pool = system
	}
	if t == nil {
		return pool, nil
	}
	for _, file := range []string{t.ca, t.cert} {
		if file == "" {
			continue
		}
		pem, err := inputfile.Read(file)
		if err != nil {
			return nil, fmt.Errorf("read the certificates that leaders are trusted by: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the certificates that leaders are trusted by: no certificate in %s", file)
		}
	}
	return pool, nil
}

// config is for one connection to host.
func (t *Trust) config(host string) (*tls.Config, error) {
	roots, err := t.roots()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: host}
	if t != nil && t.anyName {
		// The chain is verified all the same, below.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(state tls.ConnectionState) error { return verifyChain(state, roots) }
	}
	return c, nil
}

// verifyChain is what crypto/tls does by itself, without the name.
func verifyChain(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the leader shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	if _, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}

// dial connects by TLS within the dialer's time-out.
func (t *Trust) dial(ctx context.Context, dialer *net.Dialer, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialer.Timeout)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	config, err := t.config(host)
	if err != nil {
		return nil, err
	}
	plain, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return conn, nil
}
