package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
)

// peerListener tells who is at the other end of each connection: the kernel
// keeps the credentials of the process that connected (SO_PEERCRED, unix(7)).
type peerListener struct{ *Socket }

// Accept implements net.Listener. A peer without credentials is an unknown user.
func (l peerListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	addr := peerAddr{Addr: conn.RemoteAddr(), err: errors.New("its user cannot be told")}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			var cred *unix.Ucred
			if cred, addr.err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); addr.err == nil {
				addr.uid, addr.pid = int(cred.Uid), int(cred.Pid)
			}
		})
	}
	if err != nil {
		addr.err = err
	}
	return peerConn{Conn: conn, addr: addr}, nil
}

type peerConn struct {
	net.Conn
	addr peerAddr
}

// RemoteAddr implements net.Conn.
func (c peerConn) RemoteAddr() net.Addr { return c.addr }

// peerAddr is an address with the process behind it.
type peerAddr struct {
	net.Addr
	uid, pid int
	err      error
}

// String implements net.Addr.
func (a peerAddr) String() string {
	return fmt.Sprintf("process %d of user %d", a.pid, a.uid)
}

// userOf is the user of the process at an address, if that is known.
func userOf(addr net.Addr) (uid int, known bool) {
	a, isUnix := addr.(peerAddr)
	return a.uid, isUnix && a.err == nil
}

// admit refuses calls of users that are not allowed, before anything is read of
// their requests.
func admit(allowed []int, counter access.Counter) tap.ServerInHandle {
	return func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		p, ok := peer.FromContext(ctx)
		if ok {
			if uid, known := userOf(p.Addr); known && slices.Contains(allowed, uid) {
				return ctx, nil
			}
		}
		if counter != nil {
			counter(access.OtherUser)
		}
		who := "unknown"
		if ok {
			who = p.Addr.String()
		}
		return ctx, status.Errorf(codes.PermissionDenied, "%s may not use this bridge; allow the user with --allow-users", who)
	}
}
