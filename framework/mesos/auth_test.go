package mesos

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// authenticated lets in who has the secret.
func authenticated(secret string, accepted func(s *stream)) func(int, *stream) {
	return func(_ int, s *stream) {
		principal, got, ok := s.request.BasicAuth()
		if !ok || principal != "dvdi-principal" || got != secret {
			http.Error(s, "", http.StatusUnauthorized)
			return
		}
		accepted(s)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPrincipalAndSecretAuthenticate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, "s3cret\n")
	for name, set := range map[string]func(*Config){
		"given":     func(c *Config) { c.Secret = "s3cret" },
		"in a file": func(c *Config) { c.SecretFile = file },
	} {
		t.Run(name, func(t *testing.T) {
			m := newScriptedMaster(t, authenticated("s3cret", func(s *stream) { s.accept(); s.hold() }))
			m.answer = func(w http.ResponseWriter, r *http.Request, _ *scheduler.Call) {
				if _, secret, _ := r.BasicAuth(); secret != "s3cret" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				w.WriteHeader(http.StatusAccepted)
			}
			config := testConfig(t, m.URL)
			set(&config)
			c := run(t, config, "")
			expect[core.Subscribed](c)
			if err := c.Revive(testContext(t), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrongSecretEndsTheRunWithoutShowingIt(t *testing.T) {
	m := newScriptedMaster(t, authenticated("s3cret", nil))
	config := testConfig(t, m.URL)
	config.Secret = "wr0ng"
	c := run(t, config, "")
	var refusal *core.CallError
	err := c.wait()
	if !errors.As(err, &refusal) || refusal.Status != http.StatusUnauthorized {
		t.Fatalf("Run returned %v", err)
	}
	if strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "check the Mesos principal") {
		t.Errorf("message %q", err)
	}
}

func TestChangedSecretFileIsUsedByTheNextSubscription(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, "old")
	m := newScriptedMaster(t, nil)
	changed := make(chan struct{})
	m.subscribe = func(n int, s *stream) {
		if n == 1 {
			authenticated("old", func(s *stream) { s.accept(); <-changed })(n, s)
			return
		}
		authenticated("new", func(s *stream) { s.accept(); s.hold() })(n, s)
	}
	config := testConfig(t, m.URL)
	config.SecretFile = file
	c := run(t, config, "")
	expect[core.Subscribed](c)
	writeFile(t, file, "new")
	close(changed)
	expect[core.Disconnected](c)
	expect[core.Subscribed](c)
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"no detector":                   func(c *Config) { c.Detector = nil },
		"no name":                       func(c *Config) { c.Name = "" },
		"no role":                       func(c *Config) { c.Roles = nil },
		"both a secret":                 func(c *Config) { c.Secret, c.SecretFile = "a", "b" },
		"a secret needs a principal":    func(c *Config) { c.Secret, c.Principal = "a", "" },
		"read the secret of Mesos prin": func(c *Config) { c.SecretFile = filepath.Join(t.TempDir(), "missing") },
	} {
		config := testConfig(t, "127.0.0.1:5050")
		spoil(&config)
		if _, err := New(config, zap.NewNop()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// authority signs certificates for the tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	a.cert = sign(t, template, template, &a.key.PublicKey, a.key)
	a.file = a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	writeFile(a.t, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	return path
}

// issue writes a certificate and its key and returns their files.
func (a *authority) issue(name string) (certFile, keyFile string) {
	key := newKey(a.t)
	cert := sign(a.t, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", cert.Raw), a.write(name+"-key.pem", "PRIVATE KEY", der)
}

func TestTLSWithAuthorityAndClientCertificate(t *testing.T) {
	a := newAuthority(t)
	serverCert, serverKey := a.issue("master")
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	m := newUnstartedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	m.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	m.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	m.StartTLS()
	t.Cleanup(m.Close)

	clientCert, clientKey := a.issue("framework")
	config := testConfig(t, m.Listener.Addr().String()) // https follows from TLS being set
	if config.TLS, err = TLSFiles(a.file, clientCert, clientKey); err != nil {
		t.Fatal(err)
	}
	c := run(t, config, "")
	expect[core.Subscribed](c)
	if err := c.Revive(testContext(t), nil); err != nil {
		t.Error(err)
	}

	for name, files := range map[string][3]string{
		"unknown authority":     {"", clientCert, clientKey},
		"no client certificate": {a.file, "", ""},
	} {
		config := testConfig(t, m.Listener.Addr().String())
		if config.TLS, err = TLSFiles(files[0], files[1], files[2]); err != nil {
			t.Fatal(err)
		}
		c := run(t, config, "")
		eventually(t, name+": refusal", func() bool {
			return c.logs.FilterMessage("subscription with the Mesos master ended").Len() > 0
		})
		c.stop()
		if err := c.wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(m.subscriptions()); n != 1 {
		t.Errorf("%d subscriptions, want only that with the right certificates", n)
	}
}

func TestTLSFilesThatCannotWorkAreRefused(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("x")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	writeFile(t, empty, "")
	for want, files := range map[string][3]string{
		"no such file":       {empty + "x", "", ""},
		"no certificate in":  {empty, "", ""},
		"needs both":         {"", cert, ""},
		"needs both its":     {"", "", key},
		"load the client ce": {"", cert, a.file},
	} {
		if _, err := TLSFiles(files[0], files[1], files[2]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestMasterWithIPv6Address(t *testing.T) {
	listener, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	m := newUnstartedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	m.Listener.Close()
	m.Listener = listener
	m.start(t)
	c := run(t, testConfig(t, listener.Addr().String()), "")
	expect[core.Subscribed](c)
}
