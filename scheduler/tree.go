package scheduler

import (
	"math"
	"math/bits"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// tree finds the best share of a class without looking at all of them. It is a
// binary tree over the eligible shares; each node holds the best key below it
// and the most of each scalar, so that a search skips what cannot fit or win.
//
// In a round keys only get worse and scalars only fewer. What a node holds is
// therefore a bound even while its share has changed meanwhile, and a leaf is
// brought up to date only when a search reaches it.
type tree struct {
	width   int // number of leaves, a power of two
	nodes   []treeNode
	shares  []int32 // share per leaf
	version []uint32
}

type treeNode struct {
	key  uint64
	most bound
}

// bound is amounts in little memory: rounded up, and to the largest number where
// they are larger. What an amount fits into, its bound fits into the other's.
type bound struct{ cpus, mem, disk, gpus, ports uint32 }

func boundOf(a amounts) bound {
	const kibi = 10 // memory and disk in 1024 thousandths of a MiB
	return bound{boundAt(int64(a.cpus), 0), boundAt(int64(a.mem), kibi), boundAt(int64(a.disk), kibi),
		boundAt(int64(a.gpus), 0), boundAt(a.ports, 0)}
}

func boundAt(v int64, bits uint) uint32 {
	if v <= 0 {
		return 0
	}
	return uint32(min((uint64(v)+1<<bits-1)>>bits, math.MaxUint32))
}

// closed is the key of a leaf that is out for the rest of the round.
const closed = math.MaxUint64

// Layout of a key, from the most significant bits: instances of the same app on
// the agent (added in the search), instances in all, how little memory is left,
// and a tie-break from the seed.
const (
	tieBits  = 28
	fillBits = 6
	loadBits = 16
	appBits  = 14

	fillShift = tieBits
	loadShift = fillShift + fillBits
	appShift  = loadShift + loadBits
)

// key orders shares by the memory that a class may use: the emptier the better, or, to pack, the
// fuller at the start of the round the better. Packing keeps the order of the
// start, so one agent is filled before the next.
func (d *decision) key(s *share, mem resource.Milli) uint64 {
	a := &d.agents[s.agent]
	tie := min(a.tie, 1<<tieBits-1)
	if d.s.Policy.Pack {
		load := uint64(min(a.before, 1<<loadBits-1))
		return (1<<loadBits-1-load)<<loadShift | tie
	}
	left := bits.Len64(uint64(max(mem, 0)))
	fill := uint64(1<<fillBits - 1 - min(left, 1<<fillBits-1))
	return uint64(min(a.load, 1<<loadBits-1))<<loadShift | fill<<fillShift | tie
}

func (d *decision) buildTree(c *class) *tree {
	t := &tree{}
	for i := range d.shares {
		if d.verdictOf(c, int32(i)) == fits {
			t.shares = append(t.shares, int32(i))
		}
	}
	t.width = 1
	for t.width < len(t.shares) {
		t.width *= 2
	}
	t.nodes = make([]treeNode, 2*t.width)
	t.version = make([]uint32, len(t.shares))
	for i := range t.nodes {
		t.nodes[i].key = closed
	}
	for i, s := range t.shares {
		t.nodes[t.width+i] = d.leaf(c, &d.shares[s])
		t.version[i] = d.shares[s].version
	}
	for i := t.width - 1; i > 0; i-- {
		t.join(i)
	}
	return t
}

func (d *decision) leaf(c *class, s *share) treeNode {
	if d.launchLimit(s) {
		return treeNode{key: closed}
	}
	left := c.available(s)
	return treeNode{d.key(s, left.mem), boundOf(left)}
}

func (t *tree) join(i int) {
	l, r := &t.nodes[2*i], &t.nodes[2*i+1]
	t.nodes[i] = treeNode{
		key: min(l.key, r.key),
		most: bound{
			max(l.most.cpus, r.most.cpus), max(l.most.mem, r.most.mem),
			max(l.most.disk, r.most.disk), max(l.most.gpus, r.most.gpus),
			max(l.most.ports, r.most.ports),
		},
	}
}

// update brings a leaf and the nodes above it up to date.
func (t *tree) update(leaf int, n treeNode) {
	i := t.width + leaf
	t.nodes[i] = n
	for i /= 2; i > 0; i /= 2 {
		old := t.nodes[i]
		t.join(i)
		if t.nodes[i] == old {
			return
		}
	}
}

// spare is how many more leaves a search looks at once it has found one that
// fits, to find one with fewer instances of the same app. It bounds the cost
// for an app with instances on most agents.
const spare = 32

// search looks for the best share for one request.
type search struct {
	d       *decision
	t       *tree
	c       *class
	r       *request
	need    bound
	best    int32
	leaf    int // where best is
	bestKey uint64
	spare   int
}

// find returns the best share of a class that can take the request now.
func (d *decision) find(c *class, r *request) (int32, bool) {
	if c.tree == nil {
		c.tree = d.buildTree(c)
	}
	s := search{d: d, t: c.tree, c: c, r: r, need: boundOf(r.shape.needs), best: -1, bestKey: closed, spare: spare}
	s.visit(1)
	d.last = leafOf{}
	if s.best >= 0 {
		d.last = leafOf{c, s.leaf}
	}
	return s.best, s.best >= 0
}

// leafOf is the leaf of a class's tree that a search has ended at.
type leafOf struct {
	c    *class
	leaf int
}

// refresh brings the leaf of a share up to date that the last search has found
// and a launch has changed: now it is in the cache, later searches would have to
// fetch it.
func (d *decision) refresh(share int32) {
	c := d.last.c
	if c == nil || c.tree.shares[d.last.leaf] != share {
		return
	}
	s := &d.shares[share]
	c.tree.version[d.last.leaf] = s.version
	c.tree.update(d.last.leaf, d.leaf(c, s))
}

func (s *search) visit(i int) {
	n := &s.t.nodes[i]
	if s.spare == 0 || n.key >= s.bestKey || !n.most.atLeast(s.need) {
		return
	}
	if i >= s.t.width {
		s.look(i - s.t.width)
		return
	}
	l, r := 2*i, 2*i+1
	if s.t.nodes[r].key < s.t.nodes[l].key {
		l, r = r, l
	}
	s.visit(l)
	s.visit(r)
}

// look tests one leaf, bringing it up to date first.
func (s *search) look(leaf int) {
	idx := s.t.shares[leaf]
	sh := &s.d.shares[idx]
	if s.t.version[leaf] != sh.version {
		s.t.version[leaf] = sh.version
		s.t.update(leaf, s.d.leaf(s.c, sh))
		if n := &s.t.nodes[s.t.width+leaf]; n.key >= s.bestKey || !n.most.atLeast(s.need) {
			return
		}
	}
	if s.best >= 0 {
		s.spare--
	}
	key := s.t.nodes[s.t.width+leaf].key
	if app := s.r.app; app != nil && !s.d.s.Policy.Pack {
		key += uint64(min(app.onAgent[sh.agent], 1<<appBits-2)) << appShift
	}
	if key < s.bestKey && s.d.check(s.r, sh, fits) == fits {
		s.best, s.leaf, s.bestKey = idx, leaf, key
	}
}

func (a *bound) atLeast(b bound) bool {
	return a.cpus >= b.cpus && a.mem >= b.mem && a.disk >= b.disk && a.gpus >= b.gpus && a.ports >= b.ports
}

func (d *decision) launchLimit(s *share) bool {
	most := d.s.Policy.MaxInstancesPerOffer
	return most > 0 && int(s.launches) >= most
}
