//go:build faultpoints

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/store"
)

// fault is what the file that DVDI_FAULT_FILE names holds, as JSON: what happens
// to this process at which of its commits, counted from 1 since the file is
// there with just this content. The file is removed when it happens.
type fault struct {
	Commit int `json:"commit"`
	// Text counts only the commits with a record that holds it.
	Text string `json:"text"`
	// After: when the commit is written and nothing that follows from it has been
	// done, instead of before it is written.
	After bool `json:"after"`
	// Stop freezes the process, as SIGSTOP does, instead of killing it, as SIGKILL
	// does. After SIGCONT the commit goes on once the file with ".go" behind its
	// name exists.
	Stop bool `json:"stop"`
}

// withFaults makes this process fail at its commits as tests want it to.
func withFaults(st store.Store) store.Store {
	file := os.Getenv("DVDI_FAULT_FILE")
	if file == "" {
		return st
	}
	return &faultyStore{Store: st, file: file}
}

type faultyStore struct {
	store.Store
	file string

	mu    sync.Mutex // guards what follows
	armed []byte     // the file's content when commits were last counted
	count int
}

func (s *faultyStore) Commit(writes []store.Write) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, now := s.due(writes)
	if now && !f.After {
		s.happen(f)
	}
	if err := s.Store.Commit(writes); err != nil {
		return err
	}
	if now && f.After {
		s.happen(f)
	}
	return nil
}

// due tells whether the fault happens at this commit.
func (s *faultyStore) due(writes []store.Write) (f fault, now bool) {
	content, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		s.armed = nil
		return f, false
	}
	if err == nil {
		err = json.Unmarshal(content, &f)
	}
	if err != nil {
		panic(err)
	}
	if !bytes.Equal(content, s.armed) {
		s.armed, s.count = content, 0
	}
	if slices.ContainsFunc(writes, func(w store.Write) bool { return bytes.Contains(w.Value, []byte(f.Text)) }) {
		s.count++
	}
	return f, s.count == f.Commit
}

func (s *faultyStore) happen(f fault) {
	if err := os.Remove(s.file); err != nil {
		panic(err)
	}
	signal := syscall.SIGKILL
	if f.Stop {
		signal = syscall.SIGSTOP
	}
	if err := syscall.Kill(os.Getpid(), signal); err != nil {
		panic(err)
	}
	// Signals take a moment to reach all threads.
	for !f.Stop || !s.mayGo() {
		time.Sleep(time.Millisecond)
	}
}

func (s *faultyStore) mayGo() bool {
	err := os.Remove(s.file + ".go")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		panic(err)
	}
	return err == nil
}
