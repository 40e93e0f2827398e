package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestErrorSaysEverything(t *testing.T) {
	cause := errors.New("connection reset")
	err := fmt.Errorf("outer: %w", &Error{Kind: Refused, Op: "mount", Driver: "rexray", Volume: "db", Status: 500,
		Message: "quota", Elapsed: 1500 * time.Millisecond, Hint: "see its log", Err: cause})
	for _, want := range []string{"mount", `"rexray"`, `"db"`, "500", "quota", "connection reset", "1.5s", "see its log"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if !errors.Is(err, Refused) || errors.Is(err, NotFound) || !errors.Is(err, cause) || KindOf(err) != Refused {
		t.Errorf("kinds of %v", err)
	}
}

func TestDriverUnknown(t *testing.T) {
	err := fmt.Errorf("outer: %w", &DriverUnknownError{Driver: "nosuch", Searched: []string{"/run/docker/plugins"}, Existing: []string{"rclone", "sshfs"}})
	for _, want := range []string{`"nosuch"`, "/run/docker/plugins", "rclone, sshfs", "install"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if !errors.Is(err, DriverUnknown) || KindOf(err) != DriverUnknown {
		t.Errorf("kinds of %v", err)
	}
	if KindOf(errors.New("other")) != "" || KindOf(nil) != "" {
		t.Error("kind made up")
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	s := Secrets{"password": "hunter2"}
	asJSON, err := json.Marshal(struct{ S Secrets }{s})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s", s, s, s, s), string(asJSON), fmt.Sprintf("%+v", CreateRequest{Secrets: s})} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("shown: %s", text)
		}
	}
}

func TestMountTableAt(t *testing.T) {
	table := MountTable{Mounts: []MountPoint{{Path: "/", Source: "root"}, {Path: "/a", Source: "1"}, {Path: "/a", Source: "2"}, {Path: "/a/b", Source: "3"}}}
	if top, n := table.At("/a/"); n != 2 || top.Source != "2" {
		t.Errorf("%+v %d", top, n)
	}
	if _, n := table.At("/a/b/c"); n != 0 {
		t.Errorf("%d", n)
	}
}
