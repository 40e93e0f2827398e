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
	"syscall"
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

// Port is a port of 127.0.0.1 for a server, of this process or another, that opens
// it later, or again after its end. It is kept until this process ends: nobody
// gets it who asks for any port, be it to listen or for the near end of a
// connection, and no other caller of Port. Servers that name it can listen if they
// set SO_REUSEADDR, as those in Go and Java do: a socket is bound to it that does not
// listen (Linux, inet_csk_bind_conflict in net/ipv4/inet_connection_sock.c).
func Port() (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port, err := bind(fd)
	if err != nil {
		_ = syscall.Close(fd) // the first error says it all
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

// bind binds the socket to a port that nobody uses or keeps.
func bind(fd int) (int, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	v4, ok := address.(*syscall.SockaddrInet4)
	if !ok {
		return 0, fmt.Errorf("the socket is bound to %T", address)
	}
	return v4.Port, nil
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
