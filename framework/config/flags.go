package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Error is a mistake on the command line.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// env names the environment variable of a flag: DVDI_ and the name in upper
// case.
func env(flag string) []string {
	return []string{"DVDI_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

func text(name, value, usage string) cli.Flag {
	return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

func number(name string, value int, usage string) cli.Flag {
	return &cli.IntFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name)}
}

// millis is a duration in Marathon's unit.
func millis(name string, value int64, usage string) cli.Flag {
	return &cli.Int64Flag{Name: name, Value: value, Usage: usage + " (milliseconds)", EnvVars: env(name)}
}

func toggle(name, usage string) cli.Flag {
	return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name)}
}

// Flags returns the flags of dvdi-framework.
func Flags() []cli.Flag {
	return []cli.Flag{
		text(fileFlag, "", "YAML `FILE` with flags' names and values; the command line and the environment win"),
		text("master", "", "Mesos `MASTER`: host:port, several separated by commas, http(s)://host:port, zk://hosts/path, or \"embedded\""),
		text("data-dir", "/var/lib/dvdi-framework", "`DIR` that holds the framework's state"),
		text("zk", "", "ZooKeeper `URL` zk://[user:pass@]host:port,.../path for the state and the election of a leader, instead of --data-dir"),
		millis("zk_session_timeout", 10_000, "after which a leader that ZooKeeper does not hear of has lost the lead"),
		millis("zk_connection_timeout", 10_000, "to wait for ZooKeeper at the start"),
		millis("leader_proxy_connection_timeout", 5_000, "to connect to the leader on behalf of a client"),
		millis("leader_proxy_read_timeout", 10_000, "to wait for the leader's answer on behalf of a client"),
		text("leader_proxy_ca", "", "`FILE` with the certificates that sign those of leaders with --disable_http (default: the system's); "+
			"a leader that shows this process's own --ssl_cert is believed, too"),
		toggle("leader_proxy_ssl_ignore_hostname", "believe a leader whose certificate is trusted, whatever host it names"),
		toggle("new-framework-id", "after \"Framework has been removed\": show what becomes of the instances, and with --yes have the next start register anew"),
		toggle("yes", "with --new-framework-id: do it"),
		text("framework_name", "dvdi", "name of the framework in Mesos"),
		text("mesos_role", "*", "default role of apps"),
		text("mesos_user", "", "user that tasks run as (default: the current user)"),
		text("hostname", "", "name under which this machine is reachable (default: its host name)"),
		text("webui_url", "", "URL that Mesos shows for the framework (default: that of the API)"),
		number("failover_timeout", 604800, "seconds for which Mesos keeps the tasks of a framework that is away"),
		toggle("disable_checkpoint", "do not have agents checkpoint: tasks end with their agent's process"),

		text("http_address", "", "`ADDRESS` to serve the API on (default: all)"),
		number("http_port", 8080, "port to serve the API on"),
		toggle("disable_http", "serve the API by HTTPS only"),
		number("https_port", 8443, "port to serve the API on by HTTPS, with --ssl_cert"),
		text("ssl_cert", "", "PEM `FILE` with the certificate, and those between it and a known one, for HTTPS; read again when it changes"),
		text("ssl_key", "", "PEM `FILE` with the key of that certificate"),
		text("http_credentials", "", "`USER:PASSWORD` that API clients have to give"),
		text("http_realm", "Mesosphere", "realm of the credentials"),
		number("http_max_concurrent_requests", 0, "most requests at the same time, 0 for no bound"),
		toggle("disable_http_compression", "do not compress longer answers for clients that take gzip"),
		text("access_control_allow_origin", "", "origins that may use the API from a browser, separated by spaces"),
		number("event_stream_max_outstanding_messages", 1024, "events that a listener may be behind before it is dropped"),

		text("mesos_authentication_principal", "", "Mesos principal of the framework"),
		text("mesos_authentication_secret", "", "secret of the principal; prefer the file"),
		text("mesos_authentication_secret_file", "", "`FILE` that holds the secret of the principal"),
		text("mesos_ca", "", "`FILE` with the certificates that sign the Mesos master's"),
		text("mesos_cert", "", "`FILE` with the certificate to show to the Mesos master"),
		text("mesos_key", "", "`FILE` with the key of that certificate"),

		number("bridge_port", 9861, "port of the agents' isolator-bridges, where an agent's attribute dvdi_bridge names no other"),
		text("bridge_token_file", "", "`FILE` with the bearer token for the bridges; without it and --bridge_cert no bridge is asked"),
		text("bridge_ca", "", "`FILE` with the certificates that sign the bridges'; without it connections to them are not encrypted"),
		text("bridge_cert", "", "`FILE` with the certificate to show to the bridges"),
		text("bridge_key", "", "`FILE` with the key of that certificate"),

		text("enable_features", "external_volumes", "features, separated by commas: "+strings.Join(features, ", ")),
		text("default_network_name", "", "network of apps that join a container network without naming it"),
		text("mesos_bridge_name", "mesos-bridge", "CNI network of bridge mode"),
		text("env_vars_prefix", "", "prefix of the PORT variables that tasks get"),
		text("executor", "//cmd", "executor of apps that name none"),
		text("accepted_resource_roles_default_behavior", app.AcceptAny, "resources for apps that do not say which roles they accept: "+
			"any, unreserved, or reserved for the app's role"),
		text("new_group_enforce_role", "off", "\"top\": apps in a group have its name as their role"),
		number("local_port_min", app.DefaultPortRange.Min, "lowest service port to assign"),
		number("local_port_max", app.DefaultPortRange.Max, "end of the service ports to assign, not included"),

		millis("task_launch_timeout", 300_000, "a task that does not run after this time is killed"),
		millis("task_launch_confirm_timeout", 300_000, "a launch without any status after this time is killed"),
		millis("reconciliation_initial_delay", 15_000, "from subscription to reconciliation of all tasks"),
		millis("reconciliation_interval", 600_000, "between reconciliations of all tasks"),
		millis("new_framework_id_hold", 60_000, "under a new framework id, from when an agent is seen to be registered, before anything uses an exclusive "+
			"volume that a task of the old id had there; longer than the agents' executor_shutdown_grace_period"),
		millis("restore_hold", 720_000, "after a backup was restored, before anything starts on exclusive volumes"),
		millis("decline_offer_duration", 120_000, "for which unneeded offers are declined"),
		millis("min_revive_offers_interval", 5_000, "least time between requests for all offers"),
		toggle("disable_suppress_offers", "have offers come although nothing waits"),
		number("max_instances_per_offer", 5, "most launches on one agent at a time"),
		number("max_running_deployments", 100, "most deployments at the same time"),
		number("max_concurrent_marathon_health_checks", 256, "most health checks that the framework performs at a time"),
		toggle("disable_maintenance_mode", "use agents in maintenance too"),
		number("draining_seconds", 0, "seconds before an agent's maintenance from which it is not used"),
		text("placement", "spread", "\"spread\": prefer the agent with the fewest instances, \"pack\": the fullest that fits"),
		millis("wait_attached", 0, "an instance waits this long for an agent on which its volumes are attached; apps change it by the label DVDI_WAIT_ATTACHED"),
		millis("wait_last_attached", 0, "... for the agent on which its volumes were last (DVDI_WAIT_LAST_ATTACHED)"),
		millis("wait_replica", 0, "... for an agent with a replica of its volumes' data (DVDI_WAIT_REPLICA)"),
		millis("wait_zone", 0, "... for an agent in its volumes' zone (DVDI_WAIT_ZONE)"),
		millis("decline_unfit_offer_duration", 30_000, "for which offers are declined of agents that nothing which waits could use, whatever they had free"),
		number("max_moves", 0, "most instances that are moved to other agents at a time, 0: none ever is; the label DVDI_MOVE=false keeps an app's where they are"),
		toggle("move_draining", "move instances off agents whose maintenance is near, as --max_moves allows"),
		number("balance", 0, "move an instance where an agent has at least so many more than another, as --max_moves allows; 0: never"),
		millis("task_reservation_timeout", 20_000, "a reservation that no offer shows after this time is made again"),
		text("adopt", "", "ids of `FRAMEWORKS`, separated by commas, whose persistent volumes are taken over, such as a Marathon's that is gone for good"),
		text("decision_log", "", "`FILE` to log placement decisions to, for the command replay; older ones are in FILE.1 and so on"),
		number("decision_log_size", 64, "MiB of one file of that log; there are 4"),
		text("gpu_scheduling_behavior", "restricted", "\"unrestricted\": apps without GPUs may use agents with GPUs"),
		text("volume-classes", "", "YAML `FILE` with the volume classes that apps may name"),
		text("secrets-dir", "", "`DIR` whose files are the values of secrets by their source; others are left to the agents"),
		text("backend_exclusive_drivers", "", "volume drivers, separated by commas, whose backend itself refuses to attach a volume twice: "+
			"their volumes move as soon as their task has ended"),
		text("global_scope_drivers", "", "volume drivers, separated by commas, whose volumes are the same on all agents although the drivers "+
			"call themselves local, as those of network file systems may: without this a bridge's word binds their volumes to the agent that has them"),

		text("logging_level", "info", "debug, info, warn or error"),
		text("logging_format", "console", "console or json"),

		number("embedded-agents", 3, "agents of the built-in Mesos"),
		text("embedded-dir", "", "`DIR` of the built-in Mesos (default: mesos in the data directory)"),
		text("embedded-listen", "127.0.0.1:5050", "`ADDRESS` of the built-in Mesos' master"),
		text("embedded-dvdcli", "", "dvdcli for the built-in agents (default: beside this program, else on PATH)"),
	}
}

