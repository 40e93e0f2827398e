package inputfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPipeWithoutWriter(t *testing.T) {
	path := fifo(t)
	if data, err := read(path, time.Millisecond); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "nobody writes") {
		t.Errorf("%q, %v", data, err)
	}
	f, err := open(path, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err == nil || !strings.Contains(err.Error(), "nobody writes") {
		t.Errorf("%d, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// A writer may come late, take its time, and write more than a pipe holds.
func TestPipeWithWriter(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	path := fifo(t)
	wrote := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			if _, err = f.Write(content[:1]); err == nil {
				time.Sleep(20 * time.Millisecond) // longer than the reader's patience, while the pipe is open
				_, err = f.Write(content[1:])
			}
			err = errors.Join(err, f.Close())
		}
		wrote <- err
	}()
	data, err := read(path, time.Minute)
	if err != nil || !bytes.Equal(data, content) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// An open pipe is waited for, however little patience there is.
func TestPipeWhoseWriterIsSlow(t *testing.T) {
	r, w, err := os.Pipe() // as <(command) gives it
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan string, 1)
	go func() {
		data, err := read(fmt.Sprintf("/dev/fd/%d", r.Fd()), 0)
		done <- fmt.Sprint(string(data), err)
	}()
	time.Sleep(20 * time.Millisecond)
	if _, err := w.WriteString("late"); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := <-done; got != "late<nil>" {
		t.Error(got)
	}
}

// A command that writes nothing gives nothing, at once: its pipe had a writer.
func TestEmptyPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := read(fmt.Sprintf("/dev/fd/%d", r.Fd()), time.Hour); err != nil || len(data) != 0 {
		t.Errorf("%q, %v", data, err)
	}
}

func TestOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"", "some text\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := Read(path); err != nil || string(data) != text {
			t.Errorf("%q, %v", data, err)
		}
	}
	if data, err := Read(os.DevNull); err != nil || len(data) != 0 {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := Read(filepath.Join(path, "missing")); err == nil {
		t.Error("a file below a file was read")
	}
	if _, err := Read(filepath.Dir(path) + "/missing"); !os.IsNotExist(err) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Read(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := KeyPair(path, filepath.Join(filepath.Dir(path), "missing")); !os.IsNotExist(err) {
		t.Errorf("a key that is missing: %v", err)
	}
}
