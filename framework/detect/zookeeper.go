package detect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"
)

// infoPrefix begins the names of the masters' nodes; a sequence number follows.
const infoPrefix = "json.info_"

const (
	defaultSessionTimeout = 10 * time.Second
	// reconnectPause is how long a failed attempt waits for the next.
	reconnectPause = time.Second
	// maxReply bounds an answer of ZooKeeper, as its own default does.
	maxReply = 1 << 20
)

// ZooKeeper follows the election of Mesos masters: each holds an ephemeral
// sequential node, the lowest leads (docs/high-availability.md of apache/mesos).
//
// While ZooKeeper cannot be reached the last known leader stands: the masters
// themselves know better, one that does not lead says so, and breaking a working
// subscription would help nobody.
type ZooKeeper struct {
	ensemble Ensemble
	timeout  time.Duration
	log      *zap.Logger
	cancel   context.CancelFunc
	done     chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // guards what follows
	leader  *leader    // nil: no master leads, as far as known
	changed chan struct{}
	closed  bool
}

// leader is a leading master and the node that says so.
type leader struct {
	Leader
	node string
	lost chan struct{}
}

// NewZooKeeper begins to follow the election at an ensemble. The goroutine ends
// with Close. sessionTimeout 0 means 10 s.
func NewZooKeeper(ensemble Ensemble, sessionTimeout time.Duration, log *zap.Logger) *ZooKeeper {
	if sessionTimeout == 0 {
		sessionTimeout = defaultSessionTimeout
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &ZooKeeper{
		ensemble: ensemble,
		timeout:  sessionTimeout,
		log:      log.With(zap.Stringer("zookeeper", ensemble)),
		cancel:   cancel,
		done:     make(chan struct{}),
		changed:  make(chan struct{}),
	}
	go d.run(ctx)
	return d
}

// Leader waits until a master leads, or ctx ends.
func (d *ZooKeeper) Leader(ctx context.Context) (Leader, error) {
	for {
		d.mu.Lock()
		current, changed, closed := d.leader, d.changed, d.closed
		d.mu.Unlock()
		switch {
		case closed:
			return Leader{}, ErrClosed
		case current != nil:
			return current.Leader, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Leader{}, fmt.Errorf("no Mesos master leads at %s: %w", d.ensemble, context.Cause(ctx))
		}
	}
}

// Close ends the session with ZooKeeper and waits for the goroutine.
func (d *ZooKeeper) Close() error {
	d.cancel()
	<-d.done
	return nil
}

// set notes who leads, nil for nobody.
func (d *ZooKeeper) set(next *leader) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leader != nil && next != nil && d.leader.node == next.node && d.leader.Address == next.Address {
		return
	}
	if d.leader == nil && next == nil {
		return
	}
	if d.leader != nil {
		close(d.leader.lost)
	}
	d.leader = next
	d.signal()
	if next == nil {
		d.log.Warn("no Mesos master leads")
		return
	}
	d.log.Info("a Mesos master leads", zap.String("master", next.Address), zap.String("node", next.node))
}

