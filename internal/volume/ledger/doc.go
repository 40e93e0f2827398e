// Package ledger keeps, on disk, what is mounted for whom and which calls to
// drivers have no answer yet. It knows no driver and no mount table; the engine
// decides, the ledger remembers.
//
// # Layout
//
// The run directory (a tmpfs; this boot):
//
//	volumes/<key>.json    one Record per driver and volume
//	locks/<key>.lock      its lock: flock(2), released by the kernel with the process
//	leases/<key>.json     until when a registered epoch counts, where it has a lease
//	refusals/<key>-<holder>.json
//	                      the holder's last mount failed and left it nothing
//	set-aside/            records that could not be read, kept for people
//	calls.*               what calls to drivers came to, see package journal
//
// The state directory (survives reboots):
//
//	mounts/<key>.json     the same Record as of the last Mount: which mount ID,
//	                      backend id and publish context a driver may still hold.
//	                      Lines with later Records may follow it, of which the last
//	                      whole one counts
//	volumes/<key>.json    a volume's Identity: backend id and context
//	drivers/<key>.json    what was learned about a driver
//	epochs/<key>.json     the Registration: under which epoch a framework may mount
//	set-aside/
//
// <key> is Key.FileName. Files are JSON objects with a "version"; the meaning
// of the fields is documented at Record, Identity, DriverFacts, Registration and
// Lease.
//
// # Versions
//
// Version 1 is current and the first that was released. A program that meets a
// higher version refuses it, leaves the file alone and never writes in its place;
// only what says so deletes it (forget, remove). It looks at the version before
// anything else, in each line of mounts/<key>.json: whatever a later format is, its
// files begin with a JSON object that has one. Fields that a program does not know
// within a version are dropped, so that one may be added in a version only if
// nothing goes wrong when a program without it writes the file again. Whatever else
// changes, such as the meaning of a field, a file that is no longer one object, or
// lines where there were none, needs a higher version. testdata/format holds what
// version 1 looks like.
//
// # Guarantees
//
// A file is replaced by writing a temporary file, fsync, rename and fsync of
// the directory, so that a crash at any point leaves the old or the new
// content. What need not be durable is added to mounts/<key>.json as a line, which
// a crash loses or leaves, too. A file that cannot be read all the same (a damaged disk, an editor)
// is moved to set-aside and reported; it stops nothing else.
//
// A record is written only under its lock. Locks of different volumes are
// independent. Reading for display needs no lock.
package ledger
