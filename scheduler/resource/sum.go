package resource

import "slices"

// Resources is a bag of resources.
type Resources []Resource

// Add returns the bag with one more resource, joined with an entry of the same
// kind where Mesos would join them.
func (rs Resources) Add(r Resource) Resources {
	if r.Shared || !r.Indivisible() {
		for i := range rs {
			if SameKind(&rs[i], &r) {
				out := slices.Clone(rs)
				out[i] = join(out[i], r)
				return out
			}
		}
	}
	return append(slices.Clip(rs), r)
}

func join(a, b Resource) Resource {
	switch {
	case a.Shared:
		return a
	case a.Kind == Scalar:
		return a.WithScalar(a.Scalar + b.Scalar)
	case a.Kind == Ranges:
		return a.WithRanges(UnionRanges(a.Ranges, b.Ranges))
	}
	a.Items = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(a.Items), b.Items...))))
	return a
}

// Subtract returns the bag without a resource, and false where the bag does
// not hold it. A shared resource is held by any number of users and stays.
func (rs Resources) Subtract(r Resource) (Resources, bool) {
	for i := range rs {
		have := &rs[i]
		if !SameKind(have, &r) || !holds(have, &r) {
			continue
		}
		if have.Shared {
			return rs, true
		}
		out := slices.Clone(rs)
		rest := without(*have, r)
		if rest.empty() {
			return slices.Delete(out, i, i+1), true
		}
		out[i] = rest
		return out, true
	}
	return rs, false
}

// Contains says whether the bag holds all of the resources at once.
func (rs Resources) Contains(want []Resource) bool {
	rest := rs
	for _, w := range want {
		var ok bool
		if rest, ok = rest.Subtract(w); !ok {
			return false
		}
	}
	return true
}

// Scalar is the total of a named scalar over all entries.
func (rs Resources) Scalar(name string) Milli {
	var total Milli
	for i := range rs {
		if rs[i].Name == name && rs[i].Kind == Scalar {
			total += rs[i].Scalar
		}
	}
	return total
}

func holds(have, want *Resource) bool {
	switch have.Kind {
	case Scalar:
		if have.Indivisible() {
			return have.Scalar == want.Scalar
		}
		return have.Scalar >= want.Scalar
	case Ranges:
		return ContainsRanges(have.Ranges, want.Ranges)
	}
	return !slices.ContainsFunc(want.Items, func(s string) bool { return !slices.Contains(have.Items, s) })
}

func without(have, want Resource) Resource {
	switch have.Kind {
	case Scalar:
		return have.WithScalar(have.Scalar - want.Scalar)
	case Ranges:
		return have.WithRanges(SubtractRanges(have.Ranges, want.Ranges))
	}
	have.Items = slices.DeleteFunc(slices.Clone(have.Items), func(s string) bool { return slices.Contains(want.Items, s) })
	return have
}

func (r *Resource) empty() bool {
	switch r.Kind {
	case Scalar:
		return r.Scalar <= 0
	case Ranges:
		return len(r.Ranges) == 0
	}
	return len(r.Items) == 0
}