// signal wakes those who wait for a change. The caller holds mu.
func (d *ZooKeeper) signal() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// run keeps a connection to ZooKeeper until ctx ends. Each attempt resolves the
// servers' names anew, which the client does only once.
func (d *ZooKeeper) run(ctx context.Context) {
	defer close(d.done)
	for ctx.Err() == nil {
		if err := d.follow(ctx); ctx.Err() == nil {
			d.log.Warn("connection to ZooKeeper failed, the last known leading master stands", zap.Error(err))
		}
		select {
		case <-time.After(reconnectPause):
		case <-ctx.Done():
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.signal()
}

// follow connects and watches the masters' nodes until that fails.
func (d *ZooKeeper) follow(ctx context.Context) error {
	link := newLink()
	defer link.cut()
	conn, states, err := zk.Connect(d.ensemble.Servers, d.timeout, zk.WithDialer(link.dial),
		zk.WithLogger(zkLog{d.log}), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxReply))
	if err != nil {
		return err
	}
	disconnect := sync.OnceFunc(func() {
		conn.Close()
		link.cut()
	})
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer disconnect()
	// Closing the connection ends whatever call waits for an answer.
	defer context.AfterFunc(ctx, disconnect)()
	watchers.Go(func() { disconnectWhenOffline(states, 2*d.timeout, disconnect) })

	if d.ensemble.Credentials != "" {
		if err := conn.AddAuth("digest", []byte(d.ensemble.Credentials)); err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
	}
	for {
		changed, err := d.look(conn)
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// disconnectWhenOffline ends a connection that has no session for too long, so
// that a new one is made. It returns when the connection has ended.
func disconnectWhenOffline(states <-chan zk.Event, patience time.Duration, disconnect func()) {
	offline := time.AfterFunc(patience, disconnect)
	defer offline.Stop()
	for event := range states {
		switch event.State {
		case zk.StateHasSession:
			offline.Stop()
		case zk.StateDisconnected:
			offline.Reset(patience)
		}
	}
}

// link is the network connection below a client. The client itself waits up to
// ten time-outs for a server that accepts connections and says nothing, even
// when it is closed.
type link struct {
	ctx  context.Context
	stop context.CancelFunc

	mu   sync.Mutex // guards conn
	conn net.Conn
}

func newLink() *link {
	ctx, stop := context.WithCancel(context.Background())
	return &link{ctx: ctx, stop: stop}
}

// dial implements zk.Dialer.
func (l *link) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(l.ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		_ = conn.Close() // nothing was written to it
		return nil, l.ctx.Err()
	}
	l.conn = conn
	return conn, nil
}

// cut ends the current connection and all attempts at another.
func (l *link) cut() {
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close() // its user sees the error
	}
}

// look finds out who leads; changed tells when to look again.
func (d *ZooKeeper) look(conn *zk.Conn) (changed <-chan zk.Event, err error) {
	for {
		nodes, _, changed, err := conn.ChildrenW(d.ensemble.Path)
		if errors.Is(err, zk.ErrNoNode) {
			exists, _, created, err := conn.ExistsW(d.ensemble.Path)
			if err != nil {
				return nil, fmt.Errorf("watch %s: %w", d.ensemble.Path, err)
			}
			if exists {
				continue
			}
			d.set(nil)
			return created, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the masters at %s: %w", d.ensemble.Path, err)
		}
		node, found := lowest(nodes)
		if !found {
			d.set(nil)
			return changed, nil
		}
		data, _, err := conn.Get(path.Join(d.ensemble.Path, node))
		if errors.Is(err, zk.ErrNoNode) {
			continue // it has gone in the meantime
		}
		if err != nil {
			return nil, fmt.Errorf("read the leading master's node %s: %w", node, err)
		}
		next, err := parseInfo(data)
		if err != nil {
			return nil, fmt.Errorf("understand the leading master's node %s: %w", node, err)
		}
		lost := make(chan struct{})
		next.Lost = lost
		d.set(&leader{Leader: next, node: node, lost: lost})
		return changed, nil
	}
}

// lowest finds the master's node with the lowest sequence number. The number
// runs over into negative ones, as ZooKeeper's counter does.
func lowest(nodes []string) (node string, found bool) {
	var least int64
	for _, n := range nodes {
		digits, isInfo := strings.CutPrefix(n, infoPrefix)
		sequence, err := strconv.ParseInt(digits, 10, 64)
		if !isInfo || err != nil {
			continue
		}
		if !found || sequence < least {
			node, least, found = n, sequence, true
		}
	}
	return node, found
}

// masterInfo is what is of use in the JSON of a master's node (MasterInfo).
type masterInfo struct {
	Address struct {
		Hostname string `json:"hostname"`
		IP       string `json:"ip"`
		Port     uint16 `json:"port"`
	} `json:"address"`
}

func parseInfo(data []byte) (Leader, error) {
	var info masterInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return Leader{}, err
	}
	a := info.Address
	if a.Port == 0 || a.IP == "" && a.Hostname == "" {
		return Leader{}, errors.New("it lacks the address")
	}
	port := strconv.Itoa(int(a.Port))
	l := Leader{Address: net.JoinHostPort(a.IP, port)}
	if a.Hostname != "" {
		l.Name = net.JoinHostPort(a.Hostname, port)
	}
	if a.IP == "" {
		l.Address = l.Name
	}
	return l, nil
}

// zkLog takes the client's messages, which are all about trouble.
type zkLog struct{ log *zap.Logger }

// Printf implements zk.Logger.
func (l zkLog) Printf(format string, args ...any) {
	l.log.Warn("ZooKeeper client", zap.String("detail", fmt.Sprintf(format, args...)))
}
