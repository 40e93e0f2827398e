package resource

import (
	"cmp"
	"slices"
)

// NormalizeRanges returns the ranges sorted, disjoint and joined where they
// touch. Ranges that end before they begin are dropped.
func NormalizeRanges(rs []Range) []Range {
	sorted := slices.DeleteFunc(slices.Clone(rs), func(r Range) bool { return r.End < r.Begin })
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Begin, b.Begin) })
	out := sorted[:0]
	for _, r := range sorted {
		if n := len(out); n > 0 && (r.Begin <= out[n-1].End || r.Begin-1 == out[n-1].End) {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out = append(out, r)
	}
	return out
}

// CountRanges is how many values normalized ranges hold.
func CountRanges(rs []Range) uint64 {
	var n uint64
	for _, r := range rs {
		n += r.End - r.Begin + 1
	}
	return n
}

// ContainsValue says whether normalized ranges hold v.
func ContainsValue(rs []Range, v uint64) bool {
	i, found := slices.BinarySearchFunc(rs, v, func(r Range, v uint64) int {
		switch {
		case r.End < v:
			return -1
		case r.Begin > v:
			return 1
		}
		return 0
	})
	return found && i < len(rs)
}

// ContainsRanges says whether normalized a holds all of normalized b.
func ContainsRanges(a, b []Range) bool {
	i := 0
	for _, r := range b {
		for i < len(a) && a[i].End < r.Begin {
			i++
		}
		if i == len(a) || a[i].Begin > r.Begin || a[i].End < r.End {
			return false
		}
	}
	return true
}

// SubtractRanges returns what is in normalized a and not in normalized b. The
// result shares no memory with its arguments.
func SubtractRanges(a, b []Range) []Range {
	out := make([]Range, 0, len(a)+len(b))
	j := 0
	for _, r := range a {
		begin, done := r.Begin, false
		for j < len(b) && b[j].End < begin {
			j++
		}
		for k := j; k < len(b) && b[k].Begin <= r.End; k++ {
			if b[k].Begin > begin {
				out = append(out, Range{begin, b[k].Begin - 1})
			}
			if b[k].End >= r.End {
				done = true
				break
			}
			begin = b[k].End + 1
		}
		if !done {
			out = append(out, Range{begin, r.End})
		}
	}
	return out
}

// UnionRanges returns what is in a or in b.
func UnionRanges(a, b []Range) []Range {
	return NormalizeRanges(append(slices.Clone(a), b...))
}

// NthValue is the value at position n, from 0, of normalized ranges that hold
// more than n values.
func NthValue(rs []Range, n uint64) uint64 {
	for _, r := range rs {
		size := r.End - r.Begin + 1
		if n < size {
			return r.Begin + n
		}
		n -= size
	}
	panic("resource: NthValue beyond the end of the ranges")
}
