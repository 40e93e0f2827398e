package detect

import (
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
)

// DefaultZooKeeperPort is the port of a ZooKeeper server given without one.
const DefaultZooKeeperPort = "2181"

// Ensemble is what a URL zk://[user:pass@]host[:port][,host[:port]...]/path
// names: the servers of a ZooKeeper ensemble and a node.
type Ensemble struct {
	Servers []string // host:port
	Path    string   // absolute and clean
	// Credentials is user:pass for the authentication scheme "digest", empty
	// for none.
	Credentials string
}

// String is the URL with the credentials masked, fit for logs.
func (e Ensemble) String() string {
	credentials := ""
	if e.Credentials != "" {
		credentials = "xxxx:xxxx@"
	}
	return "zk://" + credentials + strings.Join(e.Servers, ",") + e.Path
}

const zkScheme = "zk://"

// ParseEnsemble reads a zk:// URL. Its errors do not show credentials.
func ParseEnsemble(url string) (Ensemble, error) {
	rest, ok := strings.CutPrefix(url, zkScheme)
	if !ok {
		return Ensemble{}, errors.New("a ZooKeeper URL begins with zk://")
	}
	hosts, node, _ := strings.Cut(rest, "/")
	if strings.Contains(node, "@") {
		return Ensemble{}, errors.New("the credentials of a ZooKeeper URL cannot hold a slash")
	}
	e := Ensemble{Path: path.Clean("/" + node)}
	if i := strings.LastIndex(hosts, "@"); i >= 0 {
		e.Credentials, hosts = hosts[:i], hosts[i+1:]
		if user, _, both := strings.Cut(e.Credentials, ":"); !both || user == "" {
			return Ensemble{}, errors.New("the credentials of a ZooKeeper URL are user:pass@")
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		server, err := zkServer(strings.TrimSpace(host))
		if err != nil {
			return Ensemble{}, err
		}
		e.Servers = append(e.Servers, server)
	}
	return e, nil
}

func zkServer(s string) (string, error) {
	if ip := net.ParseIP(strings.Trim(s, "[]")); ip != nil {
		return net.JoinHostPort(ip.String(), DefaultZooKeeperPort), nil
	}
	if s != "" && !strings.Contains(s, ":") {
		return net.JoinHostPort(s, DefaultZooKeeperPort), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || !validPort(port) {
		return "", fmt.Errorf("ZooKeeper server %q is not host:port", s)
	}
	return s, nil
}
