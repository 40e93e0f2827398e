package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"

	"github.com/go-zookeeper/zk"
	"golang.org/x/sync/errgroup"

	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// ErrFenced means that another process has opened the state since: this one
// does not lead any more, and nothing that it writes takes effect.
var ErrFenced = errors.New("another process has taken over")

// ZooKeeperOptions bound what is sent to ZooKeeper. Zero values mean the defaults in
// brackets, which leave room below the servers' jute.maxbuffer (1 MiB).
type ZooKeeperOptions struct {
	// MaxNode is how many bytes a node may hold; larger records are cut into
	// several nodes [256 KiB].
	MaxNode int
	// MaxBatch is how many bytes one transaction of ZooKeeper may carry; larger
	// commits go through a journal [512 KiB].
	MaxBatch int
	// Owner is written beside the state for people who look at it.
	Owner string

	// renewFence is the version from which the fence's node is made anew.
	renewFence int32
}

func (o ZooKeeperOptions) withDefaults() ZooKeeperOptions {
	if o.MaxNode == 0 {
		o.MaxNode = 256 << 10
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 512 << 10
	}
	o.MaxNode = min(o.MaxNode, o.MaxBatch/2)
	if o.renewFence == 0 {
		o.renewFence = renewFence
	}
	return o
}

// renewFence is half of what ZooKeeper can count: a node's version is a signed
// number of 32 bits, of which the negative ones mean something else. A process
// that still has a version from before the node was made anew would have to sleep
// through as many transactions, with a session that goes on, to be let through.
const renewFence = 1 << 30

// fence is the content of the node that every transaction changes. Its version
// in ZooKeeper is the fencing token: whoever opens the state changes it, and
// transactions that expect another version fail as a whole.
type fence struct {
	Format int `json:"format"`
	// Epoch counts the openings, Sequence the transactions of an epoch.
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	Owner    string `json:"owner,omitempty"`
	// Journal is set while a commit that is too large for one transaction is
	// decided but not wholly applied.
	Journal *journal `json:"journal,omitempty"`
}

// ZooKeeper is a Store in a ZooKeeper ensemble. Below its root are:
//
//	fence                     the fencing token and the format version
//	records/<kind>/<xx>/<key> one record, in further nodes <key>;1 and so on
//	                          where it is large; <xx> spreads the keys
//	journal/<name>            parts of a commit that is being written
//
// A commit is one transaction (multi) that also changes the fence. One that is
// too large is written to the journal, decided by one change of the fence, and
// then applied; who opens the state after a crash in between applies the rest.
type ZooKeeper struct {
	session *zookeeper.Session
	root    string
	name    string // for errors
	opts    ZooKeeperOptions
	format  format

	mu      sync.Mutex // guards what follows, and is held during a commit
	fence   fence
	version int32 // of the fence node
	nodes   *nodeIndex
	closed  bool
	failed  error // of a commit, after which the index may be wrong
	// beforeTransaction, where a test sets it, may fail a transaction.
	beforeTransaction func() error
}

// OpenZooKeeper takes over the state at root, which it creates when there is
// none: whoever opened it before can write no more. The session stays the
// caller's. Errors are *Error and wrap ErrFenced, ErrNewer, ErrDamaged or the
// cause.
func OpenZooKeeper(session *zookeeper.Session, ensemble fmt.Stringer, root string, opts ZooKeeperOptions) (*ZooKeeper, error) {
	return openZooKeeper(session, ensemble, root, opts, current)
}

// HasZooKeeper says whether there is a state at root. Errors are *Error.
func HasZooKeeper(session *zookeeper.Session, ensemble fmt.Stringer, root string) (bool, error) {
	s := &ZooKeeper{session: session, root: root, name: ensemble.String()}
	_, found, err := s.peek()
	if err != nil {
		return false, s.wrap("read", err)
	}
	return found, nil
}

func openZooKeeper(session *zookeeper.Session, ensemble fmt.Stringer, root string, opts ZooKeeperOptions, f format) (*ZooKeeper, error) {
	s := &ZooKeeper{session: session, root: root, name: ensemble.String(), opts: opts.withDefaults(), format: f}
	if err := s.open(); err != nil {
		return nil, s.wrap("open", err)
	}
	return s, nil
}

func (s *ZooKeeper) open() error {
	for _, dir := range []string{s.recordsPath(), s.journalPath()} {
		if err := s.session.MakePath(dir); err != nil {
			return err
		}
	}
	if err := s.takeFence(); err != nil {
		return err
	}
	nodes, err := listNodes(s.session, s.recordsPath())
	if err != nil {
		return err
	}
	s.nodes = nodes
	if err := s.recoverJournal(); err != nil {
		return fmt.Errorf("finish the commit that a crash interrupted: %w", err)
	}
	if s.fence.Format == s.format.version {
		return nil
	}
	return s.migrate()
}

