package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/bridge"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/decision"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/health"
	"github.com/mesos-dvdi/dvdi/framework/loglevel"
	"github.com/mesos-dvdi/dvdi/framework/mesos"
	"github.com/mesos-dvdi/dvdi/framework/metrics"
	"github.com/mesos-dvdi/dvdi/framework/secret"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// stopTimeout bounds how long requests under way delay the end.
const stopTimeout = 10 * time.Second

// serve wires the parts and runs them until ctx ends or one of them fails. What
// can be wrong with this machine is found before Mesos hears of the framework.
func serve(ctx context.Context, cfg *config.Config, logs io.Writer) (err error) {
	log, err := newLogger(cfg, logs)
	if err != nil {
		return err
	}
	var st *store.Bolt
	if cfg.ZooKeeper == "" {
		if st, err = store.OpenBolt(cfg.DataDir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.Close()) }()
	}
	listener, err := listenAll(cfg)
	if err != nil {
		return err
	}
	defer listener.Close() // the server has closed it already, unless it never ran
	masters, stopMesos, err := master(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopMesos()) }()
	if st == nil {
		return serveElected(ctx, cfg, listener, masters, log)
	}
	return serveAlone(ctx, cfg, st, listener, masters, log)
}

// serveAlone runs core and API of a framework that has its state to itself.
func serveAlone(ctx context.Context, cfg *config.Config, st store.Store, listener net.Listener, masters string, log *zap.Logger) (err error) {
	p, err := newParts(cfg, st, listener, masters, lead{}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	log.Info("serving", zap.String("api", listener.Addr().String()), zap.String("version", version),
		zap.String("data", cfg.DataDir), zap.String("master", config.WithoutCredentials(masters)))
	return serveWhile(ctx, listener, p.handler, p.run)
}

// serveWhile serves handler while run runs, and ends both when either ends.
func serveWhile(ctx context.Context, listener net.Listener, handler http.Handler, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ran := make(chan error, 1)
	go func() { ran <- run(ctx) }()

	var runErr, serverErr error
	select {
	case runErr = <-ran:
		cancel()
		serverErr = shutdown(server, served)
	case serverErr = <-served:
		cancel()
		runErr = <-ran
	}
	return errors.Join(runErr, serverErr)
}

// parts are core and API on an open store.
type parts struct {
	core     *core.Core
	handler  http.Handler
	metrics  *metrics.Metrics
	detector detect.Detector
	secrets  *secret.Dir // nil: none

	decisions *decision.Log // nil: none
	bridges   *bridge.Hub   // nil: none is asked
}

// lead is what a process that was elected can lose and give up; zero for one
// that is alone.
type lead struct {
	lost     <-chan struct{}
	abdicate func()
	// snapshot reads the state while it is in use; nil: from the store.
	snapshot func() ([]store.Write, error)
}

// backup writes the state that st holds.
func (l lead) backup(st store.Store) api.Backup {
	snapshot := l.snapshot
	if snapshot == nil {
		snapshot = func() ([]store.Write, error) { return store.Records(st) }
	}
	return func(_ context.Context, w io.Writer) error {
		records, err := snapshot()
		if err != nil {
			return err
		}
		return store.WriteBackup(w, records, time.Now())
	}
}

func newParts(cfg *config.Config, st store.Store, listener net.Listener, masters string, lead lead, log *zap.Logger) (_ *parts, err error) {
	detector, err := detector(masters, log)
	if err != nil {
		return nil, &config.Error{Err: fmt.Errorf("--master: %w", err)}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, detector.Close())
		}
	}()
	connection, err := connect(cfg, detector, listener, log)
	if err != nil {
		return nil, &config.Error{Err: err}
	}
	cc := coreConfig(cfg, listener)
	cc.LeadLost = lead.lost
	p := &parts{detector: detector}
	if p.bridges, err = bridges(cfg, lead, log); err != nil {
		return nil, &config.Error{Err: err}
	}
	if p.bridges != nil {
		cc.Bridges = p.bridges
	}
	if cfg.SecretsDir != "" {
		if p.secrets, err = secret.OpenDir(cfg.SecretsDir); err != nil {
			return nil, &config.Error{Err: fmt.Errorf("--secrets-dir: %w", err)}
		}
		cc.Secrets = p.secrets
	}
	if cfg.DecisionLog != "" {
		p.decisions, err = decision.Open(decision.Config{File: cfg.DecisionLog, MaxBytes: int64(cfg.DecisionLogMiB) << 20}, log.Named("decisions"))
		if err != nil {
			return nil, errors.Join(&config.Error{Err: fmt.Errorf("--decision_log: %w", err)}, p.closeFiles())
		}
		cc.Decisions = p.decisions.Record
	}
	if p.core, err = core.New(cc, connection, withFaults(st), log.Named("core")); err != nil {
		return nil, errors.Join(err, p.closeFiles())
	}
	p.metrics = metrics.New(p.core, version, log.Named("metrics"))
	ac := apiConfig(cfg, listener)
	ac.App.SecretKnown = secretKnown(cc.Secrets)
	ac.Abdicate, ac.Metrics, ac.Backup = lead.abdicate, p.metrics, lead.backup(st)
	p.handler = api.New(ac, p.core, log.Named("api"))
	return p, nil
}

