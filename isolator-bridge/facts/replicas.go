package facts

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Getter describes a volume; the engine does.
type Getter interface {
	Status(ctx context.Context, key ledger.Key) (map[string]any, error)
}

// replicaBook knows where volumes have replicas, for drivers whose Get tells.
// The protocol defines no field for it; what drivers that replicate put into
// the free-form Status is understood under the names in replicaKeys.
type replicaBook struct {
	getter Getter
	every  time.Duration // between two questions about one volume

	mu    sync.Mutex // guards both
	known map[ledger.Key]replicas
	// mute are drivers whose answer had no such field, until when.
	mute map[string]time.Time
}

type replicas struct {
	hosts []string
	asked time.Time
}

// replicaKeys are compared without case.
var replicaKeys = []string{"replicas", "replica_nodes", "replicanodes", "replicahosts", "replica_hosts"}

// muteFor is how many times longer a driver that tells no replicas is left
// alone than a volume of one that does.
const muteFor = 10

// ask asks about the volumes whose turn it is and forgets all others. It says
// whether anything changed.
func (b *replicaBook) ask(ctx context.Context, keys []ledger.Key, now time.Time) (changed bool) {
	silent := map[string]bool{} // drivers that had no answer
	for _, key := range b.due(keys, now) {
		if ctx.Err() != nil {
			return changed
		}
		if silent[key.Driver] {
			continue // what was known stays; health is somebody else's business
		}
		asking, cancel := context.WithTimeout(ctx, replicaPatience)
		status, err := b.getter.Status(asking, key)
		cancel()
		if err != nil {
			silent[key.Driver] = volume.KindOf(err) != volume.Refused && volume.KindOf(err) != volume.NotFound
			b.failed(key, silent[key.Driver], now)
			continue
		}
		changed = b.learn(key, status, now) || changed
	}
	return changed
}

// replicaPatience bounds one question: replicas are a preference, no more.
const replicaPatience = 10 * time.Second

// failed has a volume, or all of its driver, left alone until the next time.
func (b *replicaBook) failed(key ledger.Key, silent bool, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if silent {
		b.mute[key.Driver] = now.Add(b.every)
		return
	}
	b.known[key] = replicas{hosts: b.known[key].hosts, asked: now}
}

func (b *replicaBook) due(keys []ledger.Key, now time.Time) []ledger.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := map[ledger.Key]replicas{}
	var due []ledger.Key
	for _, key := range keys {
		r, known := b.known[key]
		if known {
			kept[key] = r
		}
		if now.Before(b.mute[key.Driver]) || known && now.Before(r.asked.Add(b.every)) {
			continue
		}
		due = append(due, key)
	}
	b.known = kept
	return due
}

func (b *replicaBook) learn(key ledger.Key, status map[string]any, now time.Time) (changed bool) {
	hosts, told := replicasIn(status)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !told {
		b.mute[key.Driver] = now.Add(muteFor * b.every)
	}
	changed = !slices.Equal(b.known[key].hosts, hosts)
	b.known[key] = replicas{hosts: hosts, asked: now}
	return changed
}

func (b *replicaBook) of(key ledger.Key) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known[key].hosts
}

// maxReplicas is how many hosts are told of for one volume.
const maxReplicas = 100

// replicasIn is namesIn without what is no host's name, and no more than
// maxReplicas.
func replicasIn(status map[string]any) (hosts []string, told bool) {
	names, told := namesIn(status)
	for _, name := range names {
		if name != "" && len(name) <= maxPlace && len(hosts) < maxReplicas {
			hosts = append(hosts, strings.Clone(name)) // not with the text that it is a part of
		}
	}
	return hosts, told
}

// namesIn reads the hosts out of a driver's status: a list of names, or names
// in one text, separated by commas or spaces.
func namesIn(status map[string]any) (hosts []string, told bool) {
	for key, value := range status {
		if !slices.ContainsFunc(replicaKeys, func(k string) bool { return strings.EqualFold(k, key) }) {
			continue
		}
		switch v := value.(type) {
		case string:
			return strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }), true
		case []any:
			for _, e := range v {
				if s, ok := e.(string); ok {
					hosts = append(hosts, s)
				}
			}
			return hosts, true
		case []string:
			return v, true
		}
	}
	return nil, false
}
