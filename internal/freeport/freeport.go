// Package freeport finds TCP ports for servers that open them a while later, or
// again after a restart. A port that the kernel chooses (port 0) does not do for
// them: it is one of those that outgoing connections get as well, of any process,
// so that it may be in use when the server wants it.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// Ports are taken from lowest on, and stay below the ones that agents offer to
// their tasks by default (31000, src/slave/constants.hpp of Mesos).
const (
	lowest     = 10240
	pastLast   = 31000
	tries      = 100
	rangeOfOut = "/proc/sys/net/ipv4/ip_local_port_range"
)

// Listen listens on a free port of a host's address, such as 127.0.0.1, that no
// outgoing connection gets. Where the kernel gives them all to outgoing
// connections, or most are in use, it is any free port.
func Listen(host string) (net.Listener, error) {
	end := min(pastLast, firstOutgoing())
	for range tries {
		if end <= lowest {
			break
		}
		port := lowest + rand.IntN(end-lowest)
		if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			return l, nil
		}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	return l, nil
}

// Port is a port as Listen finds it, on 127.0.0.1, at which nothing listens any
// more when it is returned. Ports are drawn at random: two callers hardly get the
// same one.
func Port() (int, error) {
	l, err := Listen("127.0.0.1")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

// firstOutgoing is the lowest port of outgoing connections (ip(7)), that of Linux'
// default where the kernel does not tell.
func firstOutgoing() int {
	const usual = 32768
	text, err := os.ReadFile(rangeOfOut)
	if err != nil {
		return usual
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return usual
	}
	return first
}