// migrate brings the records to this program's format, in one commit with the
// version.
func (s *ZooKeeper) migrate() error {
	records, err := s.readAll()
	if err != nil {
		return err
	}
	writes, err := s.format.migrate(s.fence.Format, records)
	if err != nil {
		return err
	}
	return s.commit(writes, s.format.version)
}

func (s *ZooKeeper) fencePath() string   { return path.Join(s.root, "fence") }
func (s *ZooKeeper) recordsPath() string { return path.Join(s.root, "records") }
func (s *ZooKeeper) journalPath() string { return path.Join(s.root, "journal") }

// takeFence makes this store the only one whose transactions succeed.
func (s *ZooKeeper) takeFence() error {
	return s.session.Do(func(conn *zk.Conn) error {
		for {
			current, version, found, err := readFence(conn, s.fencePath())
			if err != nil {
				return err
			}
			if current.Format > s.format.version {
				return fmt.Errorf("%w: format %d, known up to %d", ErrNewer, current.Format, s.format.version)
			}
			next := fence{Format: current.Format, Epoch: current.Epoch + 1, Owner: s.opts.Owner, Journal: current.Journal}
			if !found {
				next.Format = s.format.version
				_, err = conn.Create(s.fencePath(), encodeFence(next), 0, s.session.ACL())
				version = 0
			} else {
				version, err = s.replaceFence(conn, next, version)
			}
			if errors.Is(err, zk.ErrBadVersion) || errors.Is(err, zk.ErrNodeExists) {
				continue // somebody else opens it too: who comes last has it
			}
			if err != nil {
				return err
			}
			s.fence, s.version = next, version
			return nil
		}
	})
}

// replaceFence changes the fence from the given version and returns the new one.
func (s *ZooKeeper) replaceFence(conn *zk.Conn, next fence, version int32) (int32, error) {
	ops, now := s.fenceOps(next, version)
	responses, err := conn.Multi(ops...)
	if err != nil && len(responses) > 0 && responses[0].Error != nil {
		err = responses[0].Error
	}
	return now, err
}

// fenceOps are the operations that change the fence from the given version, and
// the version that it has afterwards. The first of them fails on another version.
func (s *ZooKeeper) fenceOps(next fence, version int32) (ops []any, now int32) {
	data := encodeFence(next)
	if version >= 0 && version < s.opts.renewFence {
		return []any{&zk.SetDataRequest{Path: s.fencePath(), Data: data, Version: version}}, version + 1
	}
	return []any{
		&zk.DeleteRequest{Path: s.fencePath(), Version: version},
		&zk.CreateRequest{Path: s.fencePath(), Data: data, Acl: s.session.ACL()},
	}, 0
}

// readFence reads the fence and its version; found is false when there is none
// yet.
func readFence(conn *zk.Conn, node string) (f fence, version int32, found bool, err error) {
	if _, err := conn.Sync(node); err != nil && !errors.Is(err, zk.ErrNoNode) {
		return f, 0, false, err
	}
	data, stat, err := conn.Get(node)
	if errors.Is(err, zk.ErrNoNode) {
		return f, 0, false, nil
	}
	if err != nil {
		return f, 0, false, err
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, 0, false, fmt.Errorf("%w: node %s: %w", ErrDamaged, node, err)
	}
	return f, stat.Version, true, nil
}

func encodeFence(f fence) []byte {
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // numbers and strings only
	}
	return data
}

// Load implements Store. Nodes are read many at a time.
func (s *ZooKeeper) Load(fn func(kind, key string, value []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.wrap("read", ErrClosed)
	}
	records, err := s.readAll()
	if err != nil {
		return s.wrap("read", err)
	}
	for _, r := range records {
		if err := fn(r.Kind, r.Key, r.Value); err != nil {
			return err
		}
	}
	return nil
}

// readers is how many nodes are asked for at the same time.
const readers = 64

