package store

import (
	"bytes"
	"encoding/binary"
	"errors"
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
