package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// ErrOpen says that neither a client's certificate nor a token would be asked
// for. What the API does stops tasks: it is not served to everybody, on loopback
// neither.
var ErrOpen = errors.New("the API would be open to everybody: give a file with a bearer token, or certificate, key and the CA of the clients")

// Credentials are what the server shows and asks for, as files, which are read
// anew for each connection or call: they can be replaced while it runs.
type Credentials struct {
	// CertFile and KeyFile are what the server shows.
	CertFile, KeyFile string
	// ClientCAFile signs the certificates that clients have to show.
	ClientCAFile string
	// TokenFile holds the bearer token that clients have to send. With a
	// ClientCAFile too, both are asked for.
	TokenFile string
}

// minToken is the least length of a token: 16 random bytes in hexadecimal.
const minToken = 32

// Check says what is wrong with the credentials; ErrOpen if there are none.
func (c Credentials) Check() error {
	if c.ClientCAFile == "" && c.TokenFile == "" {
		return ErrOpen
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("certificate and key belong together: give both")
	}
	if c.ClientCAFile != "" && c.CertFile == "" {
		return errors.New("to ask clients for certificates the server needs its own: give certificate and key")
	}
	if c.CertFile != "" {
		if _, err := c.load(); err != nil {
			return err
		}
	}
	if c.TokenFile != "" {
		if _, err := readToken(c.TokenFile); err != nil {
			return err
		}
	}
	return nil
}

// Encrypted says whether connections are encrypted.
func (c Credentials) Encrypted() bool { return c.CertFile != "" }

func (c Credentials) load() (*tls.Config, error) {
	pair, err := inputfile.KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if c.ClientCAFile == "" {
		return out, nil
	}
	pem, err := inputfile.Read(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("CA of the clients: %w", err)
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of the clients: %s holds no certificate", c.ClientCAFile)
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}

// readToken reads a token and checks that it is one worth the name.
func readToken(path string) ([sha256.Size]byte, error) {
	none := [sha256.Size]byte{}
	st, err := os.Stat(path)
	if err != nil {
		return none, fmt.Errorf("bearer token: %w", err)
	}
	if !st.Mode().IsRegular() { // a pipe has it only once
		return none, fmt.Errorf("bearer token: %s is no regular file", path)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return none, fmt.Errorf("bearer token: every user of this host can read or write %s; take that right away with chmod o-rwx", path)
	}
	data, err := inputfile.Read(path)
	if err != nil {
		return none, fmt.Errorf("bearer token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < minToken {
		return none, fmt.Errorf("bearer token: %s holds %d characters, at least %d are needed; make one with `openssl rand -hex 32`", path, len(token), minToken)
	}
	return sha256.Sum256([]byte(token)), nil
}

// ServerOptions make a gRPC server ask for the credentials. Call Check first.
func (c Credentials) ServerOptions(counter Counter) []grpc.ServerOption {
	transport := insecure.NewCredentials()
	if c.CertFile != "" {
		transport = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.load() }})
	}
	out := []grpc.ServerOption{grpc.Creds(CountHandshakes(transport, counter))}
	if c.TokenFile != "" {
		out = append(out, grpc.InTapHandle(func(ctx context.Context, call *tap.Info) (context.Context, error) {
			return ctx, c.checkToken(call, counter)
		}))
	}
	return out
}

// checkToken looks at the headers of a call, before anything is read of its
// body.
func (c Credentials) checkToken(call *tap.Info, counter Counter) error {
	want, err := readToken(c.TokenFile)
	if err != nil {
		return status.Error(codes.Unavailable, "the server cannot read its token")
	}
	given := call.Header.Get("authorization")
	if len(given) == 0 {
		counter.count(NoToken)
		return status.Error(codes.Unauthenticated, "no bearer token")
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	if len(given) > 1 || !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		counter.count(WrongToken)
		return status.Error(codes.Unauthenticated, "wrong bearer token")
	}
	return nil
}
