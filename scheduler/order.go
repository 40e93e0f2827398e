package scheduler

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// waited is the place of a pending instance in the order of requests: who waits
// longest comes first, then by id. It holds the beginning of what tells ids
// apart, so that sorting rarely has to look at an instance.
type waited struct {
	sec    int64
	nsec   int32
	at     int32 // in Snapshot.Pending
	prefix uint64
}

// order works out in which order the pending instances are placed. All that is
// made for them lies in this order, whatever order the snapshot has.
func (d *decision) order() {
	pending := d.s.Pending
	same := commonPrefix(pending)
	keys := make([]waited, len(pending))
	for i := range pending {
		since := pending[i].Since
		keys[i] = waited{since.Unix(), int32(since.Nanosecond()), int32(i), wordOf(pending[i].ID[same:])}
	}
	slices.SortFunc(keys, func(a, b waited) int {
		if c := cmp.Compare(a.sec, b.sec); c != 0 {
			return c
		}
		if c := cmp.Compare(a.nsec, b.nsec); c != 0 {
			return c
		}
		if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		return strings.Compare(pending[a.at].ID, pending[b.at].ID)
	})
	both := make([]int32, 2*len(keys))
	d.ordered, d.turn = both[:len(keys)], both[len(keys):]
	for t := range keys {
		d.ordered[t] = keys[t].at
		d.turn[keys[t].at] = int32(t)
	}
}

// commonPrefix is how many bytes all ids begin with alike.
func commonPrefix(pending []Instance) int {
	if len(pending) == 0 {
		return 0
	}
	first := pending[0].ID
	n := len(first)
	for i := range pending {
		id := pending[i].ID
		n = min(n, len(id))
		if id[:n] == first[:n] {
			continue
		}
		for n = 0; id[n] == first[n]; {
			n++
		}
	}
	return n
}

// wordOf orders as the first eight bytes of a string do.
func wordOf(s string) uint64 {
	var b [8]byte
	copy(b[:], s)
	return binary.BigEndian.Uint64(b[:])
}
