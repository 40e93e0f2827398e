package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
)

// journal names the nodes of a commit that is decided: Name-0 to Name-(Parts-1).
type journal struct {
	Name  string `json:"name"`
	Parts int    `json:"parts"`
	// Format is the version of the records once it is applied.
	Format int `json:"format"`
}

// commitLarge writes a commit in several transactions, of which one decides.
func (s *ZooKeeper) commitLarge(writes []Write, format int) error {
	j, err := s.writeJournal(writes)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.Format = format
	decided := s.fence
	decided.Journal = j
	if err := s.transact(decided, nil); err != nil {
		return err
	}
	return s.applyJournal(writes)
}

// writeJournal writes the parts, each in a transaction of its own. They mean
// nothing before the fence names them.
func (s *ZooKeeper) writeJournal(writes []Write) (*journal, error) {
	data, err := json.Marshal(writes)
	if err != nil {
		return nil, err
	}
	packed, err := pack(data)
	if err != nil {
		return nil, err
	}
	j := &journal{Name: fmt.Sprintf("%d-%d", s.fence.Epoch, s.fence.Sequence)}
	for part := range slices.Chunk(packed, s.opts.MaxNode) {
		create := &zk.CreateRequest{Path: s.journalNode(j, j.Parts), Data: part, Acl: s.session.ACL()}
		if err := s.transact(s.fence, []any{create}); err != nil {
			return nil, err
		}
		j.Parts++
	}
	return j, nil
}

func (s *ZooKeeper) journalNode(j *journal, part int) string {
	return path.Join(s.journalPath(), fmt.Sprintf("%s-%d", j.Name, part))
}

// applyJournal applies the writes of the journal that the fence names, in as
// many transactions as they need, and then lets the fence forget it. A crash in
// between leaves some applied: applying all again does the same.
func (s *ZooKeeper) applyJournal(writes []Write) error {
	changes, err := s.changes(writes)
	if err != nil {
		return err
	}
	for _, ops := range changes.batches(s.opts.MaxBatch) {
		if err := s.transact(s.fence, ops); err != nil {
			return err
		}
	}
	changes.apply()
	done := s.fence
	done.Format, done.Journal = s.fence.Journal.Format, nil
	if err := s.transact(done, nil); err != nil {
		return err
	}
	return s.sweepJournal()
}

// recoverJournal finishes a commit that was decided, and removes the parts of
// one that was not.
func (s *ZooKeeper) recoverJournal() error {
	if s.fence.Journal == nil {
		return s.sweepJournal()
	}
	var packed []byte
	for part := range s.fence.Journal.Parts {
		err := s.session.Do(func(conn *zk.Conn) error {
			data, _, err := conn.Get(s.journalNode(s.fence.Journal, part))
			if err == nil {
				packed = append(packed, data...)
			}
			return err
		})
		if errors.Is(err, zk.ErrNoNode) {
			return fmt.Errorf("%w: part %d of journal %s is missing", ErrDamaged, part, s.fence.Journal.Name)
		}
		if err != nil {
			return err
		}
	}
	data, err := unpack(packed)
	if err != nil {
		return err
	}
	var writes []Write
	if err := json.Unmarshal(data, &writes); err != nil {
		return fmt.Errorf("%w: journal %s: %w", ErrDamaged, s.fence.Journal.Name, err)
	}
	return s.applyJournal(writes)
}

// sweepJournal removes all journal nodes that the fence does not name.
func (s *ZooKeeper) sweepJournal() error {
	names, err := children(s.session, s.journalPath())
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(names, maxOps/2) {
		var ops []any
		for _, name := range batch {
			if s.fence.Journal == nil || !strings.HasPrefix(name, s.fence.Journal.Name+"-") {
				ops = append(ops, &zk.DeleteRequest{Path: path.Join(s.journalPath(), name), Version: -1})
			}
		}
		if len(ops) == 0 {
			continue
		}
		if err := s.transact(s.fence, ops); err != nil {
			return err
		}
	}
	return nil
}
