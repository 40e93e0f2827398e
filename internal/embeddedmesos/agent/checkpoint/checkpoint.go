// Package checkpoint writes what must survive the agent process, in the forms
// that Apache Mesos uses: whole files that are replaced at once
// (src/slave/state.hpp) and files of length-prefixed protobuf messages
// (3rdparty/stout/include/stout/protobuf.hpp).
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxRecord bounds a record, so that a damaged length is noticed before that
// much memory is asked for.
const maxRecord = 64 << 20

// Write replaces the file's content: after a crash at any time the file has
// either the old content or the new one. Missing directories are made.
func Write(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("checkpoint %s: %w", path, err), os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return nil
}

// Message is a protobuf message as gogo/protobuf generates it.
type Message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// WriteMessage replaces the file's content by one length-prefixed message.
func WriteMessage(path string, m Message) error {
	data, err := m.Marshal()
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return Write(path, frame(data))
}

// ReadMessage reads what WriteMessage wrote. The error matches fs.ErrNotExist
// when the file is missing.
func ReadMessage(path string, m Message) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	records, _, err := split(data)
	if err == nil && len(records) != 1 {
		err = fmt.Errorf("%d messages where one is expected", len(records))
	}
	if err == nil {
		err = unmarshal(m, records[0])
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s cannot be read: %w", path, err)
	}
	return nil
}

// unmarshal guards against the panics of generated decoders on input that no
// encoder wrote.
func unmarshal(m Message, data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed message: %v", r)
		}
	}()
	return m.Unmarshal(data)
}

// Log is a file to which records are appended durably.
type Log struct{ file *os.File }

// OpenLog opens or creates the log and returns the records in it. A record
// that was not written completely, the trace of a crash, is cut off.
func OpenLog(path string) (*Log, [][]byte, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	records, err := load(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open log %s: %w", path, err), f.Close())
	}
	return &Log{file: f}, records, nil
}

func load(f *os.File) ([][]byte, error) {
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	records, whole, err := split(data)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(int64(whole)); err != nil {
		return nil, err
	}
	_, err = f.Seek(int64(whole), io.SeekStart)
	return records, err
}

// ReadLog returns the complete records of a log that another process may be
// writing. A missing file has none.
func ReadLog(path string) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	records, _, err := split(data)
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", path, err)
	}
	return records, nil
}

// Append writes one record; it is on disk when Append returns nil.
func (l *Log) Append(record []byte) error {
	if _, err := l.file.Write(frame(record)); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

func frame(record []byte) []byte {
	return append(binary.NativeEndian.AppendUint32(nil, uint32(len(record))), record...)
}

// split returns the complete records in data and how many bytes they take.
func split(data []byte) (records [][]byte, whole int, err error) {
	for len(data)-whole >= 4 {
		size := int(binary.NativeEndian.Uint32(data[whole:]))
		if size > maxRecord {
			return nil, 0, fmt.Errorf("record of %d bytes at offset %d", size, whole)
		}
		if len(data)-whole-4 < size {
			break
		}
		records = append(records, data[whole+4:whole+4+size])
		whole += 4 + size
	}
	return records, whole, nil
}
