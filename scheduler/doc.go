// Package scheduler decides where instances run. Decide is a pure function of a
// Snapshot: no I/O, no clock, and no randomness but the given seed. The
// framework builds the Snapshot from its state and applies the Plan.
//
// A round goes like this. Offers are merged into shares, one per agent and
// role (index.go). Instances are placed one after the other, those that can
// run on few agents first (decide.go): an instance that is bound to agents by a
// claim, a reservation or its constraints looks at these only; otherwise the
// steps of preference are tried (preference.go), then the whole cluster, by a
// search tree per class of instances (class.go, tree.go). Whether a share can
// take an instance is one function for all of these, the funnel (check.go). It
// gives the first rule that fails, and the explanations of what waits count its
// answers (explain.go, text.go). What is left of offers is declined, data that
// the user gave up is destroyed, and instances are stopped to be moved
// (economy.go, release.go, move.go).
//
// The cost of a placement does not depend on the number of agents beyond a
// lookup: nothing in the loop walks over all of them, and what is explained is
// explained once for all instances of the same shape.
//
// A decision can be written down with what it was based on, and replayed
// (record.go).
package scheduler
