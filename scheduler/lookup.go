package scheduler

import "hash/maphash"

// lookup finds the places of keys. A map would do; on a cluster that no cache
// holds it costs several accesses to memory per look, and there are two looks for
// each volume. Here an entry is eight bytes, and a key that is not there is hardly
// ever compared with another. Hashes are the caller's, with a seed of its own:
// they decide on places in the table alone, so on nothing in the plan.
type lookup[K comparable] struct {
	entries []entry // a power of two, at most three quarters of them in use
	keys    []K     // by place
}

// entry holds a part of a key's hash and its place, counted from 1; 0 is an empty
// entry.
type entry struct{ hash, place uint32 }

// newLookup makes room for keys at the places from 0 to most.
func newLookup[K comparable](most int) *lookup[K] {
	size := 8
	for 3*size < 4*most {
		size *= 2
	}
	return &lookup[K]{entries: make([]entry, size), keys: make([]K, most)}
}

// at returns the entry of a key, an empty one if the key is not there.
func (l *lookup[K]) at(k *K, hash uint64) *entry {
	for i := int(hash>>7) & (len(l.entries) - 1); ; i = (i + 1) & (len(l.entries) - 1) {
		e := &l.entries[i]
		if e.place == 0 || e.hash == uint32(hash>>32) && l.keys[e.place-1] == *k {
			return e
		}
	}
}

// find returns the place of a key.
func (l *lookup[K]) find(k K, hash uint64) (place int32, found bool) {
	place = int32(l.at(&k, hash).place) - 1
	return place, place >= 0
}

// add returns the place of a key: the given one if the key was not there.
func (l *lookup[K]) add(k K, hash uint64, place int32) int32 {
	e := l.at(&k, hash)
	if e.place == 0 {
		l.keys[place] = k
		*e = entry{uint32(hash >> 32), uint32(place) + 1}
	}
	return int32(e.place) - 1
}

// together is how many keys are looked up at a time: what they need of memory is
// then fetched at the same time, too.
const together = 64

// findEach finds the places of n keys, each given with its hash, and hands on those
// that are there.
func (l *lookup[K]) findEach(n int, key func(i int) (*K, uint64), found func(i int, place int32)) {
	var keys [together]*K
	var hashes [together]uint64
	var places [together]uint32
	for from := 0; from < n; from += together {
		block := min(together, n-from)
		for i := range block {
			keys[i], hashes[i] = key(from + i)
		}
		for i := range block {
			places[i] = l.at(keys[i], hashes[i]).place
		}
		for i := range block {
			if places[i] > 0 {
				found(from+i, int32(places[i])-1)
			}
		}
	}
}

// hash mixes both parts: there are few drivers, with short names.
func (k *VolumeKey) hash(seed maphash.Seed) uint64 {
	h := maphash.String(seed, k.Name)
	for i := 0; i < len(k.Driver); i++ {
		h = (h ^ uint64(k.Driver[i])) * 1099511628211
	}
	return h ^ h>>32
}
