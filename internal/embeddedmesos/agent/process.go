package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/dockervolume"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// process is one life of an agent. One goroutine, the loop, owns all of its
// state; others hand it functions to call.
type process struct {
	agent    *Agent
	cfg      Config
	log      *zap.Logger
	layout   layout
	isolator *dockervolume.Isolator
	address  string // of the HTTP endpoint
	listener net.Listener
	server   *http.Server
	started  time.Time

	ctx        context.Context // ends with the process, its cause tells why
	cancel     context.CancelCauseFunc
	goroutines sync.WaitGroup
	mailbox    *link.Queue[func()]
	registered chan struct{} // closed at the first registration

	// All below belongs to the loop, or to newProcess before it starts.
	info       mesos.AgentInfo
	master     mastership
	frameworks map[string]*mesos.FrameworkInfo
	runs       map[string]*run // by container id, until all is over
	completed  []*run          // the last ones, oldest first
	resources  resourceState
	orphans    []string // containers of which only the isolator knows
	ending     bool     // told to shut down
}

// newProcess recovers what is on disk. Nothing runs before start.
func newProcess(a *Agent) (*process, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &process{
		agent:      a,
		cfg:        a.cfg,
		log:        a.cfg.Logger.With(zap.String("agent", a.cfg.Hostname)),
		layout:     layout{a.cfg.Dir},
		started:    time.Now(),
		ctx:        ctx,
		cancel:     cancel,
		mailbox:    link.NewQueue[func()](),
		registered: make(chan struct{}),
		frameworks: make(map[string]*mesos.FrameworkInfo),
		runs:       make(map[string]*run),
	}
	p.isolator = dockervolume.New(p.layout.dockerVolumes(), a.cfg.client(a.gate), p.log)
	if err := p.prepare(); err != nil {
		err = errors.Join(err, p.release())
		cancel(err)
		return nil, err
	}
	return p, nil
}

func (p *process) prepare() error {
	if err := os.MkdirAll(p.layout.containers(), 0o700); err != nil {
		return err
	}
	p.info = mesos.AgentInfo{
		Hostname:   p.cfg.Hostname,
		Resources:  p.cfg.Resources,
		Attributes: p.cfg.Attributes,
		Domain:     p.cfg.Domain,
	}
	if err := p.recoverInfo(); err != nil {
		return err
	}
	if err := p.listen(); err != nil {
		return err
	}
	return p.recoverState()
}

// release closes what prepare opened.
func (p *process) release() error {
	var errs []error
	if p.listener != nil {
		errs = append(errs, p.listener.Close())
	}
	for _, r := range p.runs {
		errs = append(errs, r.stream.close())
	}
	return errors.Join(errs...)
}

// listen opens the HTTP endpoint, on the port of the last time if it is free:
// those who watch the agent then find it again.
func (p *process) listen() error {
	l, err := p.open()
	if err != nil {
		return fmt.Errorf("open the HTTP endpoint: %w", err)
	}
	return p.listening(l)
}

func (p *process) open() (net.Listener, error) {
	if p.cfg.Listen != "" {
		return net.Listen("tcp", p.cfg.Listen)
	}
	const host = "127.0.0.1"
	if port := p.info.Port; port != nil {
		if l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(*port))); err == nil {
			return l, nil
		}
	}
	return freeport.Listen(host)
}

func (p *process) listening(l net.Listener) error {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return errors.Join(fmt.Errorf("the HTTP endpoint %s is not TCP", l.Addr()), l.Close())
	}
	p.listener, p.address = l, l.Addr().String()
	p.info.Port = ptr(int32(tcp.Port))
	return nil
}

// start starts the process's goroutines.
func (p *process) start(register bool) {
	p.server = &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second}
	p.goroutines.Go(func() {
		if err := p.server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
			p.fail("serve HTTP", err)
		}
	})
	// However the process ends, it then answers nobody any more.
	context.AfterFunc(p.ctx, func() { _ = p.server.Close() })
	p.superviseRecovered()
	p.goroutines.Go(p.loop)
	if register {
		p.goroutines.Go(p.connect)
	}
}

// stop ends the process and waits until nothing of it is left.
func (p *process) stop(cause error) {
	p.cancel(cause)
	p.mailbox.Close()
	p.goroutines.Wait()
	for _, r := range p.runs {
		r.disconnect()
		if err := r.stream.close(); err != nil {
			p.log.Warn("Log of updates did not close well", zap.Error(err))
		}
	}
}

// loop calls what others hand over, one after the other.
func (p *process) loop() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.mailbox.Ready():
		}
		calls, _ := p.mailbox.Take()
		for _, call := range calls {
			if p.agent.gate.wait(p.ctx) != nil {
				return
			}
			call()
		}
	}
}

// post hands a function to the loop; it is lost if the process ends first.
func (p *process) post(f func()) { p.mailbox.Put(f) }

// do has the loop call f and waits for it. After an error f may still be
// running: what it writes must not be looked at then.
func (p *process) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	p.post(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// fail ends the process because it cannot go on, as a failed CHECK does. What
// could not be written must not be acted upon.
func (p *process) fail(operation string, err error) {
	if err == nil || p.ctx.Err() != nil {
		return
	}
	p.log.Error("Agent cannot go on", zap.String("operation", operation), zap.Error(err))
	p.cancel(fmt.Errorf("%s: %w", operation, err))
}

// after has the loop call f later.
func (p *process) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { p.post(f) })
}

// key of a task: ids are unique per framework only.
func (p *process) find(framework, task string) *run {
	for _, r := range p.runs {
		if r.path.framework == framework && r.path.executor == task {
			return r
		}
	}
	return nil
}

// symlink points name to target, replacing what it pointed to.
func symlink(target, name string) error {
	tmp := name + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
