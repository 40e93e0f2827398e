package volumetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"
)

// requestLog is a file of one JSON object per event, so that it survives the
// plugin.
type requestLog struct {
	mu   sync.Mutex // guards file and next
	file *os.File
	next int
}

type logEvent struct {
	Number  int
	Request *Request // nil: the answer to Number
	Status  int
	Answer  string
}

func openLog(path string) (*requestLog, error) {
	requests, err := readLog(path)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &requestLog{file: file, next: len(requests)}, nil
}

func (l *requestLog) received(r Request) (number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number = l.next
	l.next++
	l.write(logEvent{Number: number, Request: &r})
	return number
}

func (l *requestLog) answered(number, status int, answer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(logEvent{Number: number, Status: status, Answer: answer})
}

func (l *requestLog) write(event logEvent) {
	data, err := json.Marshal(event)
	if err == nil {
		_, err = l.file.Write(append(data, '\n'))
	}
	if err != nil && !errors.Is(err, os.ErrClosed) {
		panic(err) // a test must not go on with half a log
	}
}

func (l *requestLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

func readLog(path string) ([]Request, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var requests []Request
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written, or cut by SIGKILL
		}
		var event logEvent
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, err
		}
		if event.Request != nil {
			requests = append(requests, *event.Request)
			continue
		}
		requests[event.Number].Status = event.Status
		requests[event.Number].Answer = event.Answer
	}
	return requests, nil
}
