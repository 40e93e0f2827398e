package store

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
)

// The first byte of a record's nodes says how the rest is to be read.
const (
	plain    = 0
	deflated = 1
)

// compressFrom is the size from which compression is worth its time.
const compressFrom = 4 << 10

// maxUnpacked bounds what a damaged record can make of memory.
const maxUnpacked = 1 << 30

// pack brings a value into the form that is stored in ZooKeeper's nodes.
func pack(value []byte) ([]byte, error) {
	if len(value) < compressFrom {
		return append([]byte{plain}, value...), nil
	}
	var out bytes.Buffer
	out.WriteByte(deflated)
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	_, err = w.Write(value)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out.Bytes(), nil
}

// unpack is the reverse of pack. Its errors wrap ErrDamaged.
func unpack(stored []byte) ([]byte, error) {
	if len(stored) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	switch stored[0] {
	case plain:
		return stored[1:], nil
	case deflated:
		r := flate.NewReader(bytes.NewReader(stored[1:]))
		value, err := io.ReadAll(io.LimitReader(r, maxUnpacked))
		if err != nil {
			return nil, fmt.Errorf("%w: decompress: %w", ErrDamaged, err)
		}
		return value, nil
	default:
		return nil, fmt.Errorf("%w: it is packed in the unknown way %d", ErrDamaged, stored[0])
	}
}
