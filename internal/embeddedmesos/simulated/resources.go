package simulated

import (
	"fmt"
	"maps"
	"slices"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
)

func (c *AgentConfig) domain() *mesos.DomainInfo {
	if c.Region == "" && c.Zone == "" {
		return nil
	}
	return &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
		Region: mesos.DomainInfo_FaultDomain_RegionInfo{Name: c.Region},
		Zone:   mesos.DomainInfo_FaultDomain_ZoneInfo{Name: c.Zone},
	}}
}

func (c *AgentConfig) attributes() []mesos.Attribute {
	var list []mesos.Attribute
	for _, name := range slices.Sorted(maps.Keys(c.Attributes)) {
		list = append(list, mesos.Attribute{Name: name, Type: mesos.TEXT, Text: &mesos.Value_Text{Value: c.Attributes[name]}})
	}
	return list
}

func (c *AgentConfig) resources() []mesos.Resource {
	either := func(v, otherwise float64) float64 {
		if v == 0 {
			return otherwise
		}
		return v
	}
	list := []mesos.Resource{
		resources.NewCPUs(either(c.CPUs, 4)).Resource,
		resources.NewMemory(either(c.MemMiB, 4096)).Resource,
		resources.Build().Name(resources.NamePorts).Ranges(resources.BuildRanges().Span(31000, 31999).Ranges).Resource,
		resources.NewDisk(either(c.DiskMiB, 10240)).Resource,
	}
	for i, size := range c.MountDisks {
		disk := resources.NewDisk(size).Resource
		root := fmt.Sprintf("/mnt/disk%d", i)
		disk.Disk = &mesos.Resource_DiskInfo{Source: &mesos.Resource_DiskInfo_Source{
			Type: mesos.Resource_DiskInfo_Source_MOUNT, Mount: &mesos.Resource_DiskInfo_Source_Mount{Root: &root},
		}}
		list = append(list, disk)
	}
	return list
}

// disks are what an agent has on disk beyond its configuration: dynamic
// reservations and persistent volumes.
type disks struct{ checkpointed mesos.Resources }

// apply carries out an operation, or fails and changes nothing.
func (d *disks) apply(o *mesos.Offer_Operation) error {
	have := d.checkpointed.Clone()
	switch {
	case o.Reserve != nil:
		have = have.Plus(unallocated(o.Reserve.Resources)...)
	case o.Unreserve != nil:
		if err := subtract(&have, unallocated(o.Unreserve.Resources)); err != nil {
			return err
		}
	case o.Create != nil:
		for _, v := range unallocated(o.Create.Volumes) {
			if disk := withoutVolume(v); resources.Contains(have, disk) {
				have.Subtract(disk)
			}
			have.Add(v)
		}
	case o.Destroy != nil:
		volumes := unallocated(o.Destroy.Volumes)
		if err := subtract(&have, volumes); err != nil {
			return err
		}
		for _, v := range volumes {
			if disk := withoutVolume(v); disk.IsDynamicallyReserved() {
				have.Add(disk)
			}
		}
	default:
		return fmt.Errorf("simulated agents have no operation %v", o.Type)
	}
	d.checkpointed = have
	return nil
}

// volumes are the ids of the persistent volumes.
func (d *disks) volumes() []string {
	var ids []string
	for i := range d.checkpointed {
		if r := &d.checkpointed[i]; r.IsPersistentVolume() {
			ids = append(ids, r.Disk.Persistence.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func subtract(have *mesos.Resources, what []mesos.Resource) error {
	for _, r := range what {
		if !resources.Contains(*have, r) {
			return fmt.Errorf("the agent does not have %s", mesos.Resources{r})
		}
		have.Subtract(r)
	}
	return nil
}

func unallocated(list []mesos.Resource) []mesos.Resource {
	out := mesos.Resources(list).Clone()
	for i := range out {
		out[i].AllocationInfo = nil
	}
	return out
}

// withoutVolume is the disk that a persistent volume was made of.
func withoutVolume(r mesos.Resource) mesos.Resource {
	if source := r.Disk.GetSource(); source != nil {
		r.Disk = &mesos.Resource_DiskInfo{Source: source}
	} else {
		r.Disk = nil
	}
	r.Shared = nil
	return r
}

// amounts totals what tasks use, reserved or not, by name; disks of their own
// are counted by their root.
type amounts struct {
	scalars map[string]float64
	shared  map[string]bool // persistence ids that were added
	ports   map[uint64]bool
	twice   []uint64 // ports that were added a second time
}

func newAmounts() *amounts {
	return &amounts{scalars: make(map[string]float64), shared: make(map[string]bool), ports: make(map[uint64]bool)}
}

func (a *amounts) add(list []mesos.Resource) {
	for i := range list {
		r := &list[i]
		if r.Shared != nil {
			id := r.Disk.GetPersistence().GetID()
			if a.shared[id] {
				continue // it takes up its disk once
			}
			a.shared[id] = true
		}
		switch r.GetType() {
		case mesos.SCALAR:
			a.scalars[r.GetName()+r.Disk.GetSource().GetMount().GetRoot()] += r.GetScalar().GetValue()
		case mesos.RANGES:
			for _, span := range r.GetRanges().GetRange() {
				for p := span.Begin; p <= span.End; p++ {
					if a.ports[p] {
						a.twice = append(a.twice, p)
					}
					a.ports[p] = true
				}
			}
		}
	}
}

// beyond says what is used that is not there.
func (a *amounts) beyond(all *amounts) error {
	const precision = 0.0005 // Mesos has three decimal digits
	for _, name := range slices.Sorted(maps.Keys(a.scalars)) {
		if used := a.scalars[name]; used > all.scalars[name]+precision {
			return fmt.Errorf("%g of %g %s are used", used, all.scalars[name], name)
		}
	}
	if len(a.twice) > 0 {
		return fmt.Errorf("ports %v are used twice", a.twice)
	}
	for p := range a.ports {
		if !all.ports[p] {
			return fmt.Errorf("port %d is used and not there", p)
		}
	}
	return nil
}
