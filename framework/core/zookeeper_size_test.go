package core

import (
	"encoding/base64"
	"math/rand/v2"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"
)

// The bounds that ZooKeeper's nodes are to keep at the largest installation. The
// servers refuse what is larger than jute.maxbuffer, 1 MiB unless told otherwise.
const (
	nodeBound     = 256 << 10 // data of one node
	childrenBound = 64 << 10  // names in one answer
)

// census is what a walk through nodes has found.
type census struct {
	conn  *zk.Conn
	group errgroup.Group

	mu             sync.Mutex // guards what follows
	nodes          int
	data, children int    // the largest, in bytes
	fat, crowded   string // which node that is
}

// walk looks at a node and all below it. Nodes without children are looked at many
// at a time.
func (c *census) walk(node string) error {
	names, stat, err := c.conn.Children(node)
	if err != nil {
		return err
	}
	bytes := 0
	for _, name := range names {
		bytes += len(name)
	}
	c.note(node, int(stat.DataLength), bytes)
	for _, name := range names {
		child := path.Join(node, name)
		_, stat, err := c.conn.Exists(child)
		if err != nil {
			return err
		}
		if stat.NumChildren == 0 {
			c.note(child, int(stat.DataLength), 0)
			continue
		}
		c.group.Go(func() error { return c.walk(child) })
	}
	return nil
}

func (c *census) note(node string, data, children int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes++
	if data > c.data {
		c.data, c.fat = data, node
	}
	if children > c.children {
		c.children, c.crowded = children, node
	}
}

// noise is text that cannot be compressed to less than three quarters.
func noise(bytes int) string {
	random := make([]byte, bytes*3/4)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	return base64.StdEncoding.EncodeToString(random)
}

// TestNodesOfALargeInstallation measures every node that 2,000 apps, 50,000 tasks,
// one deployment of all apps and one giant app make.
func TestNodesOfALargeInstallation(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 50,000 records")
	}
	l := newLargeInstallation(t)
	st, end := l.open()
	defer end()
	l.write(st, func(string, time.Duration) {})
	// One app is as large as a request may be, and cannot be compressed.
	giant := benchApp(t, largeApps)
	giant.Cmd = noise(10 << 20)
	w := benchWriter{l: l, st: st}
	w.put(kindApp, string(giant.ID), &appRecord{App: giant})
	w.flush()
	conn := l.server.Client()
	defer conn.Close()
	c := &census{conn: conn}
	c.group.Go(func() error { return c.walk(l.ensemble.Path) })
	if err := c.group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d nodes, at most %d bytes of data and %d bytes of names", c.nodes, c.data, c.children)
	if c.nodes < largeApps*2+largeTasks {
		t.Errorf("only %d nodes were found", c.nodes)
	}
	if c.data < nodeBound/2 {
		t.Errorf("no node has more than %d bytes: nothing had to be cut", c.data)
	}
	if c.data > nodeBound {
		t.Errorf("%s has %d bytes of data", c.fat, c.data)
	}
	if c.children > childrenBound {
		t.Errorf("%s has %d bytes of names", c.crowded, c.children)
	}
}
