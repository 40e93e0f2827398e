package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A file system that hangs is asked once, however often somebody wants to know,
// and those that come later wait no more.
func TestHungFileSystemIsAskedOnce(t *testing.T) {
	var d disks
	u := &client.VolumeUsage{MountPath: t.TempDir()}
	if d.usage(context.Background(), u); u.Problem != "" || u.TotalBytes == 0 {
		t.Fatalf("%v", u)
	}
	hanging := &diskAsk{since: time.Now().Add(-time.Minute), done: make(chan struct{})}
	d.asked = map[string]*diskAsk{"/hung": hanging}
	for range 3 {
		u := &client.VolumeUsage{MountPath: "/hung"}
		if d.usage(context.Background(), u); !strings.Contains(u.Problem, "has not answered since") {
			t.Errorf("%v", u)
		}
	}
	if d.asked["/hung"] != hanging {
		t.Error("asked again")
	}
	close(hanging.done)
	u = &client.VolumeUsage{MountPath: "/hung"}
	if d.usage(context.Background(), u); u.Problem != "" {
		t.Errorf("answered late: %v", u)
	}
	u = &client.VolumeUsage{MountPath: "/nonexistent"}
	if d.usage(context.Background(), u); !strings.Contains(u.Problem, "no such file") {
		t.Errorf("%v", u)
	}
}
