package top

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

func list() *client.ListVolumesResponse {
	name := func(n string) *client.VolumeName { return &client.VolumeName{Driver: "d", Name: n} }
	return &client.ListVolumesResponse{Agent: "it answers", Volumes: []*client.VolumeStatus{
		{Name: name("a-fine"), Phase: "mounted", Holders: []string{"mesos-agent:/x"}, Containers: []*client.Container{{Id: "c1", TaskId: "web.1", Live: true}}},
		{Name: name("b-busy"), Phase: "new", Call: "mount", CallAge: durationpb.New(7 * time.Second)},
		{Name: name("c-leaked"), Phase: "mounted", LeakedSince: timestamppb.Now(), Containers: []*client.Container{{Id: "c9"}}},
		{Name: name("d-evil\x1b[2J"), Phase: "pending-unmount", Attempts: 3, Problem: "busy\x1b]0;x\a"},
	}}
}

// What needs attention comes first, and nothing that a volume is called can
// write on the terminal.
func TestRender(t *testing.T) {
	text := Render(list(), nil, 0, 0)
	last := -1
	for _, want := range []string{"d-evil", "c-leaked", "b-busy", "a-fine"} {
		at := strings.Index(text, want)
		if at <= last {
			t.Errorf("%s is at %d, after %d: %s", want, at, last, text)
		}
		last = at
	}
	for _, want := range []string{"4 volumes: 2 mounted, 1 unmounts owed, 0 watched, 1 leaked, 1 calls in flight", "mount 7s", "tried 3 times", "web.1", "c9 (gone)", "agent: it answers", "mesos-agent:/x"} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q: %s", want, text)
		}
	}
	if strings.ContainsAny(text, "\x1b\a") {
		t.Errorf("control characters: %q", text)
	}
}

func TestRenderFitsTheTerminal(t *testing.T) {
	for _, size := range [][2]int{{20, 5}, {80, 24}, {1, 1}} {
		lines := strings.Split(strings.TrimSuffix(Render(list(), errors.New("gone"), size[0], size[1]), "\n"), "\n")
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if len([]rune(l)) > size[0] {
				t.Errorf("%v: %q", size, l)
			}
		}
	}
	if text := Render(nil, errors.New("connection refused"), 0, 0); !strings.Contains(text, "DOES NOT ANSWER: connection refused") {
		t.Errorf("%s", text)
	}
}
