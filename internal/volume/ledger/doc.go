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
// of the fields is documented at Record, Identity and DriverFacts. Version 1 is
// current. A program that meets a higher version refuses it and leaves the file
// alone; fields that it does not know within a version are dropped.
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
