package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// settings is all that can be set, by flags, environment and file. The names in
// the file are those of the flags.
type settings struct {
	runDir, stateDir, hostDir, pluginDirs, policy string
	callTimeout, callMargin                       time.Duration
	interval, fullInterval                        time.Duration

	socket        string
	allowUsers    []int
	defaultDriver string

	agentURL, agentCA, agentCert, agentKey     string
	agentCredential, agentToken                string
	agentHolder, agentWorkDir, agentCgroupRoot string
	checkpointDir                              string
	leakGrace                                  time.Duration

	factsAddress, factsCert, factsKey, factsClientCA, factsToken string
	agentHostname, agentZone, agentLabels, attachLimits          string
	metricsAddress                                               string

	watchdog, watchdogSoftware, revokingDrivers string
	watchdogTimeout, fenceMargin                time.Duration

	logLevel, logFormat string
}

func defaultSettings() *settings {
	return &settings{
		policy: engine.DefaultPolicyFile, interval: 10 * time.Second, fullInterval: 2 * time.Minute,
		defaultDriver: "rexray", agentCgroupRoot: "mesos", leakGrace: time.Minute,
		watchdogSoftware: "false", watchdogTimeout: time.Minute, fenceMargin: 10 * time.Second,
		logLevel: "info", logFormat: "json",
	}
}

// defaultConfigFile is read if it exists.
const defaultConfigFile = "/etc/dvdi/isolator-bridge.yaml"

const flagConfig = "config"

// entry is one setting.
type entry struct {
	name, usage string
	// to is a pointer into settings: *string, *time.Duration or *[]int.
	to any
	// shared says that dvdcli has it too: then its variable is understood as
	// well, so that one environment file serves both.
	shared bool
}

// entries are all settings, in the order in which help shows them.
func (s *settings) entries() []entry {
	calls := engine.DefaultTimeouts()
	return []entry{
		{"run-dir", "`directory` of what is mounted (default /run/dvdi for root)", &s.runDir, true},
		{"state-dir", "`directory` of what survives a reboot (default /var/lib/dvdi for root)", &s.stateDir, true},
		{"host-dir", "`directory` in which the ledgers of this host know of each other", &s.hostDir, true},
		{"plugin-dirs", "`directories` with plugin sockets and specs, separated by colons (default: Docker's)", &s.pluginDirs, true},
		{"policy", "policy `file` of this agent", &s.policy, true},
		{"call-timeout", fmt.Sprintf("`time` for one call to a driver (default: %v for create and mount, else %v)", calls.Mount, calls.Query), &s.callTimeout, true},
		{"call-margin", fmt.Sprintf("`time` after which a driver that did not answer in its time is taken to have finished (default: %v)", calls.Margin), &s.callMargin, true},
		{"interval", "longest `time` between two looks at the ledger; the agent is asked every third time", &s.interval, false},
		{"full-interval", "longest `time` between two looks at every volume", &s.fullInterval, false},

		{"socket", "Unix `socket` of the isolator's API (default: bridge.sock in the run directory; none: no API)", &s.socket, false},
		{"allow-users", "`ids` of users that may use the API besides root and the bridge's own, separated by commas", &s.allowUsers, false},
		{"default-driver", "`driver` of volumes for which an environment names none", &s.defaultDriver, false},

		{"agent-url", "`URL` of the agent, such as http://127.0.0.1:5051; without it nothing is taken for a leak", &s.agentURL, false},
		{"agent-ca", "`file` with the certificates that sign the agent's", &s.agentCA, false},
		{"agent-cert", "`file` with the certificate towards the agent", &s.agentCert, false},
		{"agent-key", "`file` with its key", &s.agentKey, false},
		{"agent-credential", "`file` with principal and secret towards the agent, as Mesos's --credential", &s.agentCredential, false},
		{"agent-token", "`file` with a bearer token towards the agent", &s.agentToken, false},
		{"agent-holder", "`name` by which the agent's dvdcli holds volumes (default: mesos-agent: and --agent-work-dir, without that the only mesos-agent:DIRECTORY that there is; DVDCLI_HOLDER)", &s.agentHolder, false},
		{"agent-work-dir", "the agent's --work_dir `directory` as the agent was given it: it tells this agent's volumes from those of others, and in it stands which containers have ended", &s.agentWorkDir, false},
		{"agent-cgroups-root", "the agent's --cgroups_root", &s.agentCgroupRoot, false},
		{"checkpoint-dir", "the agent's --docker_volume_checkpoint_dir `directory` (default with --agent-url: Mesos's own)", &s.checkpointDir, false},
		{"leak-grace", "`time` for which a volume that no container uses any more is left to the agent", &s.leakGrace, false},

		{"facts-address", "`address` at which frameworks are served (default :9861 once there are credentials; none: nowhere)", &s.factsAddress, false},
		{"facts-token", "`file` with the bearer token that frameworks have to send", &s.factsToken, false},
		{"facts-cert", "`file` with the certificate shown to frameworks", &s.factsCert, false},
		{"facts-key", "`file` with its key", &s.factsKey, false},
		{"facts-client-ca", "`file` with the certificates that sign those of frameworks", &s.factsClientCA, false},
		{"agent-hostname", "the agent's --hostname (default: this host's name)", &s.agentHostname, false},
		{"agent-zone", "`zone` of the agent's storage, told to frameworks", &s.agentZone, false},
		{"agent-labels", "`labels` told to frameworks, as key=value separated by commas", &s.agentLabels, false},
		{"attach-limits", "how many volumes can be attached, as `driver=number` separated by commas", &s.attachLimits, false},

		{"watchdog", "watchdog `device`, such as /dev/watchdog, that resets this host when the lease of a mounted volume is over and its users cannot be stopped", &s.watchdog, false},
		{"watchdog-software", "true: rely on the kernel's software watchdog; this host is never suspended or paused", &s.watchdogSoftware, false},
		{"watchdog-timeout", "`time` after which the watchdog resets this host; a restart of the bridge must be faster", &s.watchdogTimeout, false},
		{"fence-margin", "`time` for writes to arrive that are on their way when this host is reset", &s.fenceMargin, false},
		{"revoking-drivers", "`drivers` whose backend revokes an old attachment, separated by commas", &s.revokingDrivers, false},

		{"metrics-address", "`address` at which Prometheus gets /metrics, such as 127.0.0.1:9862; empty: nowhere", &s.metricsAddress, false},

		{"log-level", "debug, info, warn or error", &s.logLevel, false},
		{"log-format", "json or console", &s.logFormat, false},
	}
}