// secretKnown tells of which sources the framework knows the values, of none where
// secrets is nil.
func secretKnown(secrets core.Secrets) func(source string) (bool, error) {
	return func(source string) (bool, error) {
		if secrets == nil {
			return false, nil
		}
		_, known, err := secrets.Value(source)
		return known, err
	}
}

// run runs the core, and counts what happens in it, until ctx ends.
func (p *parts) run(ctx context.Context) error {
	var counting sync.WaitGroup
	counting.Go(func() { p.metrics.Run(ctx) })
	err := p.core.Run(ctx)
	counting.Wait() // the core's end ends the events
	return classify(err)
}

func (p *parts) close() error { return errors.Join(p.detector.Close(), p.closeFiles()) }

// bridges makes the connections to the agents' bridges, nil where no credentials
// for them are given.
func bridges(cfg *config.Config, lead lead, log *zap.Logger) (*bridge.Hub, error) {
	if cfg.BridgeToken == "" && cfg.BridgeCert == "" {
		return nil, nil
	}
	hub, err := bridge.New(bridge.Config{Port: cfg.BridgePort, Lost: lead.lost, Log: log.Named("bridges"), Credentials: bridge.Credentials{
		CAFile: cfg.BridgeCA, CertFile: cfg.BridgeCert, KeyFile: cfg.BridgeKey, TokenFile: cfg.BridgeToken}})
	if err != nil {
		return nil, fmt.Errorf("--bridge_token_file, --bridge_ca, --bridge_cert, --bridge_key: %w", err)
	}
	return hub, nil
}

// closeFiles closes what is optional.
func (p *parts) closeFiles() (err error) {
	if p.bridges != nil {
		p.bridges.Close()
	}
	if p.secrets != nil {
		err = p.secrets.Close()
	}
	if p.decisions != nil {
		err = errors.Join(err, p.decisions.Close())
	}
	return err
}

// shutdown ends the API: requests under way still get an answer.
func shutdown(server *http.Server, served chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve the API: %w", e))
	}
	return err
}

// classify marks errors of the core that come from Mesos.
func classify(err error) error {
	var state *store.Error
	if err == nil || errors.As(err, &state) {
		return err
	}
	if errors.Is(err, core.ErrFrameworkRemoved) {
		return fmt.Errorf("%w; its tasks are gone or going. To see what becomes of the instances, and to register anew "+
			"with the same apps and volumes, start with --new-framework-id", err)
	}
	return &marked{errMesos, err}
}

// detector finds the leading master in the form of --master.
func detector(masters string, log *zap.Logger) (detect.Detector, error) {
	if !strings.HasPrefix(masters, "zk://") {
		return detect.NewList(strings.Split(masters, ",")...)
	}
	ensemble, err := detect.ParseEnsemble(masters)
	if err != nil {
		return nil, err
	}
	return detect.NewZooKeeper(ensemble, 0, log.Named("detect")), nil
}

// connect makes the connection that core.Run starts. Its errors are mistakes in
// the configuration.
func connect(cfg *config.Config, detector detect.Detector, l net.Listener, log *zap.Logger) (*mesos.Conn, error) {
	settings, err := mesosConfig(cfg, detector, l)
	if err != nil {
		return nil, err
	}
	return mesos.New(settings, log.Named("mesos"))
}

