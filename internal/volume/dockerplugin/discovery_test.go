package dockerplugin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// listenUnix makes a socket at path that lives as long as the test.
func listenUnix(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// addressOf opens the driver and tells what it was found as.
func addressOf(t *testing.T, d *Drivers, name string) string {
	t.Helper()
	opened, err := d.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return opened.(*driver).found.endpoint.address()
}

func TestOrderOfDiscovery(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	d := New(Config{Dirs: []string{first, second}})
	json := func(n int) string { return fmt.Sprintf(`{"Name":"other","Addr":"tcp://host:%d"}`, n) }
	spec := func(n int) string { return fmt.Sprintf("tcp://host:%d\n", n) }
	// From the last to the first: each new one has to win.
	for i, file := range []string{"N/N.json", "N.json", "N/N.spec", "N.spec"} {
		for j, dir := range []string{second, first} {
			n := 1 + i + 10*j
			content := spec(n)
			if strings.HasSuffix(file, "json") {
				content = json(n)
			}
			writeFile(t, filepath.Join(dir, file), content)
		}
		// The first directory wins as a whole.
		if got, want := addressOf(t, d, "N"), fmt.Sprintf("tcp://host:%d", 1+i+10); got != want {
			t.Errorf("with %s: %s, want %s", file, got, want)
		}
	}
	for _, path := range []string{
		filepath.Join(second, "N/N.sock"), filepath.Join(second, "N.sock"), filepath.Join(first, "N/N.sock"), filepath.Join(first, "N.sock"),
	} {
		listenUnix(t, path)
		if got := addressOf(t, d, "N"); got != "unix://"+path {
			t.Errorf("with %s: %s", path, got)
		}
	}
	infos, err := d.List(t.Context())
	if err != nil || len(infos) != 12 || infos[0].Source != filepath.Join(first, "N.sock") || infos[11].Source != filepath.Join(second, "N/N.json") {
		t.Errorf("List = %+v, %v", infos, err)
	}
}

func TestDefaultPlacesAreDockers(t *testing.T) {
	d := New(Config{})
	want := []place{{"/run/docker/plugins", true, false}, {"/etc/docker/plugins", false, true}, {"/usr/lib/docker/plugins", false, true}}
	if !slices.Equal(d.places, want) || d.managedDir() != "/var/lib/docker/plugins" {
		t.Errorf("%+v %s", d.places, d.managedDir())
	}
	if d := New(Config{Dirs: []string{"/elsewhere"}}); d.config.DockerRoot != "" {
		t.Error("other directories, but Docker's managed plugins")
	}
}

func TestFilesThatDefineNothing(t *testing.T) {
	dir := t.TempDir()
	d := New(Config{Dirs: []string{dir}})
	writeFile(t, filepath.Join(dir, "N.sock"), "no socket")
	writeFile(t, filepath.Join(dir, "N.txt"), "tcp://host:1")
	if _, err := d.Open(t.Context(), "N"); !errors.Is(err, volume.DriverUnknown) {
		t.Errorf("error %v", err)
	}
	listenUnix(t, filepath.Join(dir, "N", "N.sock"))
	if got := addressOf(t, d, "N"); got != "unix://"+filepath.Join(dir, "N", "N.sock") {
		t.Error(got)
	}
}

func TestUnknownDriverSaysWhatThereIs(t *testing.T) {
	dir, empty := t.TempDir(), filepath.Join(t.TempDir(), "none")
	listenUnix(t, filepath.Join(dir, "rexray.sock"))
	writeFile(t, filepath.Join(dir, "convoy.spec"), "unix:///run/convoy.sock")
	writeFile(t, filepath.Join(dir, "broken.spec"), "nonsense")
	d := New(Config{Dirs: []string{dir, empty}})
	for _, name := range []string{"rexrai", "", "..", "../x", "/etc/passwd", "a\x00b", strings.Repeat("x", 5000), "rexray/ebs"} {
		_, err := d.Open(t.Context(), name)
		var unknown *volume.DriverUnknownError
		if !errors.As(err, &unknown) || unknown.Driver != name || !slices.Equal(unknown.Searched, []string{dir, empty}) ||
			!slices.Equal(unknown.Existing, []string{"convoy", "rexray"}) {
			t.Errorf("%.20q: %+v", name, err)
		}
	}
}

func TestNamesCannotLeaveTheDirectories(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "outside.spec"), "tcp://host:1")
	inner := filepath.Join(dir, "plugins")
	writeFile(t, filepath.Join(inner, "sub", "x.spec"), "tcp://host:1")
	d := New(Config{Dirs: []string{inner}})
	for _, name := range []string{"../outside", "sub/../../outside", dir + "/outside"} {
		if _, err := d.Open(t.Context(), name); !errors.Is(err, volume.DriverUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := addressOf(t, d, "sub/x"); got != "tcp://host:1" {
		t.Error(got)
	}
}

func TestBrokenDefinitions(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ file, content, part string }{
		"empty spec":   {"empty.spec", " \n", "no address"},
		"no scheme":    {"plain.spec", "localhost:8080", "scheme"},
		"path":         {"path.spec", "/run/p.sock", "no scheme"},
		"npipe":        {"npipe.spec", "npipe:////./pipe/x", `"npipe"`},
		"no path":      {"nopath.spec", "unix://", "no path"},
		"no host":      {"nohost.spec", "tcp://:80", "no host"},
		"no URL":       {"nourl.spec", "http://user:secretword@%zz", "not a URL"},
		"huge":         {"huge.spec", "unix:///" + strings.Repeat("x", maxSpec), "larger"},
		"empty json":   {"none.json", "", "empty"},
		"no json":      {"nojson.json", "unix:///run/x", "JSON"},
		"wrong json":   {"wrong.json", `{"Addr":7}`, "JSON"},
		"no Addr":      {"noaddr.json", `{"Name":"x"}`, "no address"},
		"missing CA":   {"ca.json", `{"Addr":"https://h","TLSConfig":{"CAFile":"/none/ca.pem"}}`, "/none/ca.pem"},
		"bad CA":       {"badca.json", `{"Addr":"https://h","TLSConfig":{"CAFile":"/dev/null"}}`, "no certificate"},
		"missing cert": {"cert.json", `{"Addr":"https://h","TLSConfig":{"CertFile":"/none/c.pem","KeyFile":"/none/k.pem"}}`, "/none/c.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, test.file)
			writeFile(t, path, test.content)
			driver := strings.TrimSuffix(test.file, filepath.Ext(test.file))
			_, err := New(Config{Dirs: []string{dir}}).Open(t.Context(), driver)
			wantKind(t, err, volume.DriverUnreachable, driver, test.part, "correct "+path)
			if strings.Contains(err.Error(), "secretword") {
				t.Errorf("password in %q", err)
			}
		})
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo.spec"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := New(Config{Dirs: []string{dir}}).Open(t.Context(), "fifo")
	wantKind(t, err, volume.DriverUnreachable, "regular")

	infos, err := New(Config{Dirs: []string{dir}}).List(t.Context())
	if err != nil || len(infos) != 16 {
		t.Fatalf("%d, %v", len(infos), err)
	}
	for _, info := range infos {
		if info.Kind != Kind || info.Problem == "" && !strings.Contains("ca badca cert", info.Name) {
			t.Errorf("%+v", info)
		}
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]endpoint{
		"unix:///run/p.sock":        {network: "unix", target: "/run/p.sock"},
		" unix:///run/a%20b.sock\n": {network: "unix", target: "/run/a b.sock"},
		"tcp://localhost:8080":      {network: "tcp", target: "localhost:8080"},
		"http://user:pw@host":       {network: "tcp", target: "host:80"},
		"https://host":              {network: "tcp", target: "host:443", https: true},
		"https://[::1]:9/ignored":   {network: "tcp", target: "[::1]:9", https: true},
		"https://[::1]":             {network: "tcp", target: "[::1]:443", https: true},
	} {
		if got, err := parseSpec([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d := New(Config{Dirs: []string{t.TempDir()}})
	if _, err := d.Open(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := d.List(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// remotePlugin answers over TCP and remembers the Host header.
func remotePlugin(hosts chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case hosts <- r.Host:
		default:
		}
		_, _ = io.WriteString(w, `{"Implements":["NetworkDriver","VolumeDriver"],"Mountpoint":"/remote"}`)
	})
}

func TestRemotePlugin(t *testing.T) {
	hosts := make(chan string, 1)
	server := httptest.NewServer(remotePlugin(hosts))
	defer server.Close()
	for _, scheme := range []string{"tcp", "http"} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "far.spec"), scheme+"://user:pw@"+server.Listener.Addr().String())
		d := New(Config{Dirs: []string{dir}})
		mounted, err := open(t, d, "far").Mount(t.Context(), mountOf("v", "1"))
		if err != nil || mounted.Path != "/remote" || mounted.ServerPID != 0 {
			t.Errorf("%s: %+v, %v", scheme, mounted, err)
		}
		if host := <-hosts; host != server.Listener.Addr().String() {
			t.Errorf("Host %q", host)
		}
		if infos, err := d.List(t.Context()); err != nil || strings.Contains(infos[0].Address, "pw") {
			t.Errorf("%+v, %v", infos, err)
		}
	}
}

