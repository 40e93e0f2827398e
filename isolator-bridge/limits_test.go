package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// dial connects to the bridge's socket.
func (a *agent) dial() *grpc.ClientConn {
	a.t.Helper()
	socket := a.socket()
	conn, err := grpc.NewClient("passthrough:///bridge", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			a.t.Error(err)
		}
	})
	return conn
}

// Wrong requests are refused with a code that says so, and oversized and
// malformed ones without harm to others.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	address := free(t)
	a.env = append(a.env, "DVDI_BRIDGE_METRICS_ADDRESS="+address)
	b := a.start()
	api := client.NewIsolatorClient(a.dial())
	ctx := soon(t)
	volume := func(name string) *client.VolumeRequest {
		return &client.VolumeRequest{Name: &client.VolumeName{Driver: "test", Name: name}}
	}
	many := &client.PrepareRequest{ContainerId: "c"}
	for n := range 65 {
		many.Volumes = append(many.Volumes, volume(fmt.Sprint(n)))
	}
	for name, test := range map[string]struct {
		request *client.PrepareRequest
		code    codes.Code
	}{
		"no id":            {&client.PrepareRequest{Volumes: []*client.VolumeRequest{volume("v")}}, codes.InvalidArgument},
		"id with a slash":  {&client.PrepareRequest{ContainerId: "../x", Volumes: []*client.VolumeRequest{volume("v")}}, codes.InvalidArgument},
		"no driver":        {&client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{{Name: &client.VolumeName{Name: "v"}}}}, codes.InvalidArgument},
		"named twice":      {&client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{volume("v"), volume("v")}}, codes.InvalidArgument},
		"too many":         {many, codes.InvalidArgument},
		"both forms":       {&client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{volume("v")}, Environment: map[string]string{"A": "b"}}, codes.InvalidArgument},
		"unknown driver":   {&client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{{Name: &client.VolumeName{Driver: "none", Name: "v"}}}}, codes.NotFound},
		"oversized":        {&client.PrepareRequest{ContainerId: "c", Environment: map[string]string{"A": strings.Repeat("x", 1<<20)}}, codes.ResourceExhausted},
		"explicit, absent": {&client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{{Name: volume("v").Name, ExplicitCreate: true}}}, codes.NotFound},
	} {
		if _, err := api.Prepare(ctx, test.request); status.Code(err) != test.code {
			t.Errorf("%s: %v, want %s", name, err, test.code)
		}
	}
	// What is no HTTP/2 at all.
	raw, err := net.Dial("unix", filepath.Join(a.variable("DVDCLI_RUN_DIR"), "bridge.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nAAAAAAAAAAAAAAAAAA")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(raw).ReadString('\n'); err == nil && !strings.HasPrefix(line, "HTTP/1.1 4") {
		t.Errorf("answered %q", line)
	}
	if err := raw.Close(); err != nil {
		t.Error(err)
	}
	if got, err := a.post(ctx, client.Isolator_Prepare_FullMethodName, strings.NewReader("\x00\x00\x00\x00\x02\xff\xff")); err != nil || got != strconv.Itoa(int(codes.Internal)) {
		t.Errorf("a message that is none: status %s, %v", got, err)
	}
	for reason, least := range map[string]int{"too_large": 1, "malformed": 2} {
		await(t, reason+" to be counted", func() bool { return refusals(t, address, reason) >= least })
	}
	if len(p.Calls("Mount")) != 0 {
		t.Error("something was mounted")
	}
	if _, err := api.Prepare(ctx, &client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{volume("v")}}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	_, err = api.Prepare(ctx, &client.PrepareRequest{ContainerId: "c", Volumes: []*client.VolumeRequest{volume("w")}})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("other volumes: %v", err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// raw connects to the bridge's socket.
func (a *agent) raw() net.Conn {
	a.t.Helper()
	conn, err := net.Dial("unix", a.socket())
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (a *agent) socket() string {
	if s := a.variable("DVDI_BRIDGE_SOCKET"); s != "" {
		return s
	}
	return filepath.Join(a.variable("DVDCLI_RUN_DIR"), "bridge.sock")
}

// drip writes a byte now and then, as long as somebody takes it.
func drip(w io.Writer, data []byte, pause time.Duration) {
	for i := range data {
		if _, err := w.Write(data[i : i+1]); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// post makes a call of the isolator's API by hand, whose body is as slow as it
// likes, and returns its status.
func (a *agent) post(ctx context.Context, method string, body io.Reader) (string, error) {
	transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", a.socket())
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bridge"+method, body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	return resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status"), nil
}

// refusals is how many requests a bridge has refused for a reason, -1 if that is
// not known yet.
func refusals(t *testing.T, address, reason string) int {
	t.Helper()
	_, text, _ := strings.Cut(scrape(t, address), `dvdi_bridge_refused_total{reason="`+reason+`"} `)
	n, _, _ := strings.Cut(text, "\n")
	count, err := strconv.Atoi(n)
	if err != nil {
		return -1
	}
	return count
}

// Whoever is slow is hung up on and counted, in whatever part of a request, and
// holds up nobody else meanwhile.
func TestSlowRequests(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	address := free(t)
	a.env = append(a.env, "DVDI_BRIDGE_METRICS_ADDRESS="+address)
	b := a.start()
	ctx := soon(t)
	var slow sync.WaitGroup
	hungUp := func(conn net.Conn, what string) {
		slow.Go(func() {
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: never hung up on", what)
			}
		})
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	silent, dripping, unsettled := a.raw(), a.raw(), a.raw()
	if _, err := silent.Write([]byte("PRI")); err != nil {
		t.Fatal(err)
	}
	slow.Go(func() { drip(dripping, []byte(preface), 500*time.Millisecond) })
	if _, err := unsettled.Write([]byte(preface)); err != nil { // and no SETTINGS
		t.Fatal(err)
	}
	hungUp(silent, "a preface that stops")
	hungUp(dripping, "a preface that drips")
	hungUp(unsettled, "a connection without settings")
	// A frame says that 1000 bytes follow.
	frame := append([]byte{0, 0, 0, 3, 0xe8}, make([]byte, 1000)...)
	deadline := strconv.Itoa(int(codes.DeadlineExceeded))
	for what, method := range map[string]string{"a call": client.Isolator_Prepare_FullMethodName, "a stream": client.Isolator_Watch_FullMethodName} {
		never, hold := io.Pipe()
		slow.Go(func() {
			if got, err := a.post(ctx, method, never); err != nil || got != deadline {
				t.Errorf("%s whose request never comes: status %s, %v", what, got, err)
			}
			_ = hold.Close()
		})
		r, w := io.Pipe()
		slow.Go(func() { drip(w, frame, 100*time.Millisecond) })
		slow.Go(func() {
			if got, err := a.post(ctx, method, r); err != nil || got != deadline {
				t.Errorf("%s whose request drips: status %s, %v", what, got, err)
			}
			_ = r.Close()
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		slow.Wait()
	}()
	api := client.NewIsolatorClient(a.dial())
	for calls := 0; ; calls++ {
		if _, err := api.ListVolumes(ctx, &client.ListVolumesRequest{}); err != nil {
			t.Fatalf("another call, after %d: %v", calls, err)
		}
		select {
		case <-done:
		case <-time.After(20 * time.Millisecond):
			continue
		}
		break
	}
	await(t, "all to be counted", func() bool { return refusals(t, address, "too_slow") >= 6 })
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Connections that say nothing are bounded, and those of users that may not use
// the API take nobody's place.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	dir, err := os.MkdirTemp("", "dvdi-idle-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	address := free(t)
	a.env = append(a.env, "DVDI_BRIDGE_SOCKET="+filepath.Join(dir, "s"), "DVDI_BRIDGE_METRICS_ADDRESS="+address)
	b := a.start()
	b.awaitLog(`"recovered"`)
	const many = 100
	open := func(uid int) (conns []net.Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			// Only this thread becomes the other user, and it ends with the
			// goroutine as it is not unlocked.
			runtime.LockOSThread()
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				t.Error(errno)
				return
			}
			for range many {
				conn, err := net.Dial("unix", a.socket())
				if err != nil {
					t.Error(err)
					return
				}
				conns = append(conns, conn)
			}
		}()
		<-done
		return conns
	}
	tooMany := func() int { return refusals(t, address, "too_many") }
	conns := open(65534)
	await(t, "the strangers to be bounded", func() bool { return tooMany() >= many-10 })
	if _, err := a.bridgeCLI("report"); err != nil {
		t.Errorf("beside idle strangers: %v", err)
	}
	before := tooMany()
	conns = append(conns, open(0)...)
	await(t, "the others to be bounded", func() bool { return tooMany() > before })
	// They are hung up on for their silence, and there is room again.
	await(t, "room", func() bool {
		_, err := a.bridgeCLI("report")
		return err == nil
	})
	for _, c := range conns {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// The API describes itself.
func TestReflection(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	b := a.start()
	stream, err := reflectionpb.NewServerReflectionClient(a.dial()).ServerReflectionInfo(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || !strings.Contains(answer.String(), "dvdi.bridge.v1.Isolator") {
		t.Errorf("%v, %v", answer, err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Who watches hears of what happens, from the first message on.
func TestWatch(t *testing.T) {
	t.Parallel()
	needMounts(t)
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	a := newAgent(t, p)
	b := a.start()
	api := client.NewIsolatorClient(a.dial())
	ctx := soon(t)
	stream, err := api.Watch(ctx, &client.WatchRequest{ContainerId: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(kind client.Event_Kind) {
		t.Helper()
		e, err := stream.Recv()
		if err != nil || e.GetKind() != kind {
			t.Fatalf("%v, %v, want %s", e, err, kind)
		}
	}
	expect(client.Event_READY)
	for _, id := range []string{"c1", "c2"} {
		if _, err := api.Prepare(ctx, &client.PrepareRequest{ContainerId: id, Volumes: []*client.VolumeRequest{{Name: &client.VolumeName{Driver: "test", Name: "v-" + id}}}}); err != nil {
			t.Fatal(err)
		}
	}
	expect(client.Event_MOUNTED)
	// The bridge looks at the volume when the mount table changes.
	await(t, "the volume to be in order", func() bool {
		list, err := api.ListVolumes(ctx, &client.ListVolumesRequest{})
		return err == nil && len(list.GetVolumes()) == 2 && len(list.GetVolumes()[0].GetContainers()) == 1
	})
	if err := unmountAt(p.Mountpoint("v-c1")); err != nil {
		t.Fatal(err)
	}
	expect(client.Event_BROKEN)
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}