// variables are the names in the environment, in the order in which they count.
func (e entry) variables() []string {
	name := strings.ToUpper(strings.ReplaceAll(e.name, "-", "_"))
	out := []string{"DVDI_BRIDGE_" + name}
	if e.shared {
		out = append(out, "DVDCLI_"+name)
	}
	if e.name == "agent-holder" {
		out = append(out, "DVDCLI_HOLDER")
	}
	return out
}

// flags makes the command's flags. Their values go through set, as do those of
// the file.
func flags() []cli.Flag {
	out := []cli.Flag{&cli.StringFlag{Name: flagConfig, Usage: "YAML `file` with settings, named as the flags",
		DefaultText: defaultConfigFile + " if it exists", EnvVars: []string{"DVDI_BRIDGE_CONFIG"}}}
	for _, e := range defaultSettings().entries() {
		out = append(out, &cli.StringFlag{Name: e.name, Usage: e.usage, EnvVars: e.variables(), DefaultText: e.text()})
	}
	return out
}

// text is the value as set would take it.
func (e entry) text() string {
	switch v := e.to.(type) {
	case *string:
		return *v
	case *time.Duration:
		if *v == 0 {
			return ""
		}
		return v.String()
	case *[]int:
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(*v), " ", ","), "[]")
	}
	return ""
}

// set gives the setting a value from text.
func (e entry) set(text string) error {
	switch v := e.to.(type) {
	case *string:
		*v = text
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%s: %q is no duration; write one such as 10s", e.name, text)
		}
		*v = d
	case *[]int:
		*v = nil
		for _, piece := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
			var n int
			if _, err := fmt.Sscanf(piece, "%d", &n); err != nil || n < 0 || fmt.Sprint(n) != piece {
				return fmt.Errorf("%s: %q is no user id", e.name, piece)
			}
			*v = append(*v, n)
		}
	default:
		return fmt.Errorf("%s: cannot be set", e.name)
	}
	return nil
}

