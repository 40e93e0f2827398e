// Package journal tells what calls to volume drivers came to, beyond the
// process that made them: dvdcli lives for one call and nobody can ask it for
// its metrics. Observe notes calls; a Journal writes them down in the run
// directory; a Reader, in the isolator-bridge, counts each of them once.
//
// # Files
//
//	calls.log     calls as they ended, one JSON object per line
//	calls.1.log   those before, once calls.log was full
//	calls.read    how far a Reader has come
//
// The journal is for measurements only: nothing is decided by it, any of its
// files can be deleted at any time, and what cannot be written is lost. It takes
// one write without fsync for each call, waits for nobody, and is bounded: when
// both files are full and nobody has read them, the older one goes.
package journal
