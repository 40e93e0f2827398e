// Package agent is the embedded Mesos agent with its host: it runs tasks as
// real processes in sandboxes and mounts docker volumes through dvdcli. Its
// behaviour follows src/slave of Apache Mesos.
//
// An agent "process" is a set of goroutines. Killing it loses its memory and
// nothing else: executors and tasks are processes of their own, and the next
// agent process finds them again by what is on disk.
package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/dockervolume"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// version is that of the Mesos whose behaviour this is.
const version = "1.12.0"

const (
	// maxRetryFactor times the first interval is the longest one between two
	// sendings of an update (STATUS_UPDATE_RETRY_INTERVAL_MAX: 10 minutes
	// after 10 seconds).
	maxRetryFactor = 60
	// shutdownGrace is --executor_shutdown_grace_period.
	shutdownGrace = 5 * time.Second
	// defaultRecoveryTimeout is --recovery_timeout.
	defaultRecoveryTimeout = 15 * time.Minute
)

// Config describes an agent. Dir and Cable are required.
type Config struct {
	// Dir holds everything that the agent writes.
	Dir string
	// Hostname appears in offers; empty means localhost.
	Hostname string
	// Listen is the address of the HTTP endpoint; empty means 127.0.0.1 and,
	// if possible, the port of the last time.
	Listen string
	// Resources, Attributes and Domain are what the agent registers with.
	Resources  []mesos.Resource
	Attributes []mesos.Attribute
	Domain     *mesos.DomainInfo
	// Cable leads to the master.
	Cable *link.Cable
	// DVDCLI is the path of dvdcli. Empty means that tasks with docker volumes
	// fail.
	DVDCLI string
	// Env is added to dvdcli's environment, as KEY=value.
	Env []string
	// HostMounts are the keys of the mounts that are no volumes, see
	// executor.MountKeys.
	HostMounts []string
	// LinkVolumes has volumes linked into sandboxes instead of mounted.
	LinkVolumes bool
	// StatusRetry is the first interval between two sendings of an update
	// that is not acknowledged; zero means 10 s.
	StatusRetry time.Duration
	// MountTimeout and UnmountTimeout end a call of dvdcli; zero means 2 and
	// 10 minutes.
	MountTimeout, UnmountTimeout time.Duration
	// RecoveryTimeout is how long an executor goes on without an agent
	// process before it kills its task; zero means 15 minutes.
	RecoveryTimeout time.Duration
	// Credentials maps principals to secrets. When it is not empty, HTTP
	// requests need basic authentication.
	Credentials map[string]string
	// Logger is silent when nil.
	Logger *zap.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Cable == nil {
		return c, errors.New("embedded agent: the configuration lacks a directory or the cable to the master")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return c, err
	}
	if c.Hostname == "" {
		c.Hostname = "localhost"
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.StatusRetry, 10 * time.Second},
		{&c.MountTimeout, 120 * time.Second},
		{&c.UnmountTimeout, 10 * time.Minute},
		{&c.RecoveryTimeout, defaultRecoveryTimeout},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c, nil
}

func (c Config) client(gate *gate) *dockervolume.Client {
	return &dockervolume.Client{
		Path:           c.DVDCLI,
		Env:            c.Env,
		MountTimeout:   c.MountTimeout,
		UnmountTimeout: c.UnmountTimeout,
		Gate:           gate.wait,
	}
}

// capabilities are the agent's, of which the master makes no more than
// AGENT_OPERATION_FEEDBACK.
func capabilities() []mesos.AgentInfo_Capability {
	var list []mesos.AgentInfo_Capability
	for _, c := range []mesos.AgentInfo_Capability_Type{
		mesos.AgentInfo_Capability_MULTI_ROLE,
		mesos.AgentInfo_Capability_HIERARCHICAL_ROLE,
		mesos.AgentInfo_Capability_RESERVATION_REFINEMENT,
		mesos.AgentInfo_Capability_RESOURCE_PROVIDER,
		mesos.AgentInfo_Capability_RESIZE_VOLUME,
		mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
		mesos.AgentInfo_Capability_AGENT_DRAINING,
		mesos.AgentInfo_Capability_TASK_RESOURCE_LIMITS,
	} {
		list = append(list, mesos.AgentInfo_Capability{Type: c})
	}
	return list
}

// executorEnvironment is what executors inherit of this process's environment.
func executorEnvironment() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "MESOS_") || strings.HasPrefix(entry, "LIBPROCESS_")
	})
}

func ptr[T any](v T) *T { return &v }