// FromCLI reads and checks the parsed flags. Errors are *Error.
func FromCLI(c *cli.Context) (*Config, error) {
	if c.Args().Present() {
		return nil, &Error{fmt.Errorf("unexpected argument %q: all settings are flags", c.Args().First())}
	}
	if err := applyFile(c); err != nil {
		return nil, &Error{err}
	}
	cfg := &Config{
		Master: c.String("master"), FrameworkName: c.String("framework_name"), Role: c.String("mesos_role"),
		User: c.String("mesos_user"), Hostname: c.String("hostname"), WebUIURL: c.String("webui_url"),
		Failover:   time.Duration(c.Int("failover_timeout")) * time.Second,
		Checkpoint: !c.Bool("disable_checkpoint"), DataDir: c.String("data-dir"),

		ZooKeeper: c.String("zk"), ZKSessionTimeout: ms(c, "zk_session_timeout"), ZKConnectTimeout: ms(c, "zk_connection_timeout"),
		ProxyConnectTimeout: ms(c, "leader_proxy_connection_timeout"), ProxyReadTimeout: ms(c, "leader_proxy_read_timeout"),
		ProxyCA: c.String("leader_proxy_ca"), ProxyAnyName: c.Bool("leader_proxy_ssl_ignore_hostname"),

		HTTPAddress: c.String("http_address"), HTTPPort: c.Int("http_port"), HTTPRealm: c.String("http_realm"),
		Compress: !c.Bool("disable_http_compression"), DisableHTTP: c.Bool("disable_http"), HTTPSPort: c.Int("https_port"), HTTPSCert: c.String("ssl_cert"), HTTPSKey: c.String("ssl_key"),
		SecretsDir:  c.String("secrets-dir"),
		AllowOrigin: c.String("access_control_allow_origin"), MaxConcurrent: c.Int("http_max_concurrent_requests"),
		EventBuffer: c.Int("event_stream_max_outstanding_messages"),

		Principal: c.String("mesos_authentication_principal"), Secret: c.String("mesos_authentication_secret"),
		SecretFile: c.String("mesos_authentication_secret_file"),
		MesosCA:    c.String("mesos_ca"), MesosCert: c.String("mesos_cert"), MesosKey: c.String("mesos_key"),

		BridgePort: c.Int("bridge_port"), BridgeToken: c.String("bridge_token_file"),
		BridgeCA: c.String("bridge_ca"), BridgeCert: c.String("bridge_cert"), BridgeKey: c.String("bridge_key"),

		Features: list(c.String("enable_features")), DefaultNetwork: c.String("default_network_name"),
		BridgeName: c.String("mesos_bridge_name"), EnvPrefix: c.String("env_vars_prefix"),
		Executor: c.String("executor"), AcceptByDefault: c.String("accepted_resource_roles_default_behavior"), GroupRole: c.String("new_group_enforce_role") == "top",
		ServicePorts: app.PortRange{Min: c.Int("local_port_min"), Max: c.Int("local_port_max")},

		LaunchTimeout: ms(c, "task_launch_timeout"), LaunchConfirm: ms(c, "task_launch_confirm_timeout"),
		ReconcileDelay: ms(c, "reconciliation_initial_delay"), ReconcileInterval: ms(c, "reconciliation_interval"),
		RestoreHold: ms(c, "restore_hold"), EndingHold: ms(c, "new_framework_id_hold"),
		DeclineFor: ms(c, "decline_offer_duration"), ReviveInterval: ms(c, "min_revive_offers_interval"),
		Suppress: !c.Bool("disable_suppress_offers"), MaxInstancesPerOffer: c.Int("max_instances_per_offer"),
		MaxChecks: c.Int("max_concurrent_marathon_health_checks"), MaxDeployments: c.Int("max_running_deployments"), MaintenanceMode: !c.Bool("disable_maintenance_mode"),
		Draining: time.Duration(c.Int("draining_seconds")) * time.Second,
		Pack:     c.String("placement") == "pack", Placement: c.String("placement"),
		Wait: scheduler.Wait{
			Attached: ms(c, "wait_attached"), LastAttached: ms(c, "wait_last_attached"),
			Replica: ms(c, "wait_replica"), Zone: ms(c, "wait_zone"),
		},
		DeclineUnfitFor: ms(c, "decline_unfit_offer_duration"),
		MaxMoves:        c.Int("max_moves"), MoveDraining: c.Bool("move_draining"), Balance: c.Int("balance"),
		ReservationTimeout: ms(c, "task_reservation_timeout"), Adopt: list(c.String("adopt")),
		DecisionLog: c.String("decision_log"), DecisionLogMiB: c.Int("decision_log_size"),
		RestrictGPUs:     c.String("gpu_scheduling_behavior") != "unrestricted",
		BackendExclusive: list(c.String("backend_exclusive_drivers")), GlobalScope: list(c.String("global_scope_drivers")),

		LogLevel: c.String("logging_level"), LogFormat: c.String("logging_format"),
		Embedded: Embedded{
			Agents: c.Int("embedded-agents"), Dir: c.String("embedded-dir"),
			Listen: c.String("embedded-listen"), DVDCLI: c.String("embedded-dvdcli"),
		},
	}
	if path := c.String("volume-classes"); path != "" {
		var err error
		if cfg.VolumeClasses, err = LoadVolumeClasses(path); err != nil {
			return nil, &Error{err}
		}
	}
	if err := checkWords(c); err != nil {
		return nil, &Error{err}
	}
	if err := cfg.check(c.String("http_credentials")); err != nil {
		return nil, &Error{err}
	}
	if err := cfg.complete(); err != nil {
		return nil, &Error{err}
	}
	return cfg, nil
}

func ms(c *cli.Context, flag string) time.Duration {
	return time.Duration(c.Int64(flag)) * time.Millisecond
}

func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// words are the values of flags that take one of a few.
var words = map[string][]string{
	"accepted_resource_roles_default_behavior": {app.AcceptAny, app.AcceptUnreserved, app.AcceptReserved},
	"new_group_enforce_role":                   {"off", "top"},
	"gpu_scheduling_behavior":                  {"restricted", "unrestricted"},
}

// checkWords refuses other values: a mistyped one would be taken for the default.
func checkWords(c *cli.Context) error {
	var errs []error
	for _, flag := range slices.Sorted(maps.Keys(words)) {
		if got := c.String(flag); !slices.Contains(words[flag], got) {
			errs = append(errs, fmt.Errorf("--%s: %q is none of %s", flag, got, strings.Join(words[flag], ", ")))
		}
	}
	return errors.Join(errs...)
}
