package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

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
	socket := filepath.Join(a.variable("DVDCLI_RUN_DIR"), "bridge.sock")
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
