package store

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// maxOps bounds the operations of one transaction: the servers handle
// transactions one after the other.
const maxOps = 1000

// recordID names a record.
type recordID struct{ kind, key string }

// nodeIndex knows which nodes exist. Since only one process writes, what it has
// read once and written since is all there is.
type nodeIndex struct {
	root string
	dirs map[string]bool  // below root: <kind> and <kind>/<xx>
	part map[recordID]int // how many nodes a record has
}

// dirOf spreads the records of a kind over 256 nodes, so that no list of
// children grows beyond what one answer of ZooKeeper should carry.
func dirOf(id recordID) string {
	h := fnv.New32a()
	h.Write([]byte(id.key))
	return fmt.Sprintf("%s/%02x", url.QueryEscape(id.kind), h.Sum32()&0xff)
}

// partSeparator stands before a part's number. url.QueryEscape leaves none in a
// key.
const partSeparator = ";"

func (x *nodeIndex) path(id recordID, part int) string {
	name := "k" + url.QueryEscape(id.key)
	if part > 0 {
		name += partSeparator + strconv.Itoa(part)
	}
	return path.Join(x.root, dirOf(id), name)
}

// paths are the nodes of a record, in order.
func (x *nodeIndex) paths(kind, key string) []string {
	id := recordID{kind, key}
	var out []string
	for part := range x.part[id] {
		out = append(out, x.path(id, part))
	}
	return out
}

// records lists the records by kind and key, without values.
func (x *nodeIndex) records() []Write {
	out := make([]Write, 0, len(x.part))
	for id := range x.part {
		out = append(out, Write{Kind: id.kind, Key: id.key})
	}
	sortWrites(out)
	return out
}

func sortWrites(list []Write) {
	slices.SortFunc(list, func(a, b Write) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
}

// listNodes reads which nodes there are.
func listNodes(session *zookeeper.Session, root string) (*nodeIndex, error) {
	x := &nodeIndex{root: root, dirs: map[string]bool{}, part: map[recordID]int{}}
	kinds, err := children(session, root)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		kind, err := url.QueryUnescape(k)
		if err != nil {
			return nil, fmt.Errorf("%w: node %s/%s: %w", ErrDamaged, root, k, err)
		}
		x.dirs[k] = true
		spread, err := children(session, path.Join(root, k))
		if err != nil {
			return nil, err
		}
		for _, d := range spread {
			dir := k + "/" + d
			x.dirs[dir] = true
			names, err := children(session, path.Join(root, dir))
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				if err := x.note(kind, name); err != nil {
					return nil, fmt.Errorf("%w: node %s/%s/%s: %w", ErrDamaged, root, dir, name, err)
				}
			}
		}
	}
	return x, nil
}

func (x *nodeIndex) note(kind, name string) error {
	escaped, _, _ := strings.Cut(name, partSeparator)
	escaped, ours := strings.CutPrefix(escaped, "k")
	if !ours {
		return errors.New("it is no record of this program")
	}
	key, err := url.QueryUnescape(escaped)
	if err != nil {
		return err
	}
	x.part[recordID{kind, key}]++
	return nil
}

func children(session *zookeeper.Session, node string) (names []string, err error) {
	err = session.Do(func(conn *zk.Conn) error {
		names, _, err = conn.Children(node)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list node %s: %w", node, err)
	}
	return names, nil
}

// changeSet is a list of operations and what they do to the index.
type changeSet struct {
	nodes   *nodeIndex
	acl     []zk.ACL
	maxNode int

	ops   []any
	sizes []int // of the operations, about
	bytes int
	dirs  map[string]bool
	part  map[recordID]int // 0: gone
}

func newChangeSet(nodes *nodeIndex, acl []zk.ACL, maxNode int) *changeSet {
	return &changeSet{nodes: nodes, acl: acl, maxNode: maxNode, dirs: map[string]bool{}, part: map[recordID]int{}}
}

// opOverhead is about what an operation costs beside path and data.
const opOverhead = 64

func (c *changeSet) op(op any, path string, data []byte) {
	size := len(path) + len(data) + opOverhead
	c.ops, c.sizes = append(c.ops, op), append(c.sizes, size)
	c.bytes += size
}

// fits tells whether one transaction can carry everything.
func (c *changeSet) fits(maxBatch int) bool { return c.bytes <= maxBatch && len(c.ops) <= maxOps }

// batches cuts the operations, in their order, into what transactions can carry.
func (c *changeSet) batches(maxBatch int) [][]any {
	var out [][]any
	begin, bytes := 0, 0
	for n, size := range c.sizes {
		if n > begin && (bytes+size > maxBatch || n-begin >= maxOps) {
			out = append(out, c.ops[begin:n])
			begin, bytes = n, 0
		}
		bytes += size
	}
	return append(out, c.ops[begin:])
}

func (c *changeSet) create(node string, data []byte) {
	c.op(&zk.CreateRequest{Path: node, Data: data, Acl: c.acl}, node, data)
}

func (c *changeSet) set(node string, data []byte) {
	c.op(&zk.SetDataRequest{Path: node, Data: data, Version: -1}, node, data)
}

func (c *changeSet) delete(node string) {
	c.op(&zk.DeleteRequest{Path: node, Version: -1}, node, nil)
}

// add appends what a write needs. A later write of the same record wins.
func (c *changeSet) add(w Write) error {
	id := recordID{w.Kind, w.Key}
	have, changed := c.part[id]
	if !changed {
		have = c.nodes.part[id]
	}
	var parts [][]byte
	if w.Value != nil {
		packed, err := pack(w.Value)
		if err != nil {
			return err
		}
		parts = slices.Collect(slices.Chunk(packed, c.maxNode))
		c.needDirs(dirOf(id))
	}
	for n, data := range parts {
		if n < have {
			c.set(c.nodes.path(id, n), data)
		} else {
			c.create(c.nodes.path(id, n), data)
		}
	}
	for n := have - 1; n >= len(parts); n-- {
		c.delete(c.nodes.path(id, n))
	}
	c.part[id] = len(parts)
	return nil
}

func (c *changeSet) needDirs(dir string) {
	kind, _, _ := strings.Cut(dir, "/")
	for _, d := range []string{kind, dir} {
		if !c.nodes.dirs[d] && !c.dirs[d] {
			c.dirs[d] = true
			c.create(path.Join(c.nodes.root, d), nil)
		}
	}
}

// apply takes the changes into the index, after they took effect.
func (c *changeSet) apply() {
	for d := range c.dirs {
		c.nodes.dirs[d] = true
	}
	for id, n := range c.part {
		if n == 0 {
			delete(c.nodes.part, id)
		} else {
			c.nodes.part[id] = n
		}
	}
}
