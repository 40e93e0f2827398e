package embeddedmesos

import (
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"go.uber.org/zap"
)

// Config describes a cluster.
type Config struct {
	// Dir keeps everything that master and agents write. A cluster started
	// again on the same directory recovers its agents and their tasks. Two
	// running clusters must not share one.
	Dir string
	// Listen is the address of the master's HTTP endpoint; empty means
	// 127.0.0.1 and a free port.
	Listen string
	// Agents lists the agents to start. The position in the list is the
	// agent's identity: on a restart, agent n finds agent n's state again.
	Agents []AgentConfig
	// DVDCLI is the path of the dvdcli binary that the docker/volume isolator
	// executes; empty means that it is searched on PATH, and that tasks with
	// docker volumes fail if it is not there.
	DVDCLI string
	// Logger receives what master and agents have to say; nil discards it.
	Logger *zap.Logger
	// Timing holds every interval; the zero value means DefaultTiming.
	Timing Timing
	// Credentials maps principals to secrets. When it is not empty, every HTTP
	// request to the master and the agents needs basic authentication.
	Credentials map[string]string
	// Roles are all that frameworks may subscribe to beside "*", as the
	// master's flag --roles; any when empty.
	Roles []string
}

// AgentConfig describes one agent.
type AgentConfig struct {
	// Hostname appears in offers; tasks' ports must be reachable under it.
	// Empty means localhost.
	Hostname string
	// CPUs, MemMiB and DiskMiB are what the agent offers; zero means 4 CPUs,
	// 4096 MiB of memory and 10240 MiB of disk.
	CPUs, MemMiB, DiskMiB float64
	// Ports is the offered range, both ends included; zero means a range of
	// 1000 ports that no other agent of the cluster has by default.
	Ports [2]uint64
	// Attributes become TEXT attributes of the agent, in the order of their
	// names.
	Attributes map[string]string
	// AttributeList, when given, is used instead of Attributes, in its order.
	AttributeList []mesos.Attribute
	// Region and Zone form the agent's fault domain; both empty means none.
	Region, Zone string
	// Env is added to the environment of dvdcli, as KEY=value.
	Env []string
	// Disks are offered beside the root disk.
	Disks []Disk
	// Resources, when given, is offered instead of CPUs, MemMiB, DiskMiB, Ports
	// and Disks.
	Resources []mesos.Resource
}

// Disk is a disk of an agent beside its root disk.
type Disk struct {
	// Mount disks are used whole by one volume; others are of type PATH, and
	// volumes are directories on them.
	Mount bool
	// Root is its directory, which must exist.
	Root    string
	MiB     float64
	Profile string // empty for none
}

func (d Disk) resource() mesos.Resource {
	r := resources.NewDisk(d.MiB).Resource
	source := &mesos.Resource_DiskInfo_Source{
		Type: mesos.Resource_DiskInfo_Source_PATH, Path: &mesos.Resource_DiskInfo_Source_Path{Root: &d.Root},
	}
	if d.Mount {
		source = &mesos.Resource_DiskInfo_Source{
			Type: mesos.Resource_DiskInfo_Source_MOUNT, Mount: &mesos.Resource_DiskInfo_Source_Mount{Root: &d.Root},
		}
	}
	if d.Profile != "" {
		source.Profile = &d.Profile
	}
	r.Disk = &mesos.Resource_DiskInfo{Source: source}
	return r
}

// Timing holds the intervals of a cluster. A field that is zero takes its
// value from DefaultTiming.
type Timing struct {
	// Heartbeat is the interval of HEARTBEAT events to frameworks.
	Heartbeat time.Duration
	// AgentPing is the interval of the master's pings of an agent;
	// AgentPingTimeouts pings without an answer make it unreachable.
	AgentPing         time.Duration
	AgentPingTimeouts int
	// Allocation is the interval of the allocator's rounds.
	Allocation time.Duration
	// AgentReregister is how long a master that has just started waits for
	// the agents that it knows from before.
	AgentReregister time.Duration
	// StatusRetry is the first interval after which an update that nobody
	// acknowledged is sent again; it doubles up to 60 times its value.
	StatusRetry time.Duration
	// MountTimeout and UnmountTimeout end a call of dvdcli with SIGKILL.
	MountTimeout, UnmountTimeout time.Duration
}

