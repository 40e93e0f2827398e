package resource

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestFromFloat(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want Milli
	}{
		{0, 0}, {0.1, 100}, {1, 1000}, {0.0004, 0}, {0.0005, 1}, {1.9999, 2000}, {-0.5, -500},
		{0.1 + 0.2, 300}, {3.3 - 0.1, 3200}, {math.NaN(), 0}, {math.Inf(1), 0}, {1e300, 0},
	} {
		if got := FromFloat(c.v); got != c.want {
			t.Errorf("FromFloat(%v) = %d, want %d", c.v, got, c.want)
		}
	}
	for m, want := range map[Milli]string{500: "0.5", 128_000: "128", 1: "0.001", 0: "0"} {
		if m.String() != want || FromFloat(m.Float()) != m {
			t.Errorf("%d is written %q and read back %d, want %q", int64(m), m, FromFloat(m.Float()), want)
		}
	}
}

// TestRangesAgainstSets compares with sets of numbers.
func TestRangesAgainstSets(t *testing.T) {
	ranges := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Range {
		return Range{rapid.Uint64Range(0, 30).Draw(t, "begin"), rapid.Uint64Range(0, 30).Draw(t, "end")}
	}), 0, 6)
	set := func(rs []Range) map[uint64]bool {
		m := make(map[uint64]bool)
		for _, r := range rs {
			for v := r.Begin; v <= r.End; v++ {
				m[v] = true
			}
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		rawA, rawB := ranges.Draw(t, "a"), ranges.Draw(t, "b")
		a, b := NormalizeRanges(rawA), NormalizeRanges(rawB)
		sa, sb := set(rawA), set(rawB)
		for i := range a {
			if i > 0 && a[i].Begin <= a[i-1].End+1 {
				t.Fatalf("%v is not normal", a)
			}
		}
		if CountRanges(a) != uint64(len(sa)) {
			t.Fatalf("count %d of %v", CountRanges(a), a)
		}
		contains := true
		minus, union := SubtractRanges(a, b), UnionRanges(a, b)
		if !slices.Equal(minus, NormalizeRanges(minus)) {
			t.Fatalf("%v minus %v is %v, not normal", a, b, minus)
		}
		for v := uint64(0); v <= 31; v++ {
			contains = contains && (!sb[v] || sa[v])
			if ContainsValue(a, v) != sa[v] {
				t.Fatalf("%v contains %d: %t", a, v, ContainsValue(a, v))
			}
			if ContainsValue(minus, v) != (sa[v] && !sb[v]) {
				t.Fatalf("%v minus %v is %v", a, b, minus)
			}
			if ContainsValue(union, v) != (sa[v] || sb[v]) {
				t.Fatalf("%v and %v is %v", a, b, union)
			}
		}
		if ContainsRanges(a, b) != contains {
			t.Fatalf("%v contains %v: %t", a, b, ContainsRanges(a, b))
		}
		n := uint64(0)
		for v := uint64(0); v <= 31; v++ {
			if sa[v] {
				if got := NthValue(a, n); got != v {
					t.Fatalf("value %d of %v is %d, want %d", n, a, got, v)
				}
				n++
			}
		}
	})
}

func cpus(m Milli) Resource { return Resource{Name: "cpus", Kind: Scalar, Scalar: m} }

func disk(m Milli, d Disk) Resource {
	return Resource{Name: "disk", Kind: Scalar, Scalar: m, Disk: &d}
}

func TestAddAndSubtract(t *testing.T) {
	byDB := Reservation{Role: "db", Dynamic: true, Labels: []Label{{"a", "1"}, {"b", "2"}}}
	other := byDB
	other.Labels = []Label{{"b", "2"}, {"a", "1"}} // order counts
	bag := Resources{}.Add(cpus(500)).Add(cpus(700)).Add(cpus(100).Reserve(byDB)).Add(cpus(200).Reserve(other))
	if len(bag) != 3 || bag[0].Scalar != 1200 {
		t.Fatalf("bag %+v", bag)
	}
	if bag.Scalar("cpus") != 1500 {
		t.Errorf("total %s", bag.Scalar("cpus"))
	}
	if !bag.Contains([]Resource{cpus(1200), cpus(100).Reserve(byDB)}) {
		t.Error("does not hold all of itself")
	}
	if bag.Contains([]Resource{cpus(700), cpus(501)}) {
		t.Error("holds more than there is")
	}
	if bag.Contains([]Resource{cpus(101).Reserve(byDB)}) {
		t.Error("takes from another reservation")
	}
	rest, ok := bag.Subtract(cpus(1200))
	if !ok || len(rest) != 2 || len(bag) != 3 || bag[0].Scalar != 1200 {
		t.Errorf("rest %+v of %+v", rest, bag)
	}
}

