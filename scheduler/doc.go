// Package scheduler decides where instances run. Decide is a pure function of a
// Snapshot: no I/O, no clock, and no randomness but the given seed. The
// framework builds the Snapshot from its state and applies the Plan.
package scheduler
