package config

import (
	"fmt"
	"strings"
)

// elsewhere says of Marathon's flags that this framework does not have what takes
// their place, for operators who bring Marathon's command line.
var elsewhere = map[string]string{
	"ssl_keystore_path":               "HTTPS takes PEM files: give --ssl_cert and --ssl_key",
	"ssl_keystore_password":           "HTTPS takes PEM files: give --ssl_cert and --ssl_key",
	"ha":                              "processes that share a --zk elect a leader, one with a --data-dir is alone",
	"disable_ha":                      "processes that share a --zk elect a leader, one with a --data-dir is alone",
	"checkpoint":                      "that is so unless --disable_checkpoint is given",
	"http_compression":                "that is so unless --disable_http_compression is given",
	"suppress_offers":                 "that is so unless --disable_suppress_offers is given",
	"maintenance_mode":                "that is so unless --disable_maintenance_mode is given",
	"mesos_authentication":            "it takes place where --mesos_authentication_principal and a secret are given",
	"disable_mesos_authentication":    "it takes place where --mesos_authentication_principal and a secret are given",
	"deprecated_features":             "no deprecated feature can be switched on",
	"scale_apps_initial_delay":        "apps are compared with their instances at every change",
	"scale_apps_interval":             "apps are compared with their instances at every change",
	"task_lost_expunge_initial_delay": "unreachable instances are looked at all the time",
	"task_lost_expunge_interval":      "unreachable instances are looked at all the time",
	"mesos_offer_constraints":         "the master is not told of constraints",
	"offer_matching_timeout":          "matching an offer takes no time worth a bound",
	"launch_tokens":                   "launches are not rationed",
	"launch_token_refresh_interval":   "launches are not rationed",
	"max_apps":                        "the number of apps is not bounded",
	"zk_timeout":                      "give --zk_session_timeout and --zk_connection_timeout",
	"zk_max_versions":                 "the last 50 versions of each app are kept",
	"zk_compression":                  "the state's form in ZooKeeper is not Marathon's",
	"disable_zk_compression":          "the state's form in ZooKeeper is not Marathon's",
	"zk_compression_threshold":        "the state's form in ZooKeeper is not Marathon's",
	"zk_max_node_size":                "the state's form in ZooKeeper is not Marathon's",
	"store_cache":                     "the state is in memory always",
	"disable_store_cache":             "the state is in memory always",
	"graceful_shutdown_timeout":       "requests under way are given 10 seconds",
	"on_elected_prepare_timeout":      "a new leader takes the time that it needs to read the state",
	"plugin_dir":                      "there are no plugins",
	"plugin_conf":                     "there are no plugins",
	"backup_location":                 "make backups with dvdi-framework backup FILE",
	"logstash":                        "write the log as JSON (--logging_format=json) and collect standard error",
	"sentry":                          "write the log as JSON (--logging_format=json) and collect standard error",
}

// notDefined is how the flag package begins to complain of a flag.
const notDefined = "flag provided but not defined: -"

// Explain adds to the error of a flag that is not known what takes its place, if
// it is one of Marathon's.
func Explain(err error) error {
	name, ok := strings.CutPrefix(err.Error(), notDefined)
	name = strings.TrimPrefix(name, "-")
	instead := elsewhere[name]
	if ok && instead == "" && strings.HasPrefix(name, "metrics_") {
		instead = "metrics are served at /metrics and /metrics/prometheus"
	}
	if instead == "" {
		return err
	}
	return fmt.Errorf("--%s is a flag of Marathon's that has no meaning here, remove it: %s", name, instead)
}
