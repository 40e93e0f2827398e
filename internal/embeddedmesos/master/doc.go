// Package master is the embedded Mesos master: the v1 scheduler API and the
// operator API over HTTP, the allocator, and the health of agents, as a
// framework or an operator observes them on Apache Mesos 1.12.
//
// The authority is src/master/{master,http,validation}.cpp and
// src/master/allocator/mesos/hierarchical.cpp of apache/mesos and the recorded
// sessions in internal/embeddedmesos/testdata. One goroutine owns all state;
// HTTP requests, agents' messages and timers reach it through a mailbox, in
// order.
//
// What is not here, and is refused with a message that says so: task groups,
// custom executors, resizing of volumes, disks of resource providers,
// revocable resources, quota and weights.
package master
