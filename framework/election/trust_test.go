package election

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

// sign signs a template by the authority, or by itself where that is nil.
func (a *authority) sign(template *x509.Certificate, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// leader serves HTTPS with a certificate of the authority, for 127.0.0.1 or for a
// name.
func (a *authority) leader(name string) (*httptest.Server, *x509.Certificate) {
	template := &x509.Certificate{IPAddresses: []net.IP{{127, 0, 0, 1}}}
	if name != "" {
		template = &x509.Certificate{DNSNames: []string{name}}
	}
	cert, key := a.sign(template, a)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
	}))
	s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s, cert
}

func writeCertificate(t *testing.T, file string, cert *x509.Certificate) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// through asks a leader through the proxy of a member that trusts so.
func through(t *testing.T, leader string, trust *Trust) (int, string) {
	t.Helper()
	who := &led{}
	who.set(leader, false)
	p := NewProxy(ProxyConfig{Self: "member:1", Trust: trust}, who, zap.NewNop())
	defer p.Close()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/apps", nil))
	return w.Code, w.Body.String()
}

func TestALeaderByHTTPS(t *testing.T) {
	a := newAuthority(t)
	leader, own := a.leader("")
	named, _ := a.leader("node1.test")
	dir := t.TempDir()
	ca, cert, strange := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "strange")
	writeCertificate(t, ca, a.cert)
	writeCertificate(t, cert, own)
	writeCertificate(t, strange, newAuthority(t).cert)
	for name, tc := range map[string]struct {
		leader   string
		cert, ca string
		anyName  bool
		answers  bool
	}{
		"by its authority":              {leader.URL, "", ca, false, true},
		"by the shared certificate":     {leader.URL, cert, "", false, true},
		"by both":                       {leader.URL, strange, ca, false, true},
		"unknown authority":             {leader.URL, "", "", false, false},
		"another authority":             {leader.URL, strange, strange, false, false},
		"another name":                  {named.URL, "", ca, false, false},
		"any name":                      {named.URL, "", ca, true, true},
		"any name of another authority": {named.URL, "", strange, true, false},
	} {
		trust, err := NewTrust(tc.cert, tc.ca, tc.anyName)
		if err != nil {
			t.Fatal(err)
		}
		code, text := through(t, tc.leader, trust)
		if tc.answers && code != http.StatusAccepted {
			t.Errorf("%s: %d %s", name, code, text)
		}
		if !tc.answers && (code != http.StatusBadGateway || !strings.Contains(text, "not trusted")) {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if code, text := through(t, leader.URL, nil); code != http.StatusBadGateway || !strings.Contains(text, "not trusted") {
		t.Errorf("without settings: %d %s", code, text)
	}
}

// TestTrustIsRenewed replaces the file with the authority while the proxy runs.
func TestTrustIsRenewed(t *testing.T) {
	a := newAuthority(t)
	leader, _ := a.leader("")
	ca := filepath.Join(t.TempDir(), "ca")
	writeCertificate(t, ca, newAuthority(t).cert)
	trust, err := NewTrust("", ca, false)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := through(t, leader.URL, trust); code != http.StatusBadGateway {
		t.Fatalf("%d", code)
	}
	writeCertificate(t, ca, a.cert)
	if code, text := through(t, leader.URL, trust); code != http.StatusAccepted {
		t.Errorf("after the authority was replaced: %d %s", code, text)
	}
}

func TestTrustThatCannotBeRead(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".missing"} {
		if _, err := NewTrust("", file, false); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := NewTrust(file, "", false); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
}