func TestIndivisible(t *testing.T) {
	path := disk(1000, Disk{Source: SourcePath, Root: "/p"})
	mount := disk(1000, Disk{Source: SourceMount, Root: "/m"})
	volume := path.Persist("id", "me", "data")
	bag := Resources{}.Add(path).Add(mount).Add(volume)
	for _, c := range []struct {
		name string
		r    Resource
		want bool
	}{
		{"part of a path disk", path.WithScalar(300), true},
		{"part of a mount disk", mount.WithScalar(300), false},
		{"a mount disk", mount, true},
		{"part of a volume", volume.WithScalar(300), false},
		{"a volume", volume, true},
		{"another volume", path.Persist("other", "me", "data"), false},
	} {
		if got := bag.Contains([]Resource{c.r}); got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
	if len(bag.Add(mount)) != 4 {
		t.Error("two mount disks were joined")
	}
	shared := volume
	shared.Shared = true
	bag = Resources{}.Add(shared)
	if !bag.Contains([]Resource{shared, shared}) {
		t.Error("a shared volume has one user only")
	}
}

func TestRangesAndSetsInABag(t *testing.T) {
	ports := Resource{Name: "ports", Kind: Ranges, Ranges: []Range{{1, 10}}}
	ids := Resource{Name: "ids", Kind: Set, Items: []string{"a", "b", "c"}}
	bag := Resources{ports, ids}
	rest, ok := bag.Subtract(ports.WithRanges([]Range{{3, 4}}))
	if !ok || !reflect.DeepEqual(rest[0].Ranges, []Range{{1, 2}, {5, 10}}) {
		t.Errorf("rest %+v", rest)
	}
	one := ids
	one.Items = []string{"b"}
	if rest, ok = bag.Subtract(one); !ok || !reflect.DeepEqual(rest[1].Items, []string{"a", "c"}) {
		t.Errorf("rest %+v", rest)
	}
	one.Items = []string{"z"}
	if _, ok = bag.Subtract(one); ok {
		t.Error("took what is not there")
	}
	if back := rest.Add(Resource{Name: "ids", Kind: Set, Items: []string{"b"}}); !reflect.DeepEqual(back[1].Items, ids.Items) {
		t.Errorf("back %+v", back)
	}
}

func TestReservationStack(t *testing.T) {
	r := cpus(1000)
	if r.Role() != Unreserved {
		t.Errorf("role %q", r.Role())
	}
	eng := r.Reserve(Reservation{Role: "eng"})
	db := eng.Reserve(Reservation{Role: "eng/db", Dynamic: true, Labels: []Label{{"k", "v"}}})
	if db.Role() != "eng/db" || len(r.Reservations) != 0 || len(eng.Reservations) != 1 {
		t.Errorf("stack %+v", db.Reservations)
	}
	if v, ok := LabelValue(db.ReservationLabels(), "k"); !ok || v != "v" {
		t.Errorf("label %q %t", v, ok)
	}
	if back := db.Unreserve(); !SameKind(&back, &eng) {
		t.Errorf("unreserved %+v", back)
	}
}

func TestDestroyedVolumeBecomesItsDisk(t *testing.T) {
	root := Resource{Name: "disk", Kind: Scalar, Scalar: 10}
	path := disk(10, Disk{Source: SourcePath, Root: "/p", Profile: "fast"})
	for _, r := range []Resource{root, path} {
		v := r.Persist("id", "me", "data")
		v.Shared = true
		if !v.IsPersistent() || r.IsPersistent() {
			t.Fatalf("volume %+v of %+v", v, r)
		}
		if got := v.WithoutPersistence(); !SameKind(&got, &r) {
			t.Errorf("destroyed %+v, want %+v", got, r)
		}
	}
}

func TestWordsOfEnumerations(t *testing.T) {
	for k := range Set + 1 {
		text, err := k.MarshalText()
		var back Kind
		if err != nil || back.UnmarshalText(text) != nil || back != k {
			t.Errorf("kind %d is written %q (%v) and read %d", k, text, err, back)
		}
	}
	for s := range SourceRaw + 1 {
		text, err := s.MarshalText()
		var back SourceType
		if err != nil || back.UnmarshalText(text) != nil || back != s || s.String() != string(text) {
			t.Errorf("source %d is written %q (%v) and read %d", s, text, err, back)
		}
	}
	if _, err := Kind(9).MarshalText(); err == nil {
		t.Error("an unknown kind was written")
	}
	if SourceType(9).String() != "unknown(9)" {
		t.Errorf("unknown source is %s", SourceType(9))
	}
}
