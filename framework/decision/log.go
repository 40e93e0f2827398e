// Package decision keeps a log of placement decisions, each with everything
// that it was made from, so that it can be made again elsewhere: by the replay
// subcommand, or in a test.
package decision

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Config says where decisions are kept and how much room they may take.
type Config struct {
	// File receives the newest decisions, one line of JSON each; older ones are
	// in File.1, File.2 and so on.
	File string
	// MaxBytes is the size of one file and Files how many there are at most;
	// together they bound the room on disk. Zero means 64 MiB and 4.
	MaxBytes int64
	Files    int
}

// Defaults of Config.
const (
	DefaultMaxBytes = 64 << 20
	DefaultFiles    = 4
)

// queued bounds how many decisions wait to be written: a slow disk must not
// hold up the framework, nor may its memory grow.
const queued = 16

// Log writes decisions. Record may be called from any goroutine; Close once.
type Log struct {
	cfg   Config
	log   *zap.Logger
	queue chan scheduler.Record
	done  chan struct{}

	mu     sync.Mutex // guards what follows
	closed bool

	// Below belongs to the writing goroutine.
	file *os.File
	size int64
}

// Open continues the log in cfg.File. It fails when the file cannot be written.
func Open(cfg Config, log *zap.Logger) (*Log, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.Files <= 0 {
		cfg.Files = DefaultFiles
	}
	l := &Log{cfg: cfg, log: log, queue: make(chan scheduler.Record, queued), done: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the log of decisions: %w", err)
	}
	go l.write()
	return l, nil
}

// open opens the current file. A line that a crash left unfinished is ended, so
// that it spoils nothing but itself.
func (l *Log) open() error {
	if err := os.MkdirAll(filepath.Dir(l.cfg.File), 0o755); err != nil {
		return err
	}
	// It names apps, agents and volumes: for the framework's user only.
	f, err := os.OpenFile(l.cfg.File, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := endLine(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, size
	return nil
}

func endLine(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if last[0] == '\n' {
		return info.Size(), nil
	}
	n, err := f.WriteString("\n")
	return info.Size() + int64(n), err
}

// Record queues a decision that was about something: those with nothing to
// place and nothing to do are left out. It never blocks; where the disk is too
// slow decisions are dropped, which is logged. The record must not be changed
// afterwards.
func (l *Log) Record(r scheduler.Record) {
	if !worth(&r) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	select {
	case l.queue <- r:
	default:
		l.log.Warn("a decision is not logged: the disk is too slow", zap.String("file", l.cfg.File))
	}
}

func worth(r *scheduler.Record) bool {
	p := &r.Plan
	return len(r.Snapshot.Pending) > 0 || len(r.Snapshot.Wiped) > 0 || len(p.Accepts) > 0 || len(p.Kills) > 0 || len(p.Leftovers) > 0
}

// write is the goroutine that Close waits for.
func (l *Log) write() {
	defer close(l.done)
	for r := range l.queue {
		if err := l.append(r); err != nil {
			l.log.Error("a decision is not logged", zap.String("file", l.cfg.File), zap.Error(err))
		}
	}
}

func (l *Log) append(r scheduler.Record) error {
	line, err := scheduler.EncodeRecord(r)
	if err != nil {
		return err
	}
	if int64(len(line)) > l.cfg.MaxBytes {
		return fmt.Errorf("it takes %d bytes and a file may have %d: allow for larger files", len(line), l.cfg.MaxBytes)
	}
	if l.file == nil || l.size+int64(len(line)) > l.cfg.MaxBytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return err
}

// rotate moves each file to the next number, the oldest out, and starts anew.
func (l *Log) rotate() error {
	if l.file != nil {
		err := l.file.Close()
		l.file = nil
		if err != nil {
			return err
		}
		for n := l.cfg.Files - 1; n > 0; n-- {
			err := os.Rename(l.name(n-1), l.name(n))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if l.cfg.Files == 1 {
			if err := os.Remove(l.cfg.File); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return l.open()
}

func (l *Log) name(n int) string {
	if n == 0 {
		return l.cfg.File
	}
	return l.cfg.File + "." + strconv.Itoa(n)
}

// Close writes what is queued and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close the log of decisions: %w", err)
	}
	return nil
}