func TestAnswerWithoutEnd(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "Activate") {
			_, _ = io.WriteString(w, `{"Implements":["VolumeDriver"]}`)
			return
		}
		for { // until the client has had enough
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "far.spec"), server.URL)
	_, err := open(t, New(Config{Dirs: []string{dir}}), "far").Mount(t.Context(), mountOf("v", "1"))
	wantKind(t, err, volume.Garbled, "too large")
}

// authority makes certificates in a directory of its own.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", nil)
	return a
}

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(name string, ips []net.IP) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: ips,
		IsCA: a.cert == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	writeFile(a.t, a.path(name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(a.t, a.path(name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func TestTLS(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.issue("server", []net.IP{net.IPv4(127, 0, 0, 1)})
	a.issue("client", nil)
	other.issue("client", nil)
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	server := httptest.NewUnstartedServer(remotePlugin(nil))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	defer server.Close()

	for name, test := range map[string]struct {
		tls  tlsFiles
		fine bool
	}{
		"all right":        {tlsFiles{CAFile: a.path("ca.pem"), CertFile: a.path("client.pem"), KeyFile: a.path("client.key")}, true},
		"no CA, as Docker": {tlsFiles{CertFile: a.path("client.pem"), KeyFile: a.path("client.key")}, true},
		"skip":             {tlsFiles{InsecureSkipVerify: true, CAFile: other.path("ca.pem"), CertFile: a.path("client.pem"), KeyFile: a.path("client.key")}, true},
		"other CA":         {tlsFiles{CAFile: other.path("ca.pem"), CertFile: a.path("client.pem"), KeyFile: a.path("client.key")}, false},
		"no client":        {tlsFiles{CAFile: a.path("ca.pem")}, false},
		"other client":     {tlsFiles{CAFile: a.path("ca.pem"), CertFile: other.path("client.pem"), KeyFile: other.path("client.key")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			content, err := json.Marshal(map[string]any{"Name": "far", "Addr": server.URL, "TLSConfig": test.tls})
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "far.json"), string(content))
			clock := newFakeClock()
			_, err = open(t, New(Config{Dirs: []string{dir}, Clock: clock}), "far").Mount(t.Context(), mountOf("v", "1"))
			if name == "other CA" && len(clock.slept) > 0 {
				t.Error("waited for a certificate to become good")
			}
			if test.fine && err != nil {
				t.Error(err)
			}
			if !test.fine {
				wantKind(t, err, volume.DriverUnreachable, "https://")
			}
		})
	}
}
