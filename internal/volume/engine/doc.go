// Package engine mounts and unmounts volumes through any driver, each mount and
// each unmount once, whatever crashes in between. It works on a ledger that
// dvdcli's one-shot processes and the isolator-bridge share; everything it
// needs to know between two calls is in there.
//
// Every operation on a volume has four steps: take the volume's lock; settle
// what earlier calls left behind; write down what is about to be asked of the
// driver and ask; write down the answer. A crash after any of them is repaired
// by the settling of the next operation, from three witnesses: the ledger, the
// mount table and, last, what the driver claims.
package engine
