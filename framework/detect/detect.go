// Package detect finds the leading Mesos master: in a list of addresses that are
// tried in turn, or in the ZooKeeper ensemble in which the masters elect one.
package detect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// DefaultMasterPort is the port of a master given without one.
const DefaultMasterPort = "5050"

// Leader is a master to talk to.
type Leader struct {
	// Address is host:port, or a URL (scheme://host:port) when the scheme is
	// known.
	Address string
	// Name is host name:port where the master announces one, for TLS, whose
	// certificates carry names. Empty: use Address.
	Name string
	// Lost is closed when detection learns that this master no longer leads.
	// Nil when there is no such knowledge.
	Lost <-chan struct{}
}

// Detector finds the leading master. It is safe for concurrent use.
type Detector interface {
	// Leader waits until a master leads, or ctx ends. A list of addresses is
	// given out in turn, one for each call.
	Leader(ctx context.Context) (Leader, error)
	// Close frees what the detector holds and waits for its goroutines;
	// waiting calls of Leader end with an error.
	Close() error
}

// Parse makes the detector for the value of --master: host[:port] or
// http(s)://host[:port], several separated by commas, or
// zk://[user:pass@]host[:port],.../path. A value file:///path stands for the
// content of that file, so that credentials need not show in a process list. A
// detector with ZooKeeper connects in the background.
func Parse(master string, log *zap.Logger) (Detector, error) {
	master = strings.TrimSpace(master)
	if name, isFile := strings.CutPrefix(master, "file://"); isFile {
		content, err := inputfile.Read(name)
		if err != nil {
			return nil, fmt.Errorf("read the address of the Mesos master: %w", err)
		}
		master = strings.TrimSpace(string(content))
	}
	if strings.HasPrefix(master, zkScheme) {
		ensemble, err := ParseEnsemble(master)
		if err != nil {
			return nil, fmt.Errorf("address of the Mesos master: %w", err)
		}
		return NewZooKeeper(ensemble, 0, log), nil
	}
	return NewList(strings.Split(master, ",")...)
}

// ErrClosed is returned by Leader after Close.
var ErrClosed = errors.New("detection of the leading Mesos master is closed")

// List gives out the addresses of masters in turn. A master that does not lead
// redirects to the one that does, so any live address is enough.
type List struct {
	addresses []string

	mu   sync.Mutex // guards next
	next int
}

// NewList returns a List of addresses, each host[:port] or http(s)://host[:port].
func NewList(addresses ...string) (*List, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no Mesos master is named")
	}
	l := &List{}
	for _, a := range addresses {
		address, err := masterAddress(strings.TrimSpace(a))
		if err != nil {
			return nil, err
		}
		l.addresses = append(l.addresses, address)
	}
	return l, nil
}

// Leader returns the next address; it never waits.
func (l *List) Leader(ctx context.Context) (Leader, error) {
	if err := ctx.Err(); err != nil {
		return Leader{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	address := l.addresses[l.next%len(l.addresses)]
	l.next++
	return Leader{Address: address}, nil
}

// Close does nothing: a list holds nothing.
func (l *List) Close() error { return nil }

// masterAddress brings one address of --master into the form host:port or
// scheme://host[:port][/prefix].
func masterAddress(s string) (string, error) {
	if strings.Contains(s, "@") {
		return "", errors.New("the address of a Mesos master holds credentials: give principal and secret by their own flags")
	}
	if !strings.Contains(s, "://") {
		return hostPort(s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("address %q of a Mesos master: %w", s, err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("address %q of a Mesos master: scheme %q is none of http, https, zk", s, u.Scheme)
	case u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("address %q of a Mesos master is not a URL of scheme, host and port", s)
	case u.Port() != "" && !validPort(u.Port()):
		return "", fmt.Errorf("address %q of a Mesos master: %q is not a port", s, u.Port())
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// hostPort completes a host with the default port. IPv6 addresses may stand
// with or without brackets when they have no port.
func hostPort(s string) (string, error) {
	if ip := net.ParseIP(strings.Trim(s, "[]")); ip != nil {
		return net.JoinHostPort(ip.String(), DefaultMasterPort), nil
	}
	whole := s
	if !strings.Contains(s, ":") {
		s += ":" + DefaultMasterPort
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("address %q of a Mesos master: %w", whole, err)
	}
	if host == "" || strings.ContainsAny(host, "/ ") || !validPort(port) {
		return "", fmt.Errorf("address %q of a Mesos master is not host:port", whole)
	}
	return net.JoinHostPort(host, port), nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