// readAll reads every record, sorted.
func (s *ZooKeeper) readAll() ([]Write, error) {
	records := s.nodes.records()
	var group errgroup.Group
	group.SetLimit(readers)
	for i := range records {
		group.Go(func() error {
			value, err := s.read(records[i].Kind, records[i].Key)
			records[i].Value = value
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return records, nil
}

func (s *ZooKeeper) read(kind, key string) ([]byte, error) {
	var parts [][]byte
	for _, node := range s.nodes.paths(kind, key) {
		err := s.session.Do(func(conn *zk.Conn) error {
			data, _, err := conn.Get(node)
			parts = append(parts, data)
			return err
		})
		if err != nil {
			if errors.Is(err, zk.ErrNoNode) {
				err = fmt.Errorf("%w: %w", ErrFenced, err)
			}
			return nil, fmt.Errorf("node %s: %w", node, err)
		}
	}
	value, err := unpack(slices.Concat(parts...))
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", kind, key, err)
	}
	return value, nil
}

// Commit implements Store. Unlike what Store demands of every implementation, a
// connection that breaks meanwhile leaves no doubt: once it is back the fence
// tells whether the writes were applied. Commit waits for that until the session
// is over.
func (s *ZooKeeper) Commit(writes []Write) error {
	if len(writes) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.wrap("write", ErrClosed)
	}
	if s.failed != nil {
		return s.wrap("write", fmt.Errorf("an earlier commit failed: %w", s.failed))
	}
	s.failed = s.commit(writes, s.fence.Format)
	return s.wrap("write", s.failed)
}

func (s *ZooKeeper) commit(writes []Write, format int) error {
	changes, err := s.changes(writes)
	if err != nil {
		return err
	}
	if !changes.fits(s.opts.MaxBatch) {
		return s.commitLarge(writes, format)
	}
	next := s.fence
	next.Format = format
	if err := s.transact(next, changes.ops); err != nil {
		return err
	}
	changes.apply()
	return nil
}

// changes works out the operations for writes; the index is not changed.
func (s *ZooKeeper) changes(writes []Write) (*changeSet, error) {
	set := newChangeSet(s.nodes, s.session.ACL(), s.opts.MaxNode)
	for _, w := range writes {
		if w.Kind == "" || w.Key == "" {
			return nil, fmt.Errorf("%s %q: a record needs a kind and a key", w.Kind, w.Key)
		}
		if err := set.add(w); err != nil {
			return nil, fmt.Errorf("%s %q: %w", w.Kind, w.Key, err)
		}
	}
	return set, nil
}

// transact applies operations together with a new content of the fence.
func (s *ZooKeeper) transact(next fence, changes []any) error {
	if s.beforeTransaction != nil {
		if err := s.beforeTransaction(); err != nil {
			return err
		}
	}
	next.Sequence = s.fence.Sequence + 1
	ops, version := s.fenceOps(next, s.version)
	ops = append(ops, changes...)
	first := true
	err := s.session.Do(func(conn *zk.Conn) error {
		if !first {
			done, err := s.applied(conn, next)
			if done || err != nil {
				return err
			}
		}
		first = false
		responses, err := conn.Multi(ops...)
		if err == nil {
			return nil
		}
		if errors.Is(err, zk.ErrBadVersion) || len(responses) > 0 && errors.Is(responses[0].Error, zk.ErrBadVersion) {
			if done, ask := s.applied(conn, next); done || ask != nil {
				return ask
			}
			return ErrFenced
		}
		return describe(err, responses, ops)
	})
	if err != nil {
		return err
	}
	s.fence, s.version = next, version
	return nil
}

// applied tells whether a transaction of unknown outcome took effect. Another
// epoch means that this process was fenced.
func (s *ZooKeeper) applied(conn *zk.Conn, next fence) (bool, error) {
	current, _, _, err := readFence(conn, s.fencePath())
	if err != nil {
		return false, err
	}
	if current.Epoch != next.Epoch {
		return false, ErrFenced
	}
	return current.Sequence == next.Sequence, nil
}

// describe says which operation of a transaction failed.
func describe(err error, responses []zk.MultiResponse, ops []any) error {
	for i, r := range responses {
		if r.Error == nil || i >= len(ops) {
			continue
		}
		switch op := ops[i].(type) {
		case *zk.CreateRequest:
			return fmt.Errorf("create node %s: %w", op.Path, r.Error)
		case *zk.SetDataRequest:
			return fmt.Errorf("write node %s: %w", op.Path, r.Error)
		case *zk.DeleteRequest:
			return fmt.Errorf("delete node %s: %w", op.Path, r.Error)
		}
	}
	return err
}

// Epoch is the number of this opening: it grows with each.
func (s *ZooKeeper) Epoch() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fence.Epoch
}

// Close implements Store. The session is the caller's to close.
func (s *ZooKeeper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *ZooKeeper) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Path: s.name, Err: err}
	switch {
	case errors.Is(err, ErrFenced):
		e.Remedy = "it leads now; this process has to start again"
	case errors.Is(err, ErrNewer):
		e.Remedy = "start the version that wrote it, or a newer one"
	case errors.Is(err, ErrDamaged):
		e.Remedy = "restore it from a backup (dvdi-framework restore); it is left as it is"
	case errors.Is(err, zk.ErrNoAuth):
		e.Remedy = "give the user and password that own these nodes: --zk zk://user:pass@hosts/path"
	case errors.Is(err, ErrClosed):
	default:
		e.Remedy = "check the ZooKeeper servers"
	}
	return e
}

var _ Store = (*ZooKeeper)(nil)
