// Package hatest holds the tests of several frameworks that share their state:
// real ZooKeeper, framework processes as an operator runs them, and the embedded
// Mesos, with whatever can go wrong between them.
package hatest