func mesosConfig(cfg *config.Config, detector detect.Detector, l net.Listener) (mesos.Config, error) {
	tlsConfig, err := mesosTLS(cfg)
	if err != nil {
		return mesos.Config{}, err
	}
	return mesos.Config{
		Detector: detector, Name: cfg.FrameworkName, User: cfg.User, Roles: []string{cfg.Role},
		FailoverTimeout: cfg.Failover, Checkpoint: cfg.Checkpoint, Hostname: cfg.Hostname, WebUIURL: webUI(cfg, l),
		GPUs:      cfg.Feature("gpu_resources"),
		Principal: cfg.Principal, Secret: cfg.Secret, SecretFile: cfg.SecretFile, TLS: tlsConfig,
		Tasks: mesos.TaskConfig{EnvPrefix: cfg.EnvPrefix, BridgeName: cfg.BridgeName, DefaultExecutor: cfg.Executor},
	}, nil
}

func webUI(cfg *config.Config, l net.Listener) string {
	if cfg.WebUIURL != "" {
		return cfg.WebUIURL
	}
	return scheme(cfg) + leader(cfg, l)
}

// scheme is how leader is reached.
func scheme(cfg *config.Config) string {
	if cfg.DisableHTTP {
		return "https://"
	}
	return "http://"
}

// leader is where clients reach this process's API.
func leader(cfg *config.Config, l net.Listener) string {
	port := cfg.HTTPPort
	if l != nil {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			port = a.Port
		}
	}
	return net.JoinHostPort(cfg.Hostname, strconv.Itoa(port))
}

