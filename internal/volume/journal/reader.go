package journal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Reader reads the calls that were written down in a run directory, each once,
// over restarts of its process, too. It is not safe for concurrent use; a run
// directory has one Reader.
//
// How far it has come is written down after the calls were handed out: a crash
// in between hands them out again.
type Reader struct {
	dir string
	// position is how far each file was read, by the id of the file.
	position map[string]int64
	// seen are the files as they were then, nil before the first Read.
	seen map[string]os.FileInfo
}

// Lost is what a Reader cannot hand out.
type Lost struct {
	// Overrun says that calls were written faster than they were read, so that
	// some are gone. How many is not known.
	Overrun bool
	// Damaged counts lines that are no calls.
	Damaged int
}

// NewReader makes a Reader that goes on where the last one of this run directory
// stopped. The error says that this is not known: all that is there will be
// handed out again. The Reader can be used all the same.
func NewReader(runDir string) (*Reader, error) {
	r := &Reader{dir: runDir, position: map[string]int64{}}
	data, err := os.ReadFile(filepath.Join(runDir, positionName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	position := map[string]int64{}
	if err == nil {
		err = json.Unmarshal(data, &position)
	}
	if err != nil {
		return r, fmt.Errorf("how far the journal of calls was read: %w", err)
	}
	if position != nil {
		r.position = position
	}
	return r, nil
}

// Read hands out what was written since the last time, the older calls first as
// far as that can be told. It costs two looks at the directory when there is
// nothing new.
func (r *Reader) Read(take func(Call)) (lost Lost, err error) {
	seen, err := r.look()
	if err != nil || r.seen != nil && same(seen, r.seen) {
		return lost, err
	}
	files, err := r.open()
	if err != nil {
		return lost, err
	}
	known := func(f *file) bool { _, ok := r.position[f.id]; return ok }
	lost.Overrun = len(r.position) > 0 && !slices.ContainsFunc(files, known)
	position := map[string]int64{}
	for _, f := range files {
		end, damaged, readErr := f.read(r.position[f.id], take)
		position[f.id] = end
		lost.Damaged += damaged
		err = errors.Join(err, readErr, f.Close())
	}
	// What was handed out must not be again, whatever happened.
	moved := !maps.Equal(position, r.position)
	r.position = position
	if err != nil {
		return lost, fmt.Errorf("journal of calls: %w", err)
	}
	if moved {
		if err := r.keep(); err != nil {
			return lost, fmt.Errorf("how far the journal of calls was read: %w", err)
		}
	}
	r.seen = seen
	return lost, nil
}

// look tells the files as they are.
func (r *Reader) look() (map[string]os.FileInfo, error) {
	seen := map[string]os.FileInfo{}
	for _, name := range []string{currentName, olderName} {
		st, err := os.Lstat(filepath.Join(r.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("journal of calls: %w", err)
		}
		if err == nil {
			seen[name] = st
		}
	}
	return seen, nil
}

// same says that nothing was written in between: files only grow.
func same(a, b map[string]os.FileInfo) bool {
	return maps.EqualFunc(a, b, func(x, y os.FileInfo) bool { return os.SameFile(x, y) && x.Size() == y.Size() })
}

// open opens the files, the older one first in the result. The current one is
// opened first: should it become the older one meanwhile, it is found twice,
// which shows, and not missed.
func (r *Reader) open() ([]*file, error) {
	var files []*file
	for _, name := range []string{currentName, olderName} {
		f, err := openFile(filepath.Join(r.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			for _, other := range files {
				err = errors.Join(err, other.Close())
			}
			return nil, fmt.Errorf("journal of calls: %w", err)
		}
		if f.id == "" || len(files) > 0 && files[0].id == f.id {
			if err := f.Close(); err != nil {
				return nil, fmt.Errorf("journal of calls: %w", err)
			}
			continue
		}
		files = append(files, f)
	}
	slices.Reverse(files)
	return files, nil
}

// keep writes down how far the files were read, not durably: it is about this
// boot.
func (r *Reader) keep() error {
	data, err := json.Marshal(r.position)
	if err != nil {
		return err
	}
	name := filepath.Join(r.dir, positionName)
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// file is one of the files, open.
type file struct {
	*os.File
	// id is a digest of its first line, empty while it has none.
	id string
}

func openFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	first := make([]byte, maxLine)
	n, err := f.ReadAt(first, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, f.Close())
	}
	out := &file{File: f}
	if end := bytes.IndexByte(first[:n], '\n'); end >= 0 || n == maxLine {
		sum := sha256.Sum256(first[:max(end, 0)])
		out.id = hex.EncodeToString(sum[:8])
	}
	return out, nil
}

// read hands out the calls from an offset on and returns the end of the last
// complete line. A line that is no call is counted and left out.
func (f *file) read(from int64, take func(Call)) (end int64, damaged int, err error) {
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return from, 0, err
	}
	r := bufio.NewReaderSize(f, maxLine)
	end = from
	for tooLong := false; ; {
		text, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			tooLong = true
			end += int64(len(text))
			continue
		case errors.Is(err, io.EOF):
			return end, damaged, nil // the rest of the line is to come
		case err != nil:
			return end, damaged, err
		}
		end += int64(len(text))
		if c, ok := parse(text); ok && !tooLong {
			take(c)
		} else {
			damaged++
		}
		tooLong = false
	}
}

// parse reads a line. Kinds and outcomes that are unknown are no calls: what
// they are used for is bounded by there being few.
func parse(text []byte) (Call, bool) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return Call{}, false
	}
	took := time.Duration(l.Seconds * float64(time.Second))
	c := Call{Driver: l.Driver, Kind: l.Kind, Outcome: l.Outcome, Took: took}
	return c, c.Driver != "" && took >= 0 && slices.Contains(Kinds(), c.Kind) && slices.Contains(Outcomes(), c.Outcome)
}
