// Package config reads the command line of dvdi-framework. Flags that mean what
// Marathon's mean have Marathon's names (docs/docs/command-line-flags.md of
// mesosphere/marathon) and its units, so that an operator's settings carry over.
package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// EmbeddedMaster is the value of --master that starts a built-in Mesos.
const EmbeddedMaster = "embedded"

// Config is the command line, checked.
type Config struct {
	Master        string
	FrameworkName string
	Role          string
	User          string
	Hostname      string
	WebUIURL      string
	Failover      time.Duration
	Checkpoint    bool
	DataDir       string

	// ZooKeeper is the URL of the state and the election, empty for a state in
	// DataDir.
	ZooKeeper                             string
	ZKSessionTimeout, ZKConnectTimeout    time.Duration
	ProxyConnectTimeout, ProxyReadTimeout time.Duration
	ProxyCA                               string // empty: the system's
	ProxyAnyName                          bool

	HTTPAddress   string
	HTTPPort      int
	DisableHTTP   bool
	Compress      bool
	HTTPSPort     int
	HTTPSCert     string // empty: no HTTPS
	HTTPSKey      string
	HTTPUser      string // empty: no authentication
	HTTPPassword  string
	HTTPRealm     string
	AllowOrigin   string
	MaxConcurrent int
	EventBuffer   int

	Principal  string
	Secret     string
	SecretFile string

	MesosCA, MesosCert, MesosKey string

	// The agents' isolator-bridges; without a token and a certificate none is
	// asked.
	BridgePort                                   int
	BridgeToken, BridgeCA, BridgeCert, BridgeKey string

	Features       []string
	DefaultNetwork string
	BridgeName     string
	EnvPrefix      string
	Executor       string
	GroupRole      bool
	// AcceptByDefault is one of the Accept constants of app.
	AcceptByDefault string
	ServicePorts    app.PortRange

	LaunchTimeout, LaunchConfirm      time.Duration
	ReconcileDelay, ReconcileInterval time.Duration
	RestoreHold, EndingHold           time.Duration
	DeclineFor, ReviveInterval        time.Duration
	Suppress                          bool
	MaxInstancesPerOffer              int
	MaxDeployments                    int
	MaxChecks                         int
	MaintenanceMode                   bool
	Draining                          time.Duration
	RestrictGPUs                      bool

	Placement          string
	Pack               bool
	Wait               scheduler.Wait
	DeclineUnfitFor    time.Duration
	MaxMoves           int
	MoveDraining       bool
	Balance            int
	ReservationTimeout time.Duration
	Adopt              []string
	DecisionLog        string
	DecisionLogMiB     int

	BackendExclusive []string
	GlobalScope      []string
	VolumeClasses    map[string]app.VolumeClass
	SecretsDir       string // empty: the agents resolve all secrets

	LogLevel, LogFormat string

	Embedded Embedded
}

// Embedded configures the built-in Mesos.
type Embedded struct {
	Agents int
	Dir    string
	Listen string
	DVDCLI string
}

// Marathon's features that can be switched on.
var features = []string{"vips", "task_killing", "external_volumes", "secrets", "gpu_resources"}

