package main

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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certificate writes a self-signed pair for 127.0.0.1 and returns its serial
// number.
func certificate(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		key: {Type: "PRIVATE KEY", Bytes: secret}, cert: {Type: "CERTIFICATE", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serial asks over TLS for /ping and returns the number of the certificate shown.
func serial(t *testing.T, address, ca string) int64 {
	t.Helper()
	trusted, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + address + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/ping: %s", resp.Status)
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestHTTPS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certificate(t, cert, key, 1)
	port := strconv.Itoa(freePort(t))
	p := start(t, "--ssl_cert="+cert, "--ssl_key="+key, "--https_port="+port)
	plain, secure := p.serving(t), "127.0.0.1:"+port
	if n := serial(t, secure, cert); n != 1 {
		t.Errorf("certificate %d", n)
	}
	resp, err := http.Get("http://" + plain + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	certificate(t, cert, key, 2)
	if err := os.Chtimes(cert, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if n := serial(t, secure, cert); n != 2 {
		t.Errorf("certificate %d after it was renewed", n)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out := p.exit(t); code != 0 {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestHTTPSOnly(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certificate(t, cert, key, 1)
	p := start(t, "--ssl_cert="+cert, "--ssl_key="+key, "--https_port=0", "--disable_http")
	address := p.serving(t)
	serial(t, address, cert)
	resp, err := http.Get("http://" + address + "/ping")
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("served in the clear")
		}
	}
}

func TestUnusableCertificate(t *testing.T) {
	code, out := start(t, "--ssl_cert=/nonexistent", "--ssl_key=/nonexistent").exit(t)
	if code != exitBadFlag || !strings.Contains(out, "--ssl_cert") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	code, out = start(t, "--secrets-dir=/nonexistent").exit(t)
	if code != exitBadFlag || !strings.Contains(out, "--secrets-dir") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}
