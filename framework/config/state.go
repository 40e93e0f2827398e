package config

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/detect"
)

// StateFlags are the flags of commands that work on the state alone. They are
// all of the framework's, so that its file of settings serves them, too.
func StateFlags() []cli.Flag { return Flags() }

// StateFromCLI reads where the state is and how to log; arguments are the
// command's own. Errors are *Error.
func StateFromCLI(c *cli.Context) (*Config, error) {
	if err := applyFile(c); err != nil {
		return nil, &Error{err}
	}
	cfg := &Config{
		DataDir: c.String("data-dir"), ZooKeeper: c.String("zk"),
		ZKSessionTimeout: ms(c, "zk_session_timeout"), ZKConnectTimeout: ms(c, "zk_connection_timeout"),
		LogLevel: c.String("logging_level"), LogFormat: c.String("logging_format"),
	}
	switch {
	case cfg.ZooKeeper != "":
		if _, err := detect.ParseEnsemble(cfg.ZooKeeper); err != nil {
			return nil, &Error{fmt.Errorf("--zk: %w", err)}
		}
	case cfg.DataDir == "":
		return nil, &Error{errors.New("--data-dir: say where the state is kept")}
	}
	return cfg, nil
}

// StatePlace says where the state is, fit for people.
func (c *Config) StatePlace() string {
	if c.ZooKeeper != "" {
		return WithoutCredentials(c.ZooKeeper)
	}
	return c.DataDir
}
