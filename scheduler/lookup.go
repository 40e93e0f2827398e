package scheduler

import "hash/maphash"

// lookup finds volumes by their keys. A map would do; on a cluster that no cache
// holds it costs several accesses to memory per look, and there are two looks for
// each volume. Here an entry is eight bytes, and a key that is not there is hardly
// ever compared with another.
type lookup struct {
	seed    maphash.Seed // decides on places in the table alone, so on nothing in the plan
	entries []entry      // a power of two, at most half of them in use
	volumes []volume     // never grows: pointers stay
}

// entry holds a part of a key's hash and the place of the volume, counted from 1;
// 0 is an empty entry.
type entry struct{ hash, place uint32 }

func newLookup(most int) *lookup {
	size := 8
	for size < 2*most {
		size *= 2
	}
	return &lookup{seed: maphash.MakeSeed(), entries: make([]entry, size), volumes: make([]volume, 0, most)}
}

// at returns the entry of a key, an empty one if the key is not there.
func (l *lookup) at(k *VolumeKey) (e *entry, hash uint32) {
	h := maphash.String(l.seed, k.Name)
	for i := 0; i < len(k.Driver); i++ {
		h = (h ^ uint64(k.Driver[i])) * 1099511628211
	}
	h ^= h >> 32
	hash = uint32(h)
	for i := int(h>>7) & (len(l.entries) - 1); ; i = (i + 1) & (len(l.entries) - 1) {
		e = &l.entries[i]
		if e.place == 0 || e.hash == hash && *l.volumes[e.place-1].key == *k {
			return e, hash
		}
	}
}

// find returns the volume of a key, nil if there is none.
func (l *lookup) find(k *VolumeKey) *volume {
	if e, _ := l.at(k); e.place > 0 {
		return &l.volumes[e.place-1]
	}
	return nil
}

// add returns the volume of a key, made where there is none.
func (l *lookup) add(k *VolumeKey) *volume {
	e, hash := l.at(k)
	if e.place == 0 {
		l.volumes = append(l.volumes, volume{key: k})
		*e = entry{hash, uint32(len(l.volumes))}
	}
	return &l.volumes[e.place-1]
}
