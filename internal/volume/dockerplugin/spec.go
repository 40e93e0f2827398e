package dockerplugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSpec bounds the size of a spec or json file.
const maxSpec = 64 << 10

// endpoint is where a plugin listens and how it is spoken to. It is
// comparable.
type endpoint struct {
	network string // "unix" or "tcp"
	target  string // path or host:port
	https   bool
	tls     tlsFiles
}

// tlsFiles is the TLSConfig of a json file.
type tlsFiles struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

// address is the endpoint for people; it never holds credentials.
func (e endpoint) address() string {
	switch {
	case e.target == "":
		return ""
	case e.network == "unix":
		return "unix://" + e.target
	case e.https:
		return "https://" + e.target
	default:
		return "tcp://" + e.target
	}
}

// exists says whether there is something to read at path, which is not so for
// names that are no possible file names.
func exists(path string) (fs.FileInfo, bool, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil:
		return info, true, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EINVAL):
		return nil, false, nil
	}
	return nil, true, err
}

// readSocket takes a socket as it is. What is no socket is passed over.
func readSocket(path string) (endpoint, bool, error) {
	info, ok, err := exists(path)
	if err != nil || !ok {
		return endpoint{}, ok, err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return endpoint{}, false, nil
	}
	return endpoint{network: "unix", target: path}, true, nil
}

// readFile reads a spec or json file that exists.
func readFile(path string) ([]byte, bool, error) {
	info, ok, err := exists(path)
	if err != nil || !ok {
		return nil, ok, err
	}
	if !info.Mode().IsRegular() {
		return nil, true, errors.New("it is not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, true, err
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxSpec+1))
	if err == nil && len(content) > maxSpec {
		err = fmt.Errorf("it is larger than %d bytes", maxSpec)
	}
	return content, true, err
}

// readSpec reads a .spec file: a URL, alone.
func readSpec(path string) (endpoint, bool, error) {
	content, ok, err := readFile(path)
	if err != nil || !ok {
		return endpoint{}, ok, err
	}
	e, err := parseSpec(content)
	return e, true, err
}

func parseSpec(content []byte) (endpoint, error) { return parseAddress(string(content)) }

// readJSON reads a .json file.
func readJSON(path string) (endpoint, bool, error) {
	content, ok, err := readFile(path)
	if err != nil || !ok {
		return endpoint{}, ok, err
	}
	e, err := parseJSON(content)
	return e, true, err
}

// parseJSON reads Name, Addr and TLSConfig. The name in it is ignored: a
// plugin is called as its file is.
func parseJSON(content []byte) (endpoint, error) {
	var spec struct {
		Addr      string
		TLSConfig tlsFiles
	}
	if err := json.NewDecoder(bytes.NewReader(content)).Decode(&spec); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return endpoint{}, fmt.Errorf("not the JSON of a plugin: %w", err)
	}
	e, err := parseAddress(spec.Addr)
	if err != nil {
		return endpoint{}, err
	}
	if e.tls = spec.TLSConfig; e.tls.CAFile == "" {
		e.tls.InsecureSkipVerify = true // as Docker does
	}
	return e, nil
}

// parseAddress understands the URLs that Docker does. Only https is spoken
// with TLS; a path behind host and port has no meaning.
func parseAddress(text string) (endpoint, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return endpoint{}, errors.New("no address; want one such as unix:///run/p.sock or tcp://localhost:8080")
	}
	u, err := url.Parse(text)
	if err != nil {
		// url's own error repeats the text, which may hold a password.
		return endpoint{}, errors.New("the address is not a URL")
	}
	switch u.Scheme {
	case "unix":
		path := u.Host + u.Path
		if path == "" {
			return endpoint{}, errors.New("the unix address has no path")
		}
		if !filepath.IsAbs(path) {
			return endpoint{}, fmt.Errorf("the unix address has the relative path %q; want unix:///DIRECTORY/NAME.sock", path)
		}
		return endpoint{network: "unix", target: path}, nil
	case "tcp", "http", "https":
		if u.Hostname() == "" {
			return endpoint{}, fmt.Errorf("the %s address has no host", u.Scheme)
		}
		return endpoint{network: "tcp", target: hostPort(u), https: u.Scheme == "https"}, nil
	case "":
		return endpoint{}, errors.New("the address has no scheme; want unix://, tcp://, http:// or https://")
	}
	return endpoint{}, fmt.Errorf("unknown scheme %q; want unix://, tcp://, http:// or https://", u.Scheme)
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	port := ":80"
	if u.Scheme == "https" {
		port = ":443"
	}
	return strings.TrimSuffix(u.Host, ":") + port
}
