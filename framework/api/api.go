// Package api serves Marathon's REST API over a core.Service. Handlers read the
// request, call the core and shape the answer; they hold no state of their own.
package api

import (
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/loglevel"
	"github.com/mesos-dvdi/dvdi/framework/metrics"
)

// Config is what the operator set that concerns the API. Zero values mean the
// defaults in brackets.
type Config struct {
	// App holds the options that definitions are read with.
	App app.Options

	Name     string // of the framework, shown by /v2/info ["marathon"]
	Version  string // of this software
	BuildRef string
	// Marathon, ZooKeeper and HTTP are the sections marathon_config,
	// zookeeper_config and http_config of /v2/info. They must hold no secrets.
	Marathon, ZooKeeper, HTTP map[string]any
	// Extensions are added to Marathon for whom asks for extensions.
	Extensions map[string]any

	// User and Password switch basic authentication on when User is set.
	User, Password string
	Realm          string // ["Mesosphere"]
	// AllowOrigin switches CORS on: the values of Access-Control-Allow-Origin
	// separated by spaces.
	AllowOrigin string
	// Compress has longer answers compressed for clients that take gzip.
	Compress bool
	// MaxConcurrent bounds the requests served at the same time, event streams
	// apart; 0 is no bound.
	MaxConcurrent int
	// MaxBody bounds a request's body in bytes [10 MiB].
	MaxBody int64
	// BodyTimeout bounds how long a client may take to send a body [1m].
	BodyTimeout time.Duration

	// Metrics is what /metrics shows and where requests are measured [those of
	// the core, without counters of events].
	Metrics *metrics.Metrics

	// LeaderURL is where clients reach the leader [http:// and Info.Leader].
	LeaderURL string

	// Abdicate is called when DELETE /v2/leader asks this process to give up
	// the lead; it must not block. Nil means that there is no other process
	// that could take over.
	Abdicate func()

	// Backup makes the answer of /v2/backup; nil has none.
	Backup Backup

	// EventBuffer is how many events may be outstanding per listener before it
	// is dropped [1024].
	EventBuffer int
	// Heartbeat is the time between the newlines that keep an idle event
	// stream open [10s].
	Heartbeat time.Duration
	// WriteTimeout bounds one write to an event stream [30s].
	WriteTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "marathon"
	}
	if c.Realm == "" {
		c.Realm = "Mesosphere"
	}
	if c.MaxBody == 0 {
		c.MaxBody = 10 << 20
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = time.Minute
	}
	if c.EventBuffer == 0 {
		c.EventBuffer = 1024
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 30 * time.Second
	}
	return c
}

type server struct {
	cfg    Config
	svc    core.Service
	log    *zap.Logger
	levels *loglevel.Levels // of the log
	routes []route
}

// New returns the handler of the whole API. /logging is about the levels of log as
// loglevel.Of gives them. The handler may serve requests concurrently
// and keeps nothing between them; event streams end when their request's context
// or the core's subscription ends.
func New(cfg Config, svc core.Service, log *zap.Logger) http.Handler {
	log, levels := loglevel.Of(log)
	s := &server{cfg: cfg.withDefaults(), svc: svc, log: log, levels: levels}
	if s.cfg.Metrics == nil {
		s.cfg.Metrics = metrics.New(svc, cfg.Version, log)
	}
	s.routes = s.table()
	var h http.Handler = http.HandlerFunc(s.dispatch)
	if s.cfg.Compress {
		h = compressed(h)
	}
	h = s.authenticated(h)
	h = s.crossOrigin(h)
	h = s.limited(h)
	h = s.headers(h)
	return s.recovered(h)
}

// table lists every resource. The first pattern that matches a path decides, so
// that those with a fixed end stand before those that take any path.
func (s *server) table() []route {
	return []route{
		{"/ping", methods{get: s.ping}},
		{"/metrics", methods{get: s.metrics}},
		{"/metrics/prometheus", methods{get: s.prometheus}},
		{"/logging", methods{get: s.logging, post: s.changeLogging}},

		{"/v2/apps", methods{get: s.listApps, post: s.createApp, put: s.putApps, patch: s.patchApps}},
		{"/v2/apps/*", methods{get: s.groupApps}},
		{"/v2/apps/{id...}/restart", methods{post: s.restartApp}},
		{"/v2/apps/{id...}/tasks", methods{get: s.appTasks, del: s.killAppTasks}},
		{"/v2/apps/{id...}/tasks/{task}", methods{del: s.killAppTask}},
		{"/v2/apps/{id...}/versions", methods{get: s.appVersions}},
		{"/v2/apps/{id...}/versions/{version}", methods{get: s.appVersion}},
		{"/v2/apps/{id...}/*", methods{get: s.groupApps}},
		{"/v2/apps/{id...}", methods{get: s.getApp, put: s.putApp, patch: s.patchApp, del: s.deleteApp}},

		{"/v2/tasks", methods{get: s.listTasks}},
		{"/v2/tasks/delete", methods{post: s.killTasks}},

		{"/v2/deployments", methods{get: s.listDeployments}},
		{"/v2/deployments/{deployment}", methods{del: s.cancelDeployment}},

		{"/v2/queue", methods{get: s.queue}},
		{"/v2/queue/{id...}/delay", methods{del: s.resetDelay}},

		{"/v2/groups", methods{get: s.getGroup, post: s.createGroup, put: s.putGroup, del: s.deleteGroup}},
		{"/v2/groups/versions", methods{get: s.groupVersions}},
		{"/v2/groups/versions/{version}", methods{get: s.groupVersion}},
		{"/v2/groups/apps", methods{get: s.appsOfGroup}},
		{"/v2/groups/{id...}/versions", methods{get: s.groupVersions}},
		{"/v2/groups/{id...}/versions/{version}", methods{get: s.groupVersion}},
		{"/v2/groups/{id...}/apps", methods{get: s.appsOfGroup}},
		{"/v2/groups/{id...}", methods{get: s.getGroup, post: s.createGroup, put: s.putGroup, patch: s.patchGroup, del: s.deleteGroup}},

		{"/v2/pods", methods{any: s.noPods}},
		{"/v2/pods/{id...}", methods{any: s.noPods}},

		{"/v2/events", methods{get: s.events}},
		{"/v2/info", methods{get: s.info}},
		{"/v2/leader", methods{get: s.leader, del: s.abdicate}},

		{"/v2/plugins", methods{get: s.plugins}},
		{"/v2/backup", methods{get: s.backup}},
		{"/v2/openapi.yaml", methods{get: s.openAPI}},

		{"/v2/volumes", methods{get: s.claims}},
		{"/v2/volume-classes", methods{get: s.volumeClasses}},
		{"/v2/volumes/{driver}/{name...}/claim", methods{put: s.claimUsed, del: s.releaseClaim}},
		{"/v2/volumes/{driver}/{name...}/removal", methods{del: s.keepVolume}},
	}
}
