package mesos

import (
	"context"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// noted is a connection that tells whether it was closed from this side.
type noted struct {
	net.Conn
	closed atomic.Bool
}

func (c *noted) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// An answer that has arrived is not lost because the end of the subscription has
// closed its connection: net/http holds a connection for idle before it hands over
// an answer without a body. That moment is held here until Run is past its end, or
// subscribes again.
func TestAnswerOutlivesTheSubscription(t *testing.T) {
	for name, end := range map[string]func(s *stream){
		"framework removed": func(s *stream) {
			message := "Framework has been removed"
			s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: message}})
		},
		"stream ended": func(*stream) {},
	} {
		t.Run(name, func(t *testing.T) {
			answered, again := make(chan struct{}), make(chan struct{})
			m := newScriptedMaster(t, func(n int, s *stream) {
				s.accept()
				if n == 1 {
					<-answered
					end(s)
					return
				}
				close(again)
				s.hold()
			})
			config := testConfig(t, m.URL)
			config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return &noted{Conn: conn}, err
			}
			c := run(t, config, "")
			expect[core.Subscribed](c)
			var conn *noted
			err := c.Teardown(httptrace.WithClientTrace(testContext(t), &httptrace.ClientTrace{
				GotConn: func(info httptrace.GotConnInfo) { conn = info.Conn.(*noted) },
				PutIdleConn: func(error) {
					close(answered)
					select {
					case <-c.done:
					case <-again:
					case <-time.After(deadline):
						t.Error("the subscription does not end")
					}
					if conn.closed.Load() {
						t.Error("the connection is closed under the answer")
					}
				},
			}))
			if err != nil {
				t.Error(err)
			}
			for start := time.Now(); !conn.closed.Load(); time.Sleep(time.Millisecond) {
				if time.Since(start) > deadline {
					t.Fatal("the connection is left open")
				}
			}
		})
	}
}
