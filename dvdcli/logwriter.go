package main

import (
	"io"
	"sync"
	"time"
)

const (
	// logBacklog is how many lines of the log wait for a slow reader of stderr.
	logBacklog = 4096
	// logPatience is how long the end of the program waits for that reader.
	logPatience = time.Second
)

// logWriter writes lines in the background: who does not read stderr must not
// hold up a mount, and with it everybody who waits for the volume. Lines for
// which there is no room are dropped.
type logWriter struct {
	to    io.Writer
	start sync.Once
	lines chan []byte // nil until the first line
	done  chan struct{}
}

func (w *logWriter) run() {
	w.lines, w.done = make(chan []byte, logBacklog), make(chan struct{})
	go func() {
		defer close(w.done)
		for line := range w.lines {
			_, _ = w.to.Write(line) // nobody could be told
		}
	}()
}

// Write takes a copy of the line. It never fails and never waits.
func (w *logWriter) Write(line []byte) (int, error) {
	w.start.Do(w.run)
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
	}
	return len(line), nil
}

// close waits a little for what was written. Nothing may be written after it, and
// it may not be called again.
func (w *logWriter) close() {
	if w.lines == nil {
		return
	}
	close(w.lines)
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C: // the program ends, and the writer with it
	}
}
