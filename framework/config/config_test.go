package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// read parses a command line as main does.
func read(t *testing.T, args ...string) (*Config, error) {
	t.Helper()
	var cfg *Config
	a := &cli.App{Name: "dvdi-framework", Flags: Flags(), Writer: &strings.Builder{}, ErrWriter: &strings.Builder{},
		Action: func(c *cli.Context) (err error) {
			cfg, err = FromCLI(c)
			return err
		}}
	return cfg, a.Run(append([]string{"dvdi-framework"}, args...))
}

func TestDefaultsAreMarathons(t *testing.T) {
	cfg, err := read(t, "--master", "m:5050")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Role != "*" || cfg.HTTPPort != 8080 || cfg.Failover != 7*24*time.Hour || !cfg.Checkpoint ||
		cfg.DeclineFor != 2*time.Minute || cfg.ReviveInterval != 5*time.Second || !cfg.Suppress ||
		!cfg.MaintenanceMode || !cfg.RestrictGPUs || cfg.MaxDeployments != 100 {
		t.Errorf("%+v", cfg)
	}
	if !cfg.Feature("external_volumes") || cfg.Feature("secrets") {
		t.Errorf("features: %v", cfg.Features)
	}
	if cfg.Hostname == "" || cfg.User == "" || cfg.HTTPListen() != ":8080" {
		t.Errorf("%+v", cfg)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("DVDI_MASTER", "embedded")
	t.Setenv("DVDI_HTTP_PORT", "9000")
	t.Setenv("DVDI_DATA_DIR", "/tmp/state")
	cfg, err := read(t, "--http_port", "9001")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Master != EmbeddedMaster || cfg.DataDir != "/tmp/state" || cfg.HTTPPort != 9001 {
		t.Errorf("%+v", cfg)
	}
}

func TestMistakesNameTheFlag(t *testing.T) {
	for flag, args := range map[string][]string{
		"master":                         {},
		"http_port":                      {"--master=m", "--http_port=70000"},
		"mesos_role":                     {"--master=m", "--mesos_role=a b"},
		"failover_timeout":               {"--master=m", "--failover_timeout=0"},
		"http_credentials":               {"--master=m", "--http_credentials=nopassword"},
		"mesos_authentication_secret":    {"--master=m", "--mesos_authentication_principal=p", "--mesos_authentication_secret=s", "--mesos_authentication_secret_file=/f"},
		"mesos_authentication_principal": {"--master=m", "--mesos_authentication_secret=s"},
		"bridge_cert":                    {"--master=m", "--bridge_cert=/c"},
		"bridge_port":                    {"--master=m", "--bridge_port=0"},
		"mesos_cert":                     {"--master=m", "--mesos_cert=/c"},
		"enable_features":                {"--master=m", "--enable_features=magic"},
		"local_port_min":                 {"--master=m", "--local_port_min=20000"},
		"data-dir":                       {"--master=m", "--data-dir="},
		"embedded-agents":                {"--master=embedded", "--embedded-agents=0"},
		"logging_format":                 {"--master=m", "--logging_format=xml"},
		"placement":                      {"--master=m", "--placement=random"},
		"accepted_resource_roles_default_behavior": {"--master=m", "--accepted_resource_roles_default_behavior=some"},
		"new_group_enforce_role":                   {"--master=m", "--new_group_enforce_role=Top"},
		"gpu_scheduling_behavior":                  {"--master=m", "--gpu_scheduling_behavior=none"},
		"max_moves":                                {"--master=m", "--move_draining"},
		"balance":                                  {"--master=m", "--max_moves=1", "--balance=1"},
		"decision_log_size":                        {"--master=m", "--decision_log_size=0"},
		"argument \"extra\"":                       {"--master=m", "extra"},
	} {
		_, err := read(t, args...)
		var mistake *Error
		if !errors.As(err, &mistake) || !strings.Contains(err.Error(), flag) {
			t.Errorf("%v: error %v does not name %s", args, err, flag)
		}
	}
}

func TestPlacementFlags(t *testing.T) {
	cfg, err := read(t, "--master=m", "--placement=pack", "--wait_attached=1000", "--wait_last_attached=2000", "--wait_replica=3000",
		"--wait_zone=4000", "--adopt=f1,f2", "--max_moves=3", "--move_draining", "--task_reservation_timeout=7000")
	if err != nil {
		t.Fatal(err)
	}
	want := scheduler.Wait{Attached: time.Second, LastAttached: 2 * time.Second, Replica: 3 * time.Second, Zone: 4 * time.Second}
	if cfg.Wait != want || !cfg.Pack || cfg.MaxMoves != 3 || !cfg.MoveDraining ||
		cfg.ReservationTimeout != 7*time.Second || len(cfg.Adopt) != 2 {
		t.Errorf("%+v", cfg)
	}
}

func TestBalanceAndPackContradict(t *testing.T) {
	if cfg, err := read(t, "--master=m", "--max_moves=3", "--balance=5"); err != nil || cfg.Balance != 5 {
		t.Errorf("%+v, %v", cfg, err)
	}
	if _, err := read(t, "--master=m", "--placement=pack", "--max_moves=3", "--balance=5"); err == nil || !strings.Contains(err.Error(), "balance") {
		t.Errorf("both: %v", err)
	}
}

func TestInfoHoldsNoSecrets(t *testing.T) {
	cfg, err := read(t, "--master=zk://me:hunter2@h:2181/mesos", "--http_credentials=user:hunter2",
		"--mesos_authentication_principal=p", "--mesos_authentication_secret=hunter2")
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range cfg.Marathon() {
		if s, ok := value.(string); ok && strings.Contains(s, "hunter2") {
			t.Errorf("%s shows a secret", key)
		}
	}
	if cfg.HTTPUser != "user" || cfg.HTTPPassword != "hunter2" {
		t.Errorf("credentials: %q %q", cfg.HTTPUser, cfg.HTTPPassword)
	}
}

// The settings of the installation with three nodes are taken as they stand.
func TestExampleOfThreeNodes(t *testing.T) {
	cfg, err := read(t, "--config", "../../examples/ha/framework.yaml", "--hostname", "node1")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Role != "db" || cfg.Failover != 7*24*time.Hour {
		t.Errorf("%+v", cfg)
	}
}
