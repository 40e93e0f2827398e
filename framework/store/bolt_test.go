package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("DVDI_TEST_COMMIT_AND_DIE"); dir != "" {
		commitAndDie(dir)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, dir string) *Bolt {
	t.Helper()
	s, err := OpenBolt(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reopened returns all records after closing and opening the store.
func reopened(t *testing.T, s *Bolt) (*Bolt, map[string]string) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, filepath.Dir(s.path))
	return s, records(t, s)
}

func records(t *testing.T, s Store) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := s.Load(func(kind, key string, value []byte) error {
		out[kind+" "+key] = string(value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEachStepSurvivesReopening(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "new", "dir"))
	steps := []struct {
		writes []Write
		want   map[string]string
	}{
		{nil, map[string]string{}},
		{[]Write{{"app", "/a", []byte("1")}, {"task", "t", []byte("x")}}, map[string]string{"app /a": "1", "task t": "x"}},
		{[]Write{{"app", "/a", []byte("2")}}, map[string]string{"app /a": "2", "task t": "x"}},
		{[]Write{{"app", "/a", nil}, {"app", "/b", []byte("3")}}, map[string]string{"app /b": "3", "task t": "x"}},
		{[]Write{{"task", "unknown", nil}}, map[string]string{"app /b": "3", "task t": "x"}},
	}
	for n, step := range steps {
		if err := s.Commit(step.writes); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if s, got = reopened(t, s); !maps.Equal(got, step.want) {
			t.Fatalf("step %d: %v, want %v", n, got, step.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCommitIsAllOrNothing(t *testing.T) {
	s := open(t, t.TempDir())
	// bbolt refuses the empty key: the second write fails.
	err := s.Commit([]Write{{"app", "/a", []byte("1")}, {"app", "", []byte("2")}})
	if err == nil || !strings.Contains(err.Error(), s.path) {
		t.Fatalf("error %v does not name the file", err)
	}
	s, got := reopened(t, s)
	if len(got) != 0 {
		t.Fatalf("half a transaction: %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLoadReturnsTheCallersError(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	if err := s.Commit([]Write{{"app", "/a", []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	if err := s.Load(func(string, string, []byte) error { return mine }); err != mine {
		t.Fatalf("got %v", err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	_, err := OpenBolt(filepath.Dir(s.path))
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), s.path) || !strings.Contains(err.Error(), "stop the other") {
		t.Fatalf("got %v", err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	err := s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketFormat).Put(keyVersion, binary.BigEndian.AppendUint32(nil, FormatVersion+1))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBolt(dir); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "start the version that wrote it") {
		t.Fatalf("got %v", err)
	}
}

func TestDamagedFileIsLeftAsItIs(t *testing.T) {
	for name, content := range map[string][]byte{
		"garbage":   bytes.Repeat([]byte("no database "), 5000),
		"zeros":     make([]byte, 32768),
		"truncated": []byte("short"),
		"empty":     {},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, fileName)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenBolt(dir)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: got %v", name, err)
		}
		if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, content) {
			t.Errorf("%s: the file was changed (%v)", name, err)
		}
	}
}

func TestDirectoryThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBolt(filepath.Join(file, "dir")); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Fatalf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit([]Write{{"app", "/a", nil}}); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if err := s.Load(func(string, string, []byte) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Load: %v", err)
	}
}

// commitAndDie is what the child process of TestCommitSurvivesSIGKILL does.
func commitAndDie(dir string) {
	s, err := OpenBolt(dir)
	if err == nil {
		err = s.Commit([]Write{{"app", "/a", []byte("1")}})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	os.Stderr.WriteString(errors.Join(err, errors.New("still alive")).Error())
	select {}
}

func TestCommitSurvivesSIGKILL(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "DVDI_TEST_COMMIT_AND_DIE="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child was not killed: %v %s", err, out)
	}
	s := open(t, dir)
	defer s.Close()
	if got := records(t, s); got["app /a"] != "1" {
		t.Fatalf("after SIGKILL: %v", got)
	}
}
