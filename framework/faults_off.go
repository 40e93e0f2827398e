//go:build !faultpoints

package main

import "github.com/mesos-dvdi/dvdi/framework/store"

// withFaults is nothing in a program that is not built for crash tests.
func withFaults(st store.Store) store.Store { return st }