// mesosTLS is nil when nothing about TLS is configured.
func mesosTLS(cfg *config.Config) (*tls.Config, error) {
	if cfg.MesosCA == "" && cfg.MesosCert == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.MesosCA != "" {
		pem, err := inputfile.Read(cfg.MesosCA)
		if err != nil {
			return nil, fmt.Errorf("--mesos_ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--mesos_ca: %s holds no certificate", cfg.MesosCA)
		}
	}
	if cfg.MesosCert != "" {
		pair, err := inputfile.KeyPair(cfg.MesosCert, cfg.MesosKey)
		if err != nil {
			return nil, fmt.Errorf("--mesos_cert, --mesos_key: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

func coreConfig(cfg *config.Config, l net.Listener) core.Config {
	exclusive, global := map[string]bool{}, map[string]bool{}
	for _, driver := range cfg.BackendExclusive {
		exclusive[driver] = true
	}
	for _, driver := range cfg.GlobalScope {
		global[driver] = true
	}
	margin := cfg.Draining
	if !cfg.MaintenanceMode {
		margin = -1
	}
	return core.Config{
		Leader: leader(cfg, l), DefaultRole: cfg.Role,
		Policy: scheduler.Policy{
			Refuse: cfg.DeclineFor, MaintenanceMargin: margin, MaxInstancesPerOffer: cfg.MaxInstancesPerOffer,
			RestrictGPUAgents: cfg.RestrictGPUs, NoSuppress: !cfg.Suppress,
			Pack: cfg.Pack, Wait: cfg.Wait, RefuseUnfit: cfg.DeclineUnfitFor,
			Principal: cfg.Principal, ReservationTimeout: cfg.ReservationTimeout,
			MaxMoves: cfg.MaxMoves, Drain: cfg.MoveDraining, Balance: cfg.Balance,
		},
		Adopt: cfg.Adopt, AcceptByDefault: cfg.AcceptByDefault,
		Checker:      health.New(cfg.MaxChecks),
		ServicePorts: cfg.ServicePorts, BackendExclusive: exclusive, GlobalScope: global,
		LaunchTimeout: cfg.LaunchTimeout, LaunchConfirm: cfg.LaunchConfirm,
		ReconcileDelay: cfg.ReconcileDelay, ReconcileInterval: cfg.ReconcileInterval,
		RestoreHold: cfg.RestoreHold, EndingHold: cfg.EndingHold,
		ReviveInterval: cfg.ReviveInterval, MaxDeployments: cfg.MaxDeployments,
	}
}

func apiConfig(cfg *config.Config, l net.Listener) api.Config {
	return api.Config{
		App: app.Options{
			Role: cfg.Role, GroupRole: cfg.GroupRole, DefaultNetwork: cfg.DefaultNetwork,
			NoExternalVolumes: !cfg.Feature("external_volumes"),
			Secrets:           cfg.Feature("secrets"), GPUs: cfg.Feature("gpu_resources"),
			Classes: cfg.VolumeClasses,
		},
		Name: cfg.FrameworkName, Version: version,
		Marathon: cfg.Marathon(), Extensions: cfg.Extensions(), ZooKeeper: cfg.ZooKeeperInfo(), HTTP: httpInfo(cfg, l), LeaderURL: scheme(cfg) + leader(cfg, l),
		User: cfg.HTTPUser, Password: cfg.HTTPPassword, Realm: cfg.HTTPRealm,
		Compress: cfg.Compress, AllowOrigin: cfg.AllowOrigin, MaxConcurrent: cfg.MaxConcurrent, EventBuffer: cfg.EventBuffer,
	}
}

// httpInfo are the ports as /v2/info shows them: null where nothing is served.
func httpInfo(cfg *config.Config, l net.Listener) map[string]any {
	port := cfg.HTTPPort
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		port = a.Port
	}
	out := map[string]any{"http_port": port, "https_port": nil}
	switch {
	case cfg.DisableHTTP:
		out["http_port"], out["https_port"] = nil, port
	case cfg.HTTPSCert != "":
		out["https_port"] = cfg.HTTPSPort
	}
	return out
}

// listen opens a port of the API, that of the flag.
func listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	remedy := "choose another with --http_address and " + flag
	if errors.Is(err, syscall.EADDRINUSE) {
		remedy = "another program uses it: stop that one or " + remedy
	}
	return nil, &marked{errPort, fmt.Errorf("open the API's port: %w; %s", err, remedy)}
}

// master returns the value of --master to connect to, and how to end what was started for
// that.
func master(ctx context.Context, cfg *config.Config, log *zap.Logger) (string, func() error, error) {
	if cfg.Master != config.EmbeddedMaster {
		return cfg.Master, func() error { return nil }, nil
	}
	ec := embeddedmesos.Config{
		Dir: cfg.Embedded.Dir, Listen: cfg.Embedded.Listen, DVDCLI: dvdcli(cfg),
		Logger: log.Named("embedded"), Timing: embeddedmesos.FastTiming(),
	}
	for n := range cfg.Embedded.Agents {
		// Loopback addresses tell the agents apart and can be reached.
		ec.Agents = append(ec.Agents, embeddedmesos.AgentConfig{Hostname: fmt.Sprintf("127.0.0.%d", n+1)})
	}
	if cfg.Principal != "" && cfg.Secret != "" {
		ec.Credentials = map[string]string{cfg.Principal: cfg.Secret}
	}
	cluster, err := embeddedmesos.Start(ctx, ec)
	if err != nil {
		return "", nil, &marked{errMesos, fmt.Errorf("start the embedded Mesos: %w", err)}
	}
	stop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := cluster.Stop(ctx); err != nil {
			return fmt.Errorf("stop the embedded Mesos: %w", err)
		}
		return nil
	}
	return cluster.Addr(), stop, nil
}

// dvdcli finds the binary for the built-in agents: the one given, or the one
// that is installed beside this program. Empty leaves the search on PATH to the
// agents.
func dvdcli(cfg *config.Config) string {
	if cfg.Embedded.DVDCLI != "" {
		return cfg.Embedded.DVDCLI
	}
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	beside := filepath.Join(filepath.Dir(self), "dvdcli")
	if _, err := os.Stat(beside); err != nil {
		return ""
	}
	return beside
}

// newLogger makes the log, whose level can be changed while it is written. Accepted
// changes are in it whatever the level.
func newLogger(cfg *config.Config, w io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.LogLevel)
	if err != nil {
		return nil, &config.Error{Err: fmt.Errorf("--logging_level: %w", err)}
	}
	ec := zap.NewProductionEncoderConfig()
	ec.EncodeTime = zapcore.ISO8601TimeEncoder
	encoder := zapcore.NewConsoleEncoder(ec)
	if cfg.LogFormat == "json" {
		encoder = zapcore.NewJSONEncoder(ec)
	}
	levels := loglevel.New(level, func(logger string) bool { return strings.HasSuffix(logger, "."+api.AuditLogger) })
	return zap.New(levels.Core(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), zapcore.DebugLevel))), nil
}
