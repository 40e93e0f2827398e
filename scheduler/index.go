package scheduler

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// agent is an agent that has offers in this round.
type agent struct {
	id, hostname, region, zone string
	attributes                 map[string]string
	maintenance                bool
	hasGPUs                    bool
	fact                       *AgentFact // nil if nothing is known
	load                       int        // instances on it, those of this round included
	before                     int        // instances on it before this round
	tie                        uint64     // order among equals
	attached                   []attachCount
	firstShare, endShare       int32
}

// attachCount is how many volumes of a driver this round attaches to an agent.
type attachCount struct {
	driver string
	n      int
}

// share is what one agent offers to one role. Mesos takes offers of different
// roles in different ACCEPT calls, so a share is the unit that is accepted.
//
// What a search looks at comes first and fills two lines of a cache, the whole
// three of them: on a large cluster each line is fetched from memory anew.
type share struct {
	agent       int32
	version     uint32 // counts the launches of this round on the agent
	launches    int32
	first, last int32            // of the queue of launches that free does not show yet, places in decision.queue
	overlap     bool             // a port is in several portions: totals count it twice
	total       [useDisk]amounts // per use that is taken in any amount, the queue taken off
	free        []portion
	role        string
	offers      []int32
	ops         []Operation
}

// amounts are what every instance may ask for: scalars and a number of ports.
type amounts struct {
	cpus, mem, disk, gpus resource.Milli
	ports                 int64
}

func (a amounts) plus(b amounts) amounts {
	return amounts{a.cpus + b.cpus, a.mem + b.mem, a.disk + b.disk, a.gpus + b.gpus, a.ports + b.ports}
}

func (a amounts) minus(b amounts) amounts {
	return amounts{a.cpus - b.cpus, a.mem - b.mem, a.disk - b.disk, a.gpus - b.gpus, a.ports - b.ports}
}

// use says for whom a portion is.
type use uint8

const (
	useUnreserved use = iota // anyone in the role
	useReserved              // reserved for the role as such
	useOwned                 // reserved by us for one instance
	useDisk                  // a disk that can become a persistent volume
	useNone                  // not for us
)

// what says which of the resources that tasks use a portion is.
type what uint8

const (
	other what = iota // anything else, and disks that are not plain root disk
	cpus
	mem
	disk
	gpus
	ports
)

func whatOf(r *resource.Resource) what {
	if r.Disk != nil {
		return other
	}
	switch r.Name {
	case "cpus":
		return cpus
	case "mem":
		return mem
	case "disk":
		return disk
	case "gpus":
		return gpus
	case "ports":
		return ports
	}
	return other
}

// portion is one resource of a share as far as it is still free. It is kept
// small: placing an instance walks over all portions of a share.
type portion struct {
	what   what
	use    use
	left   resource.Milli
	ranges []resource.Range
	owner  string             // for useOwned: the instance id
	res    *resource.Resource // as offered
}

// rest is what is left of the portion as a resource.
func (p *portion) rest() resource.Resource {
	r := *p.res
	r.Scalar, r.Ranges = p.left, p.ranges
	return r
}

