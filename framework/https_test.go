package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
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

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
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
	resp, err := trusting(t, ca).Get("https://" + address + "/ping")
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
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
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

// Members of a group that serve HTTPS only elect a leader and pass requests on to
// it by HTTPS, trusting the certificate that they share.
func TestHTTPSOnlyWithOthers(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certificate(t, cert, key, 1)
	args := []string{"--ssl_cert=" + cert, "--ssl_key=" + key, "--https_port=0", "--disable_http", "--hostname=127.0.0.1",
		"--zk=zk://" + zktest.StartWithSessions(t, time.Minute).Addr + "/dvdi"}
	client := trusting(t, cert)
	addresses := []string{start(t, args...).serving(t), start(t, args...).serving(t)}
	get := func(address, path string) (status int, body string, header http.Header) {
		t.Helper()
		resp, err := client.Get("https://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b), resp.Header
	}
	leader := ""
	for deadline := time.Now().Add(time.Minute); leader == ""; time.Sleep(50 * time.Millisecond) {
		status, body, _ := get(addresses[0], "/v2/leader")
		for _, a := range addresses {
			if status == http.StatusOK && strings.Contains(body, a) {
				leader = a
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no leader: %d %s", status, body)
		}
	}
	for _, a := range addresses {
		status, body, header := get(a, "/v2/info")
		if status != http.StatusOK || header.Get("X-Marathon-Leader") != "https://"+leader || !strings.Contains(body, `"leader":"`+leader+`"`) {
			t.Errorf("%s: %d %v %s", a, status, header, body)
		}
		if passed := header.Get("X-Marathon-Via") != ""; passed != (a != leader) {
			t.Errorf("%s, led by %s: passed on %v", a, leader, passed)
		}
		if status, _, header := get(a, "/v2/events"); a != leader && (status != http.StatusFound || header.Get("Location") != "https://"+leader+"/v2/events") {
			t.Errorf("events at %s: %d %v", a, status, header)
		}
	}
}

// trusting is a client that believes servers with that certificate.
func trusting(t *testing.T, cert string) *http.Client {
	t.Helper()
	trusted, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestUnusableCertificate(t *testing.T) {
	code, out := start(t, "--ssl_cert=/nonexistent", "--ssl_key=/nonexistent").exit(t)
	if code != exitBadFlag || !strings.Contains(out, "--ssl_cert") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	code, out = start(t, "--zk=zk://127.0.0.1:1/x", "--leader_proxy_ca=/nonexistent").exit(t)
	if code != exitBadFlag || !strings.Contains(out, "--leader_proxy_ca") {
		t.Errorf("exit code %d, output %q", code, out)
	}
	code, out = start(t, "--secrets-dir=/nonexistent").exit(t)
	if code != exitBadFlag || !strings.Contains(out, "--secrets-dir") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}
