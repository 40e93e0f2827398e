package freeport

import (
	"net"
	"strconv"
	"testing"
)

func TestPortIsNotOneOfOutgoingConnections(t *testing.T) {
	if firstOutgoing() <= lowest {
		t.Skip("this kernel gives all ports to outgoing connections")
	}
	for range 50 {
		port, err := Port()
		if err != nil {
			t.Fatal(err)
		}
		if port < lowest || port >= firstOutgoing() || port >= pastLast {
			t.Errorf("port %d", port)
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestListenOnAnAddressThatIsNotHere(t *testing.T) {
	if l, err := Listen("192.0.2.1"); err == nil {
		t.Errorf("listens on %s", l.Addr())
	}
}
