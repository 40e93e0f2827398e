package freeport

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
)

func TestListensOnNoPortOfOutgoingConnections(t *testing.T) {
	if firstOutgoing() <= lowest {
		t.Skip("this kernel gives all ports to outgoing connections")
	}
	for range 50 {
		l, err := Listen("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if port := l.Addr().(*net.TCPAddr).Port; port < lowest || port >= firstOutgoing() || port >= pastLast {
			t.Errorf("port %d", port)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A port can be listened on by those who name it, one after the other.
func TestPortCanBeUsedAgainAndAgain(t *testing.T) {
	port, err := Port()
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 3 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := net.Listen("tcp", address); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second listener: %v", err)
		}
		near, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The server ends first: its connections are those that linger.
		far.Close()
		l.Close()
		near.Close()
		if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v, %v", conn, err)
		}
	}
}

// What does not say SO_REUSEADDR, as nobody needs to who asks for any port, cannot
// have it, and Port gives it to no one else.
func TestPortIsKept(t *testing.T) {
	kept, err := Port()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: kept, Addr: [4]byte{127, 0, 0, 1}})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a stranger binds to it: %v", err)
	}
}

func TestListenOnAnAddressThatIsNotHere(t *testing.T) {
	if l, err := Listen("192.0.2.1"); err == nil {
		t.Errorf("listens on %s", l.Addr())
	}
}