// check completes the configuration and returns everything that is wrong with
// it in one error.
func (c *Config) check(credentials string) error {
	var errs []error
	wrong := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}
	if c.Master == "" {
		wrong("master", "say which Mesos to use: host:port, http(s)://host:port, or %s for a built-in one", EmbeddedMaster)
	}
	if c.HTTPPort < 0 || c.HTTPPort > 65535 {
		wrong("http_port", "%d is no port", c.HTTPPort)
	}
	if c.HTTPSPort < 0 || c.HTTPSPort > 65535 {
		wrong("https_port", "%d is no port", c.HTTPSPort)
	}
	if (c.HTTPSCert == "") != (c.HTTPSKey == "") {
		wrong("ssl_cert", "certificate and key (--ssl_key) belong together")
	}
	if c.DisableHTTP && c.HTTPSCert == "" {
		wrong("disable_http", "nothing would be served: HTTPS needs --ssl_cert and --ssl_key")
	}
	if c.Role == "" || strings.ContainsAny(c.Role, " \t") || strings.HasPrefix(c.Role, "-") || c.Role == "." || c.Role == ".." {
		wrong("mesos_role", "%q is no Mesos role", c.Role)
	}
	if c.Failover <= 0 {
		wrong("failover_timeout", "must be above 0: with 0 a restart would lose all tasks")
	}
	if credentials != "" {
		user, password, ok := strings.Cut(credentials, ":")
		if !ok || user == "" || password == "" {
			wrong("http_credentials", "must be user:password")
		}
		c.HTTPUser, c.HTTPPassword = user, password
	}
	if c.Secret != "" && c.SecretFile != "" {
		wrong("mesos_authentication_secret", "give either the secret or --mesos_authentication_secret_file")
	}
	if c.Principal == "" && (c.Secret != "" || c.SecretFile != "") {
		wrong("mesos_authentication_principal", "a secret needs a principal")
	}
	if (c.MesosCert == "") != (c.MesosKey == "") {
		wrong("mesos_cert", "certificate and key (--mesos_key) belong together")
	}
	if (c.BridgeCert == "") != (c.BridgeKey == "") {
		wrong("bridge_cert", "certificate and key (--bridge_key) belong together")
	}
	for _, name := range slices.Sorted(maps.Keys(c.VolumeClasses)) {
		if c.VolumeClasses[name].Reclaim == app.ReclaimDelete && c.BridgeToken == "" && c.BridgeCert == "" {
			wrong("volume-classes", "class %s: reclaim %s needs the agents' isolator-bridges, which remove the volumes: give --bridge_token_file or --bridge_cert",
				name, app.ReclaimDelete)
		}
	}
	if c.BridgePort < 1 || c.BridgePort > 65535 {
		wrong("bridge_port", "%d is no port", c.BridgePort)
	}
	for _, f := range c.Features {
		if !slices.Contains(features, f) {
			wrong("enable_features", "%q is none of %s", f, strings.Join(features, ", "))
		}
	}
	if p := c.ServicePorts; p.Min < 1 || p.Max > 65536 || p.Min >= p.Max {
		wrong("local_port_min", "%d..%d is no range of ports", p.Min, p.Max)
	}
	if c.DataDir == "" {
		wrong("data-dir", "say where the state is kept")
	}
	if c.ZooKeeper != "" {
		if e, err := detect.ParseEnsemble(c.ZooKeeper); err != nil {
			wrong("zk", "%v", err)
		} else if e.Path == "/" {
			wrong("zk", "name a node of its own for the framework, as in zk://host:2181/dvdi")
		}
		if c.Master == EmbeddedMaster {
			wrong("zk", "several frameworks cannot share a built-in Mesos: name a --master")
		}
		if c.ZKSessionTimeout <= 0 || c.ZKConnectTimeout <= 0 {
			wrong("zk_session_timeout", "and --zk_connection_timeout must be above 0")
		}
	}
	if c.Placement != "spread" && c.Placement != "pack" {
		wrong("placement", "%q is neither spread nor pack", c.Placement)
	}
	if (c.MoveDraining || c.Balance > 0) && c.MaxMoves < 1 {
		wrong("max_moves", "say how many instances may be moved at a time, at least 1")
	}
	if c.Balance == 1 || c.Balance < 0 {
		wrong("balance", "must be 0 or at least 2: a difference of 1 cannot be levelled")
	}
	if c.Balance > 0 && c.Placement == "pack" {
		wrong("balance", "contradicts --placement=pack")
	}
	if c.DecisionLogMiB < 1 {
		wrong("decision_log_size", "at least 1 is needed")
	}
	if c.MaxChecks < 1 {
		wrong("max_concurrent_marathon_health_checks", "at least 1 is needed")
	}
	if c.Master == EmbeddedMaster && c.Embedded.Agents < 1 {
		wrong("embedded-agents", "at least 1 is needed")
	}
	if !slices.Contains([]string{"console", "json"}, c.LogFormat) {
		wrong("logging_format", "%q is neither console nor json", c.LogFormat)
	}
	return errors.Join(errs...)
}

