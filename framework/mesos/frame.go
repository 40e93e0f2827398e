package mesos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// maxLengthDigits is the length in text of the largest 64-bit number.
const maxLengthDigits = 20

// frameReader reads RecordIO: the length of a record in decimal digits, a
// newline, the record (docs/recordio.md of apache/mesos). The reader of mesos-go
// reserves half of the allowed maximum at once and panics on lengths above 2^63;
// this one uses memory only for what has arrived.
type frameReader struct {
	in  *bufio.Reader
	max int64
	buf bytes.Buffer
}

func newFrameReader(in io.Reader, max int64) *frameReader {
	return &frameReader{in: bufio.NewReader(in), max: max}
}

// next returns the next record, valid until the following call. It returns
// io.EOF at the end of the stream between records and io.ErrUnexpectedEOF
// within one.
func (r *frameReader) next() ([]byte, error) {
	length, err := r.length()
	if err != nil {
		return nil, err
	}
	if length > r.max {
		return nil, fmt.Errorf("record of %d bytes announced, at most %d are accepted", length, r.max)
	}
	r.buf.Reset()
	if _, err := io.CopyN(&r.buf, r.in, length); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return r.buf.Bytes(), nil
}

func (r *frameReader) length() (int64, error) {
	digits := make([]byte, 0, maxLengthDigits)
	for {
		b, err := r.in.ReadByte()
		if errors.Is(err, io.EOF) && len(digits) > 0 {
			return 0, io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		if b == '\n' {
			break
		}
		if len(digits) == maxLengthDigits {
			return 0, fmt.Errorf("record length %q is not a number of at most %d digits", digits, maxLengthDigits)
		}
		digits = append(digits, b)
	}
	length, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil || length < 0 {
		return 0, fmt.Errorf("record length %q is not a number in range", digits)
	}
	return length, nil
}
