// Package mesos connects the framework's core to a Mesos master through the v1
// scheduler API (docs/scheduler-http-api.md of apache/mesos) and translates
// between the core's types and Mesos' wire types. It is the only package of the
// framework that sees wire types.
//
// Not everything in an app can be sent. A *core.InvalidTaskError says so for
// external volumes of the provider csi (mesos-go 0.0.11 has no CSI_VOLUME), for
// secret volumes in DOCKER containers, and for variables of DOCKER containers
// whose secret has no known value. A general HTTP check has no scheme in Mesos
// and is always by http. Health checks of protocol HTTP, HTTPS and TCP are the
// framework's own work and not sent.
package mesos

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// Detector finds the leading master. Package detect implements it for the forms
// of --master.
type Detector interface {
	// Leader waits until a master leads, or ctx ends. Each call may return
	// another candidate: a list of addresses is tried in turn.
	Leader(ctx context.Context) (detect.Leader, error)
}

// Config says where the master is and who the framework is. Detector, Name and
// at least one role are required.
type Config struct {
	Detector Detector

	// FrameworkInfo.
	Name            string
	User            string // default user of tasks
	Roles           []string
	FailoverTimeout time.Duration
	Checkpoint      bool
	Hostname        string
	WebUIURL        string
	GPUs            bool // announce GPU_RESOURCES: agents with GPUs send offers
	// AsRegistered subscribes with what the master knows of a framework that has
	// an id, and changes nothing of it but the principal; the above is for a
	// master that does not tell.
	AsRegistered bool

	// Principal authenticates the framework and owns its reservations. The
	// secret is either given or read from SecretFile at each subscription,
	// so that it can be changed under a running framework.
	Principal  string
	Secret     string
	SecretFile string
	// TLS is used for https masters; a master without a scheme is spoken to
	// by https when TLS is set. Nil: plain http, system roots for https URLs.
	TLS *tls.Config

	// Dial opens the connections to masters, nil: as net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Tasks are the settings for what a task sees.
	Tasks TaskConfig

	// Zero values of the following mean the defaults in brackets.

	CallTimeout       time.Duration // per call, and for the answer to SUBSCRIBE [30s]
	MissedHeartbeats  int           // intervals without a sign of life before a new subscription [5]
	HeartbeatInterval time.Duration // assumed until the master names its own [15s]
	MinBackoff        time.Duration // first pause between subscriptions [200ms]
	MaxBackoff        time.Duration // longest pause [30s]
	MaxFrame          int64         // largest event in bytes [64 MiB]
}

// TaskConfig are the settings for the translation of tasks.
type TaskConfig struct {
	// EnvPrefix is put before the names of PORT* and HOST variables.
	EnvPrefix string
	// BridgeName is the CNI network of bridge mode in a MESOS container
	// [mesos-bridge].
	BridgeName string
	// EnforceGroupRole tells whether an app's group enforces its role, for
	// MARATHON_APP_ENFORCE_GROUP_ROLE. Nil: it never does.
	EnforceGroupRole func(appID string) bool
	// DefaultExecutor is used by apps that name none ["//cmd"].
	DefaultExecutor string
}

func (c Config) withDefaults() Config {
	setDefault(&c.CallTimeout, 30*time.Second)
	setDefault(&c.MissedHeartbeats, 5)
	setDefault(&c.HeartbeatInterval, 15*time.Second)
	setDefault(&c.MinBackoff, 200*time.Millisecond)
	setDefault(&c.MaxBackoff, 30*time.Second)
	setDefault(&c.MaxFrame, 64<<20)
	setDefault(&c.Tasks.BridgeName, "mesos-bridge")
	setDefault(&c.Tasks.DefaultExecutor, commandExecutor)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c Config) validate() error {
	var errs []error
	if c.Detector == nil {
		errs = append(errs, errors.New("no detector of the leading master"))
	}
	if c.Name == "" {
		errs = append(errs, errors.New("the framework has no name"))
	}
	if len(c.Roles) == 0 {
		errs = append(errs, errors.New("the framework has no role"))
	}
	if c.Secret != "" && c.SecretFile != "" {
		errs = append(errs, errors.New("both a secret and a secret file are given: give one"))
	}
	if c.Principal == "" && (c.Secret != "" || c.SecretFile != "") {
		errs = append(errs, errors.New("a secret needs a principal"))
	}
	if _, _, err := c.secret(); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("configure the Mesos connection: %w", err)
	}
	return nil
}

// secret returns the secret to authenticate with; ok is false when the
// framework does not authenticate.
func (c Config) secret() (secret string, ok bool, err error) {
	if c.SecretFile == "" {
		return c.Secret, c.Secret != "", nil
	}
	data, err := inputfile.Read(c.SecretFile)
	if err != nil {
		return "", false, fmt.Errorf("read the secret of Mesos principal %q: %w", c.Principal, err)
	}
	return strings.TrimRight(string(data), "\r\n"), true, nil
}
