// Package dockerplugin is a client of Docker's volume plugin protocol: it
// finds plugins as the Docker daemon does and makes them volume.Drivers
// (docs.docker.com/engine/extend/plugins_volume and plugin_api).
package dockerplugin

import (
	"context"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Kind is the Traits.Kind of the drivers of this package.
const Kind = "docker"

// The places where Docker looks (its pkg/plugins/discovery).
const (
	socketsDir        = "/run/docker/plugins"
	defaultDockerRoot = "/var/lib/docker"
)

const defaultMaxAnswer = 8 << 20

// Config is what a client is made with. The zero value searches where Docker
// does.
type Config struct {
	// Dirs are searched instead of Docker's directories, each for sockets,
	// spec and json files: sockets in all of them first, as Docker does it.
	// Empty: sockets in /run/docker/plugins, files in /etc/docker/plugins and
	// then in /usr/lib/docker/plugins.
	Dirs []string
	// DockerRoot is where Docker keeps its managed plugins (its data-root).
	// Empty: /var/lib/docker if Dirs is empty or holds /run/docker/plugins,
	// otherwise there are no managed plugins.
	DockerRoot string
	// MaxAnswer bounds the body of an answer in bytes. 0: 8 MiB.
	MaxAnswer int64
	// Clock paces the retries. Nil: real time.
	Clock Clock
	// Trace, if not nil, is told of every call, with secrets taken out. It is
	// called by the goroutine of the call.
	Trace func(Exchange)
}

// Clock is time as the retries need it.
type Clock interface {
	// Now is the time since some fixed point.
	Now() time.Time
	// Sleep returns after d, or with ctx's error when ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Drivers finds Docker volume plugins. It implements volume.Drivers and is
// safe for concurrent use.
type Drivers struct {
	config Config
	places []place

	mu     sync.Mutex // guards opened
	opened map[endpoint]*client
}

var (
	_ volume.Drivers = (*Drivers)(nil)
	_ volume.Namer   = (*Drivers)(nil)
)

// New returns the drivers that config makes visible. It does no I/O.
func New(config Config) *Drivers {
	if config.MaxAnswer <= 0 {
		config.MaxAnswer = defaultMaxAnswer
	}
	if config.Clock == nil {
		config.Clock = realClock{}
	}
	d := &Drivers{config: config, places: placesOf(config.Dirs), opened: map[endpoint]*client{}}
	if config.DockerRoot == "" {
		for _, p := range d.places {
			if p.dir == socketsDir {
				d.config.DockerRoot = defaultDockerRoot
			}
		}
	}
	return d
}

// Close forgets the opened drivers. They must not be used any more.
func (d *Drivers) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.opened)
}

// Open implements volume.Drivers. It does not contact the plugin: its first
// call does, and waits for a plugin that has a socket or file but does not
// answer yet. Each Open looks the name up anew.
func (d *Drivers) Open(ctx context.Context, name string) (volume.Driver, error) {
	if err := ctx.Err(); err != nil {
		return nil, &volume.Error{Kind: volume.Deadline, Op: "open", Driver: name, Err: err}
	}
	found, err := d.find(name)
	if err != nil {
		return nil, err
	}
	c, err := d.client(found.endpoint)
	if err != nil {
		return nil, unusable(name, found.source, err)
	}
	return &driver{name: name, found: found, client: c, config: d.config}, nil
}

// client returns the one client of an endpoint, so that its handshake is
// remembered between Opens.
func (d *Drivers) client(e endpoint) (*client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.opened[e]; ok {
		return c, nil
	}
	c, err := newClient(e)
	if err != nil {
		return nil, err
	}
	d.opened[e] = c
	return c, nil
}