// loadSettings reads the file, then the environment and the flags over it.
func loadSettings(c *cli.Context) (*settings, error) {
	s := defaultSettings()
	file, named := c.String(flagConfig), c.IsSet(flagConfig)
	if err := s.readFile(file, named); err != nil {
		return nil, err
	}
	for _, e := range s.entries() {
		if c.IsSet(e.name) {
			if err := e.set(c.String(e.name)); err != nil {
				return nil, err
			}
		}
	}
	return s, s.check()
}

// readFile reads a settings file; the default one, where none is named, need not
// exist.
func (s *settings) readFile(file string, named bool) error {
	if !named {
		file = defaultConfigFile
	}
	data, err := inputfile.Read(file)
	switch {
	case err == nil:
		if err := s.readYAML(data); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	case named || !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// readYAML takes in a file: one mapping of names to values.
func (s *settings) readYAML(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var values map[string]yaml.Node
	if err := decoder.Decode(&values); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}
	for _, e := range s.entries() {
		node, given := values[e.name]
		if !given {
			continue
		}
		delete(values, e.name)
		text, err := scalarText(&node)
		if err != nil {
			return fmt.Errorf("%s (line %d): %w", e.name, node.Line, err)
		}
		if err := e.set(text); err != nil {
			return fmt.Errorf("line %d: %w", node.Line, err)
		}
	}
	for name, node := range values {
		return fmt.Errorf("line %d: unknown setting %q; see `isolator-bridge serve --help`", node.Line, name)
	}
	return nil
}

// scalarText is a scalar as written, or a list of them joined by commas.
func scalarText(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", errors.New("a value is missing")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		var pieces []string
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode {
				return "", errors.New("a list of single values is expected")
			}
			pieces = append(pieces, c.Value)
		}
		return strings.Join(pieces, ","), nil
	}
	return "", errors.New("a single value or a list is expected")
}

// checkAgentURL refuses what is no address of an agent. Credentials are for files:
// the URL is logged.
func (s *settings) checkAgentURL() error {
	if s.agentURL == "" {
		for name, value := range map[string]string{"agent-ca": s.agentCA, "agent-cert": s.agentCert, "agent-credential": s.agentCredential, "agent-token": s.agentToken} {
			if value != "" {
				return fmt.Errorf("%s: there is no agent without --agent-url", name)
			}
		}
		return nil
	}
	u, err := url.Parse(s.agentURL)
	switch {
	case err != nil:
		return errors.New("agent-url: it is no URL")
	case u.User != nil:
		return errors.New("agent-url: it holds credentials; give them with --agent-credential or --agent-token")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return fmt.Errorf("agent-url: %q is not http:// or https:// and a host", s.agentURL)
	}
	return nil
}

// mesosCheckpoints is Mesos's default of --docker_volume_checkpoint_dir.
const mesosCheckpoints = "/var/run/mesos/isolators/docker/volume"

func (s *settings) check() error {
	for _, e := range s.entries() {
		switch e.name {
		case "run-dir", "state-dir", "host-dir", "checkpoint-dir", "agent-work-dir":
			if dir := e.text(); dir != "" && !filepath.IsAbs(dir) {
				return fmt.Errorf("%s: %q is not absolute", e.name, dir)
			}
		case "interval", "full-interval":
			if e.text() == "" {
				return fmt.Errorf("%s: must be more than 0", e.name)
			}
		}
	}
	if err := s.checkAgentURL(); err != nil {
		return err
	}
	if s.socket != "" && s.socket != noSocket && !filepath.IsAbs(s.socket) {
		return fmt.Errorf("socket: %q is not absolute", s.socket)
	}
	if (s.agentCert == "") != (s.agentKey == "") {
		return errors.New("agent-cert and agent-key: give both or none")
	}
	if s.agentCredential != "" && s.agentToken != "" {
		return errors.New("agent-credential and agent-token: give one of them")
	}
	if s.agentURL != "" && s.checkpointDir == "" {
		s.checkpointDir = mesosCheckpoints
	}
	if s.logFormat != "json" && s.logFormat != "console" {
		return fmt.Errorf("log-format: %q is none of json, console", s.logFormat)
	}
	return nil
}
