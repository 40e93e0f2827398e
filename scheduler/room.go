package scheduler

import "github.com/mesos-dvdi/dvdi/scheduler/resource"

// room hands out the parts of launches from larger allocations: a plan may hold
// a hundred thousand of them. What is handed out has no room to grow, so nobody
// appends into a neighbour.
type room struct {
	chunk     int // how many launches one allocation is for
	launchBuf []Launch
	resBuf    []resource.Resource
	rangeBuf  []resource.Range
	portBuf   []uint32
}

// mostRoom bounds an allocation, since what keeps one launch keeps all that was
// allocated with it.
const mostRoom = 128

func newRoom(launches int) room { return room{chunk: max(1, min(launches, mostRoom))} }

func (m *room) launch() *Launch {
	if len(m.launchBuf) == 0 {
		m.launchBuf = make([]Launch, m.chunk)
	}
	l := &m.launchBuf[0]
	m.launchBuf = m.launchBuf[1:]
	return l
}

// resources returns an empty slice with room for n.
func (m *room) resources(n int) []resource.Resource { return part(&m.resBuf, n, m.chunk*n) }

// ranges returns an empty slice with room for n.
func (m *room) ranges(n int) []resource.Range { return part(&m.rangeBuf, n, m.chunk*n) }

// ports returns n zeros.
func (m *room) ports(n int) []uint32 { return part(&m.portBuf, n, m.chunk*n)[:n] }

// part cuts room for n off a buffer, which is replaced by one for all where too
// little is left.
func part[T any](buf *[]T, n, all int) []T {
	if len(*buf) < n || *buf == nil {
		*buf = make([]T, all)
	}
	p := (*buf)[:0:n]
	*buf = (*buf)[n:]
	return p
}
