//go:build faultpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/mesos-dvdi/dvdi/framework/store"
)

// withFaults kills this process as SIGKILL would, at the commit that
// DVDI_FAULT_COMMIT names: "3:before" is before the third is written, "3:after"
// when it is written and nothing that follows from it has been done.
func withFaults(st store.Store) store.Store {
	number, when, found := strings.Cut(os.Getenv("DVDI_FAULT_COMMIT"), ":")
	if !found {
		return st
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		panic("DVDI_FAULT_COMMIT: " + err.Error())
	}
	return &faultyStore{Store: st, left: n, after: when == "after"}
}

type faultyStore struct {
	store.Store
	after bool

	mu   sync.Mutex // guards left
	left int
}

func (s *faultyStore) Commit(writes []store.Write) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
	if s.left == 0 && !s.after {
		die()
	}
	if err := s.Store.Commit(writes); err != nil {
		return err
	}
	if s.left == 0 {
		die()
	}
	return nil
}

func die() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {}
}