// DefaultTiming returns the values that Apache Mesos has by default
// (src/master/constants.cpp, src/slave/constants.cpp, and
// isolators/docker/volume/driver.cpp).
func DefaultTiming() Timing {
	return Timing{
		Heartbeat:         15 * time.Second,
		AgentPing:         15 * time.Second,
		AgentPingTimeouts: 5,
		Allocation:        time.Second,
		AgentReregister:   10 * time.Minute,
		StatusRetry:       10 * time.Second,
		MountTimeout:      120 * time.Second,
		UnmountTimeout:    10 * time.Minute,
	}
}

// FastTiming returns values for demonstrations and tests, in which nobody
// wants to wait over a minute until a lost agent is noticed. The time-outs of
// dvdcli calls stay as they are, since no test waits for them.
func FastTiming() Timing {
	t := DefaultTiming()
	// Not shorter, both: on a busy machine the master would be taken for a silent one,
	// and an agent for a lost one.
	t.Heartbeat = 5 * time.Second
	t.AgentPing = time.Second
	t.AgentPingTimeouts = 5
	t.Allocation = 100 * time.Millisecond
	t.AgentReregister = 10 * time.Second
	t.StatusRetry = time.Second
	return t
}

// withDefaults fills the zero fields.
func (t Timing) withDefaults() Timing {
	d := DefaultTiming()
	for _, f := range []struct{ have, want *time.Duration }{
		{&t.Heartbeat, &d.Heartbeat},
		{&t.AgentPing, &d.AgentPing},
		{&t.Allocation, &d.Allocation},
		{&t.AgentReregister, &d.AgentReregister},
		{&t.StatusRetry, &d.StatusRetry},
		{&t.MountTimeout, &d.MountTimeout},
		{&t.UnmountTimeout, &d.UnmountTimeout},
	} {
		if *f.have == 0 {
			*f.have = *f.want
		}
	}
	if t.AgentPingTimeouts == 0 {
		t.AgentPingTimeouts = d.AgentPingTimeouts
	}
	return t
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("the configuration names no directory")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return c, err
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Timing = c.Timing.withDefaults()
	c.DVDCLI, err = findDVDCLI(c.DVDCLI)
	return c, err
}

// findDVDCLI checks a given path, and searches PATH without one; finding
// nothing there is no failure.
func findDVDCLI(path string) (string, error) {
	if path == "" {
		found, err := exec.LookPath("dvdcli")
		if errors.Is(err, exec.ErrNotFound) {
			return "", nil
		}
		return found, err
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", fmt.Errorf("dvdcli: %w (build it, or correct the path)", err)
	}
	return filepath.Abs(found)
}

// domain is the master's: agents that have one are refused by a master that
// has none.
func (c Config) domain() *mesos.DomainInfo {
	for _, a := range c.Agents {
		if d := a.domain(); d != nil {
			return d
		}
	}
	return nil
}

func (a AgentConfig) domain() *mesos.DomainInfo {
	if a.Region == "" && a.Zone == "" {
		return nil
	}
	return &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
		Region: mesos.DomainInfo_FaultDomain_RegionInfo{Name: a.Region},
		Zone:   mesos.DomainInfo_FaultDomain_ZoneInfo{Name: a.Zone},
	}}
}

func (a AgentConfig) attributes() []mesos.Attribute {
	if a.AttributeList != nil {
		return a.AttributeList
	}
	var list []mesos.Attribute
	for _, name := range slices.Sorted(maps.Keys(a.Attributes)) {
		list = append(list, mesos.Attribute{
			Name: name,
			Type: mesos.TEXT,
			Text: &mesos.Value_Text{Value: a.Attributes[name]},
		})
	}
	return list
}

// resources of agent n of the cluster, counted from 0.
func (a AgentConfig) resources(n int) []mesos.Resource {
	if a.Resources != nil {
		return a.Resources
	}
	orDefault := func(value, otherwise float64) float64 {
		if value == 0 {
			return otherwise
		}
		return value
	}
	ports := a.Ports
	if ports == [2]uint64{} {
		first := uint64(31000 + 1000*n)
		ports = [2]uint64{first, first + 999}
	}
	list := []mesos.Resource{
		resources.NewCPUs(orDefault(a.CPUs, 4)).Resource,
		resources.NewMemory(orDefault(a.MemMiB, 4096)).Resource,
		resources.Build().Name(resources.NamePorts).Ranges(
			resources.BuildRanges().Span(ports[0], ports[1]).Ranges).Resource,
		resources.NewDisk(orDefault(a.DiskMiB, 10240)).Resource,
	}
	for _, d := range a.Disks {
		list = append(list, d.resource())
	}
	return list
}
