package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// A backup is lines of JSON: a header, the records sorted by kind and key, and a
// trailer that tells whether everything is there.

// backupName is in every header, so that other files are known for what they
// are.
const backupName = "dvdi-framework state"

type backupHeader struct {
	Backup string    `json:"backup"`
	Format int       `json:"format"`
	Time   time.Time `json:"time"`
}

type backupRecord struct {
	Kind  string `json:"kind"`
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

type backupTrailer struct {
	Records int    `json:"records"`
	SHA256  string `json:"sha256"` // of all lines before
}

// WriteBackup writes records, which must be of the current format and in the
// order of kind and key.
func WriteBackup(w io.Writer, records []Write, now time.Time) error {
	digest := sha256.New()
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(io.MultiWriter(out, digest))
	if err := lines.Encode(backupHeader{backupName, FormatVersion, now.UTC()}); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	for _, r := range records {
		if err := lines.Encode(backupRecord(r)); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
	trailer := backupTrailer{len(records), hex.EncodeToString(digest.Sum(nil))}
	if err := errors.Join(json.NewEncoder(out).Encode(trailer), out.Flush()); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// ReadBackup reads a backup, brings its records to the current format, and
// returns them with the time at which it was made. Errors wrap ErrDamaged where
// the file is not a whole backup, ErrNewer where a newer program wrote it.
func ReadBackup(r io.Reader) ([]Write, time.Time, error) { return readBackup(r, current) }

func readBackup(r io.Reader, f format) ([]Write, time.Time, error) {
	b := backupReader{lines: bufio.NewReader(r), digest: sha256.New()}
	var header backupHeader
	if err := b.next(&header); err != nil || header.Backup != backupName {
		return nil, time.Time{}, fmt.Errorf("read backup: %w: it does not begin as a backup of this program does", ErrDamaged)
	}
	records, err := b.records()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read backup: %w: %w", ErrDamaged, err)
	}
	changes, err := f.migrate(header.Format, records)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read backup: %w", err)
	}
	return patched(records, changes), header.Time, nil
}

// backupReader reads a backup line by line.
type backupReader struct {
	lines  *bufio.Reader
	digest hash.Hash
}

// next decodes one line and counts it to the digest.
func (b *backupReader) next(into any) error {
	line, err := b.lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("it ends too early: %w", err)
	}
	b.digest.Write(line)
	return json.Unmarshal(line, into)
}

func (b *backupReader) records() ([]Write, error) {
	var out []Write
	for {
		before := b.digest.Sum(nil)
		var line struct {
			backupRecord
			backupTrailer
		}
		if err := b.next(&line); err != nil {
			return nil, err
		}
		if line.Kind != "" {
			value := line.Value
			if value == nil {
				value = []byte{}
			}
			out = append(out, Write{Kind: line.Kind, Key: line.Key, Value: value})
			continue
		}
		want, err := hex.DecodeString(line.SHA256)
		if err != nil || !bytes.Equal(want, before) || line.Records != len(out) {
			return nil, errors.New("its contents do not match its checksum")
		}
		return out, nil
	}
}

// patched applies changes to records.
func patched(records, changes []Write) []Write {
	now := map[recordID][]byte{}
	for _, w := range append(records, changes...) {
		if w.Value == nil {
			delete(now, recordID{w.Kind, w.Key})
		} else {
			now[recordID{w.Kind, w.Key}] = w.Value
		}
	}
	return sorted(now)
}

// Records returns all records of a store that is open.
func Records(s Store) ([]Write, error) {
	var out []Write
	err := s.Load(func(kind, key string, value []byte) error {
		out = append(out, Write{Kind: kind, Key: key, Value: append([]byte{}, value...)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	sortWrites(out)
	return out, nil
}

// A snapshot is begun anew when the state has changed meanwhile: so often where
// commits can be held up after that, and for so long where they cannot.
const (
	snapshotTries    = 20
	snapshotPatience = 30 * time.Second
)

// errChanged means that a snapshot is no state that ever was.
var errChanged = errors.New("the state changed all the time while it was read; try again when less happens")

// SnapshotZooKeeper reads the state at root as it was at one moment, without
// taking it over from the process that uses it. Where that changes it all the time
// this takes up to 30 s and may fail. Errors are *Error.
func SnapshotZooKeeper(session *zookeeper.Session, ensemble fmt.Stringer, root string) ([]Write, error) {
	s := &ZooKeeper{session: session, root: root, name: ensemble.String(), format: current}
	end := time.Now().Add(snapshotPatience)
	return s.snapshots(func(int) bool { return time.Now().Before(end) })
}

// Snapshot returns all records as they were at one moment. Commits do not wait for
// that, unless there are so many that no moment is found. Errors are *Error.
func (s *ZooKeeper) Snapshot() ([]Write, error) {
	reader := &ZooKeeper{session: s.session, root: s.root, name: s.name, format: s.format}
	records, err := reader.snapshots(func(tries int) bool { return tries < snapshotTries })
	if errors.Is(err, errChanged) {
		return Records(s)
	}
	return records, err
}

// snapshots tries until there is a snapshot, or until again says no.
func (s *ZooKeeper) snapshots(again func(tries int) bool) ([]Write, error) {
	for tries := 1; ; tries++ {
		records, err := s.snapshot()
		switch {
		case err == nil:
			return records, nil
		case !errors.Is(err, errChanged) && !errors.Is(err, zk.ErrNoNode):
			return nil, s.wrap("read", err)
		case !again(tries):
			return nil, s.wrap("read", errChanged)
		}
	}
}

func (s *ZooKeeper) snapshot() ([]Write, error) {
	before, found, err := s.peek()
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, errors.New("there is no state")
	case before.Format != s.format.version:
		return nil, fmt.Errorf("%w: it is of format %d, this program's is %d", ErrNewer, before.Format, s.format.version)
	case before.Journal != nil:
		return nil, errChanged // a commit is being applied
	}
	if s.nodes, err = listNodes(s.session, s.recordsPath()); err != nil {
		return nil, err
	}
	records, err := s.readAll()
	after, _, peekErr := s.peek()
	if peekErr != nil {
		return nil, peekErr
	}
	if after.Epoch != before.Epoch || after.Sequence != before.Sequence {
		return nil, errChanged
	}
	return records, err
}

// peek reads the fence, whose epoch and sequence change with every transaction.
func (s *ZooKeeper) peek() (f fence, found bool, err error) {
	err = s.session.Do(func(conn *zk.Conn) error {
		f, _, found, err = readFence(conn, s.fencePath())
		return err
	})
	return f, found, err
}