// complete fills what depends on the machine.
func (c *Config) complete() error {
	if c.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find this machine's name (give it with --hostname): %w", err)
		}
		c.Hostname = name
	}
	if c.User == "" {
		u, err := user.Current()
		if err != nil {
			return fmt.Errorf("find the current user (give one with --mesos_user): %w", err)
		}
		c.User = u.Username
	}
	if c.Embedded.Dir == "" {
		c.Embedded.Dir = filepath.Join(c.DataDir, "mesos")
	}
	return nil
}

// HTTPListen is the address to serve the API on.
func (c *Config) HTTPListen() string {
	return net.JoinHostPort(c.HTTPAddress, strconv.Itoa(c.HTTPPort))
}

// HTTPSListen is the address to serve the API on by HTTPS.
func (c *Config) HTTPSListen() string {
	return net.JoinHostPort(c.HTTPAddress, strconv.Itoa(c.HTTPSPort))
}

// Feature tells whether a feature is switched on.
func (c *Config) Feature(name string) bool { return slices.Contains(c.Features, name) }

// Marathon is the configuration as GET /v2/info shows it (contract 1.7). It
// holds no secrets.
func (c *Config) Marathon() map[string]any {
	var origin any
	if c.AllowOrigin != "" {
		origin = strings.Fields(c.AllowOrigin)
	}
	return map[string]any{
		"master": WithoutCredentials(c.Master), "framework_name": c.FrameworkName, "mesos_role": c.Role, "mesos_user": c.User,
		"hostname": c.Hostname, "webui_url": c.WebUIURL, "failover_timeout": int(c.Failover / time.Second),
		"checkpoint": c.Checkpoint, "ha": c.ZooKeeper != "", "features": append([]string{}, c.Features...),
		"default_network_name": c.DefaultNetwork, "mesos_bridge_name": c.BridgeName,
		"env_vars_prefix": c.EnvPrefix, "executor": c.Executor,
		"local_port_min": c.ServicePorts.Min, "local_port_max": c.ServicePorts.Max,
		"access_control_allow_origin": origin, "new_group_enforce_role": groupRole(c.GroupRole),
		"task_launch_timeout":          c.LaunchTimeout.Milliseconds(),
		"task_launch_confirm_timeout":  c.LaunchConfirm.Milliseconds(),
		"reconciliation_initial_delay": c.ReconcileDelay.Milliseconds(),
		"reconciliation_interval":      c.ReconcileInterval.Milliseconds(),
		"decline_offer_duration":       c.DeclineFor.Milliseconds(),
		"min_revive_offers_interval":   c.ReviveInterval.Milliseconds(),
		"max_instances_per_offer":      c.MaxInstancesPerOffer,
		"maintenance_mode":             c.MaintenanceMode,
		"task_reservation_timeout":     c.ReservationTimeout.Milliseconds(),

		"leader_proxy_connection_timeout_ms": c.ProxyConnectTimeout.Milliseconds(),
		"leader_proxy_read_timeout_ms":       c.ProxyReadTimeout.Milliseconds(),
	}
}

// Extensions are settings that Marathon does not have, as GET /v2/info shows them
// to whom asks for extensions.
func (c *Config) Extensions() map[string]any {
	return map[string]any{"adopt": append([]string{}, c.Adopt...)}
}

// ZooKeeperInfo is the section zookeeper_config of GET /v2/info, nil without
// ZooKeeper.
func (c *Config) ZooKeeperInfo() map[string]any {
	if c.ZooKeeper == "" {
		return nil
	}
	return map[string]any{
		"zk":                    WithoutCredentials(c.ZooKeeper),
		"zk_session_timeout":    c.ZKSessionTimeout.Milliseconds(),
		"zk_connection_timeout": c.ZKConnectTimeout.Milliseconds(),
	}
}

// WithoutCredentials masks what a URL, such as --master's, holds before the host.
func WithoutCredentials(master string) string {
	if scheme, rest, ok := strings.Cut(master, "://"); ok {
		if at := strings.LastIndex(rest, "@"); at >= 0 {
			return scheme + "://xxxxxxxx:xxxxxxxx" + rest[at:]
		}
	}
	return master
}

func groupRole(top bool) string {
	if top {
		return "top"
	}
	return "off"
}
