package checkpoint_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
)

// A message is stored with its length in front, as stout does.
func TestMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "file")
	var missing mesos.FrameworkID
	if err := checkpoint.ReadMessage(path, &missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, value := range []string{"first", "second and longer"} {
		if err := checkpoint.WriteMessage(path, &mesos.FrameworkID{Value: value}); err != nil {
			t.Fatal(err)
		}
		var got mesos.FrameworkID
		if err := checkpoint.ReadMessage(path, &got); err != nil || got.Value != value {
			t.Errorf("got %v, %v", got, err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(data, []byte{byte(len(data) - 4), 0, 0, 0}) {
		t.Errorf("file is % x, %v", data, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
}

// Files that nobody wrote like this are refused, not misread.
func TestDamagedMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, data := range []string{"", "\x05\x00\x00\x00ab", "\xff\xff\xff\x7fab", "\x02\x00\x00\x00\x0a\x09", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkpoint.ReadMessage(path, &mesos.FrameworkID{}); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", data, err)
		}
	}
}

// However a crash cuts a log off, the records that were complete are read, and
// the log can be continued.
func TestLogSurvivesACut(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, "log")
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		records := rapid.SliceOfN(rapid.SliceOf(rapid.Byte()), 0, 5).Draw(t, "records")
		write(t, path, records...)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cut := rapid.IntRange(0, len(data)).Draw(t, "cut")
		if err := os.Truncate(path, int64(cut)); err != nil {
			t.Fatal(err)
		}
		complete := 0
		for size := 0; complete < len(records); complete++ {
			if size += 4 + len(records[complete]); size > cut {
				break
			}
		}
		expect(t, path, records[:complete])
		write(t, path, []byte("new"))
		expect(t, path, append(append([][]byte(nil), records[:complete]...), []byte("new")))
	})
}

func write(t *rapid.T, path string, records ...[]byte) {
	log, _, err := checkpoint.OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := log.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func expect(t *rapid.T, path string, want [][]byte) {
	got, err := checkpoint.ReadLog(path)
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %d records, want %d: %v", len(got), len(want), err)
	}
	for n := range want {
		if !bytes.Equal(got[n], want[n]) {
			t.Fatalf("record %d: got %q, want %q", n, got[n], want[n])
		}
	}
}