// indexOffers merges offers into shares and agents, sorted, once per round.
func (d *decision) indexOffers() {
	order := make([]int32, len(d.s.Offers))
	for i := range order {
		order[i] = int32(i)
	}
	roles := make([]string, len(order))
	for i := range d.s.Offers {
		roles[i] = offeredRole(&d.s.Offers[i])
	}
	slices.SortFunc(order, func(x, y int32) int {
		a, b := &d.s.Offers[x], &d.s.Offers[y]
		if c := strings.Compare(a.AgentID, b.AgentID); c != 0 {
			return c
		}
		if c := strings.Compare(roles[x], roles[y]); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	d.addOffers(order, roles)
	d.breakTies()
	for i := range d.shares {
		d.shares[i].sum()
		for _, id := range d.shares[i].ownersLeft() {
			d.owners[id] = append(d.owners[id], int32(i))
			d.indexShared(int32(i))
		}
	}
}

// addOffers fills agents and shares from offers in their order. What belongs
// to one share is contiguous, so all shares have their offers and portions in
// two common arrays.
func (d *decision) addOffers(order []int32, roles []string) {
	resources := 0
	for i := range d.s.Offers {
		resources += len(d.s.Offers[i].Resources)
	}
	portions := make([]portion, 0, resources)
	d.agents = make([]agent, 0, len(order))
	d.shares = make([]share, 0, len(order))
	d.byAgent = make(map[string]int32, len(order))
	for at, i := range order {
		o := &d.s.Offers[i]
		if n := len(d.agents); n == 0 || d.agents[n-1].id != o.AgentID {
			d.addAgent(o)
		}
		a := &d.agents[len(d.agents)-1]
		if n := int32(len(d.shares)); a.firstShare == n || d.shares[n-1].role != roles[i] {
			d.shares = append(d.shares, share{
				agent: int32(len(d.agents) - 1), role: roles[i], first: none, last: none,
				offers: order[at:at:len(order)], free: portions[len(portions):],
			})
			a.endShare = n + 1
		}
		s := &d.shares[len(d.shares)-1]
		s.offers = s.offers[:len(s.offers)+1]
		for j := range o.Resources {
			r := &o.Resources[j]
			a.hasGPUs = a.hasGPUs || r.Name == "gpus" && r.Scalar > 0
			d.addPortion(s, r)
		}
		portions = portions[:len(portions)+len(o.Resources)]
	}
}

// breakTies orders agents that are otherwise equal: by id, from a place that
// the seed decides. Neighbours in this order are neighbours in memory, which
// makes filling a large cluster evenly half again as fast as a random order.
func (d *decision) breakTies() {
	n := uint64(len(d.agents))
	for i := range d.agents {
		d.agents[i].tie = (uint64(i) + mix(d.s.Seed, "")%n) % n
	}
}

// offeredRole is the role whose share the offer counts against. All resources
// of an offer have the same (allocation_info).
func offeredRole(o *Offer) string {
	if len(o.Resources) == 0 {
		return ""
	}
	return o.Resources[0].AllocatedRole
}

func (d *decision) addAgent(o *Offer) {
	i := int32(len(d.agents))
	d.byAgent[o.AgentID] = i
	d.agents = append(d.agents, agent{
		id: o.AgentID, hostname: o.Hostname, region: o.Region, zone: o.Zone,
		attributes:  o.Attributes,
		fact:        d.facts[o.AgentID],
		maintenance: d.inMaintenance(o),
		firstShare:  int32(len(d.shares)),
	})
	a := &d.agents[i]
	if a.fact != nil {
		a.maintenance = a.maintenance || a.fact.Draining
		if a.zone == "" {
			a.zone = a.fact.Zone
		}
	}
}

func (d *decision) inMaintenance(o *Offer) bool {
	margin := d.s.Policy.MaintenanceMargin
	if o.UnavailableFrom.IsZero() || margin < 0 || d.s.Now.Before(o.UnavailableFrom.Add(-margin)) {
		return false
	}
	return o.UnavailableFor == 0 || d.s.Now.Before(o.UnavailableFrom.Add(o.UnavailableFor))
}

func (d *decision) addPortion(s *share, r *resource.Resource) {
	w := whatOf(r)
	if !r.Indivisible() && r.Kind != resource.Set {
		for i := range s.free {
			if have := &s.free[i]; have.what == w && resource.SameKind(have.res, r) {
				have.left += max(r.Scalar, 0)
				have.ranges = resource.UnionRanges(have.ranges, r.Ranges)
				return
			}
		}
	}
	p := portion{what: w, left: max(r.Scalar, 0), ranges: r.Ranges, res: r}
	p.use, p.owner = d.classify(s.role, r)
	s.free = append(s.free, p)
}

// classify decides for whom an offered resource is.
func (d *decision) classify(role string, r *resource.Resource) (u use, owner string) {
	if r.Revocable {
		return useNone, ""
	}
	if len(r.Reservations) > 0 {
		if labels := r.ReservationLabels(); len(labels) > 0 {
			id, ours := d.ownerOf(labels)
			if !ours {
				return useNone, ""
			}
			return useOwned, id
		}
		if !covers(r.Role(), role) {
			return useNone, ""
		}
	}
	switch {
	case r.IsPersistent():
		return useNone, "" // a volume that does not carry our labels
	case r.Name == "disk" && r.Disk != nil:
		return useDisk, ""
	case r.ProviderID != "" || r.Shared:
		return useNone, ""
	case len(r.Reservations) > 0:
		return useReserved, ""
	}
	return useUnreserved, ""
}

// ownerOf says whose reservation it is, if it is ours.
func (d *decision) ownerOf(labels []resource.Label) (instance string, ours bool) {
	for _, f := range d.s.Policy.Ours {
		id, ok := resource.LabelValue(labels, f.FrameworkKey)
		if !ok || id != f.FrameworkID || f.FrameworkKey == "" {
			continue
		}
		if instance, ok = resource.LabelValue(labels, f.InstanceKey); ok {
			return instance, true
		}
	}
	return "", false
}

// covers says whether resources reserved for one role may be used by another:
// the role itself or one below it in the hierarchy (Mesos' hierarchical roles).
func covers(reservedFor, role string) bool {
	return reservedFor == role || role == "" ||
		(len(role) > len(reservedFor) && role[len(reservedFor)] == '/' && strings.HasPrefix(role, reservedFor))
}

// sum orders the portions and totals them.
func (s *share) sum() {
	if len(s.free) > 1 {
		slices.SortStableFunc(s.free, func(a, b portion) int { return comparePortions(&a, &b) })
	}
	s.overlap = s.portsOverlap()
	s.count()
}

// portsOverlap says whether a port is in several portions, which Mesos never
// offers.
func (s *share) portsOverlap() bool {
	var all []resource.Range
	for i := range s.free {
		p := &s.free[i]
		switch {
		case p.what != ports:
		case all == nil:
			all = p.ranges
		default:
			union := resource.UnionRanges(all, p.ranges)
			if countPorts(union) != countPorts(all)+countPorts(p.ranges) {
				return true
			}
			all = union
		}
	}
	return false
}

// count totals what the portions have left.
func (s *share) count() {
	s.total = [useDisk]amounts{}
	for i := range s.free {
		if p := &s.free[i]; p.use < useDisk {
			p.addTo(&s.total[p.use])
		}
	}
}

// addTo adds what is left of the portion to a total if tasks take what it is in
// any amount.
func (p *portion) addTo(t *amounts) {
	switch p.what {
	case cpus:
		t.cpus += p.left
	case mem:
		t.mem += p.left
	case disk:
		t.disk += p.left
	case gpus:
		t.gpus += p.left
	case ports:
		t.ports += countPorts(p.ranges)
	}
}

// countPorts is how many values ranges hold, as far as anybody could need.
func countPorts(rs []resource.Range) int64 {
	return int64(min(resource.CountRanges(rs), math.MaxInt32))
}

func comparePortions(a, b *portion) int {
	if c := cmp.Compare(a.use, b.use); c != 0 {
		return c
	}
	if c := cmp.Compare(a.what, b.what); c != 0 {
		return c
	}
	if c := strings.Compare(a.res.Name, b.res.Name); c != 0 {
		return c
	}
	if c := strings.Compare(a.owner, b.owner); c != 0 {
		return c
	}
	if c := strings.Compare(a.res.ProviderID, b.res.ProviderID); c != 0 {
		return c
	}
	if c := compareDisks(a.res.Disk, b.res.Disk); c != 0 {
		return c
	}
	if c := slices.CompareFunc(a.res.Reservations, b.res.Reservations, compareReservations); c != 0 {
		return c
	}
	return cmp.Compare(a.left, b.left)
}

func compareReservations(a, b resource.Reservation) int {
	if c := strings.Compare(a.Role, b.Role); c != 0 {
		return c
	}
	if c := strings.Compare(a.Principal, b.Principal); c != 0 {
		return c
	}
	if a.Dynamic != b.Dynamic {
		if a.Dynamic {
			return 1
		}
		return -1
	}
	return slices.CompareFunc(a.Labels, b.Labels, func(x, y resource.Label) int {
		return cmp.Or(strings.Compare(x.Key, y.Key), strings.Compare(x.Value, y.Value))
	})
}

func compareDisks(a, b *resource.Disk) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Or(
		cmp.Compare(a.Source, b.Source), strings.Compare(a.Root, b.Root),
		strings.Compare(a.SourceID, b.SourceID), strings.Compare(a.Profile, b.Profile),
		strings.Compare(a.PersistenceID, b.PersistenceID))
}

// hostAgents lists the agents with a host name; several agents may run on one
// host.
func (d *decision) hostAgents(hostname string) []int32 {
	if d.byHost == nil {
		d.byHost = make(map[string][]int32, len(d.agents))
		for i := range d.agents {
			h := d.agents[i].hostname
			d.byHost[h] = append(d.byHost[h], int32(i))
		}
	}
	return d.byHost[hostname]
}

func (a *agent) driver(name string) (f DriverFact, known bool) {
	if a.fact == nil || !a.fact.Known {
		return DriverFact{}, false
	}
	for _, f := range a.fact.Drivers {
		if f.Name == name {
			return f, true
		}
	}
	return DriverFact{Name: name}, true
}

func (a *agent) attaching(driver string) int {
	for _, c := range a.attached {
		if c.driver == driver {
			return c.n
		}
	}
	return 0
}

func (a *agent) attach(driver string) {
	for i := range a.attached {
		if a.attached[i].driver == driver {
			a.attached[i].n++
			return
		}
	}
	a.attached = append(a.attached, attachCount{driver, 1})
}

// mix hashes a seed and a name (FNV-1a, then a finaliser, so that near names
func mix(seed uint64, name string) uint64 {
	h := seed ^ 14695981039346656037
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
