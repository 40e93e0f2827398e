package master

import (
	"strconv"
	"strings"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// resources is a collection with the arithmetic, and the order, of
// src/common/resources.cpp: what can be combined is, what is used up is
// replaced by the last one. The order shows in offers. Of a shared resource it
// holds a copy for each user (Resource_::sharedCount).
type resources []mesos.Resource

func newResources(rs []mesos.Resource) resources {
	var out resources
	out.add(rs...)
	return out
}

func (rs resources) clone() resources {
	out := make(resources, len(rs))
	for i := range rs {
		out[i] = *proto.Clone(&rs[i]).(*mesos.Resource)
	}
	return out
}

func (rs *resources) add(more ...mesos.Resource) {
	for i := range more {
		rs.add1(more[i])
	}
}

func (rs *resources) add1(r mesos.Resource) {
	if r.IsEmpty() {
		return
	}
	for i := range *rs {
		if r.Shared == nil && (*rs)[i].Addable(r) {
			(*rs)[i].Add(r)
			return
		}
	}
	*rs = append(*rs, *proto.Clone(&r).(*mesos.Resource))
}

func (rs *resources) subtract(less ...mesos.Resource) {
	// less may be rs itself, which changes below.
	for _, r := range append([]mesos.Resource(nil), less...) {
		rs.subtract1(r)
	}
}

func (rs *resources) subtract1(r mesos.Resource) {
	if r.IsEmpty() {
		return
	}
	list := *rs
	for i := range list {
		if !list[i].Subtractable(r) {
			continue
		}
		list[i].Subtract(r)
		if list[i].IsEmpty() || list[i].GetScalar().GetValue() < 0 {
			last := len(list) - 1
			list[i] = list[last]
			list[last] = mesos.Resource{}
			*rs = list[:last]
		}
		return
	}
}

func (rs resources) minus(less resources) resources {
	out := rs.clone()
	out.subtract(less...)
	return out
}

func (rs resources) contains(other resources) bool {
	left := rs.clone()
	for _, r := range other {
		found := false
		for i := range left {
			if left[i].Contains(r) {
				found = true
				break
			}
		}
		if !found {
			return false
		}
		left.subtract1(r)
	}
	return true
}

func (rs resources) filter(keep func(*mesos.Resource) bool) resources {
	var out resources
	for i := range rs {
		if keep(&rs[i]) {
			out = append(out, rs[i])
		}
	}
	return out.clone()
}

// allocated returns a copy that is allocated to the role.
func (rs resources) allocated(role string) resources {
	out := rs.clone()
	for i := range out {
		out[i].AllocationInfo = &mesos.Resource_AllocationInfo{Role: ptr(role)}
	}
	return out
}

// unallocated returns a copy that is allocated to nobody.
func (rs resources) unallocated() resources {
	out := rs.clone()
	for i := range out {
		out[i].AllocationInfo = nil
	}
	return out
}

// scalar sums the scalars of one name.
func (rs resources) scalar(name string) float64 {
	var sum mesos.Value_Scalar
	for i := range rs {
		if rs[i].GetName() == name && rs[i].GetType() == mesos.SCALAR {
			sum = *sum.Add(rs[i].GetScalar())
		}
	}
	return sum.GetValue()
}

// shared and nonShared part what several tasks may use at once from the rest.
func (rs resources) shared() resources {
	return rs.filter(func(r *mesos.Resource) bool { return r.Shared != nil })
}

func (rs resources) nonShared() resources {
	return rs.filter(func(r *mesos.Resource) bool { return r.Shared == nil })
}

// once holds one copy of each shared resource, which takes up its disk once.
func (rs resources) once() resources {
	var out resources
	for i := range rs {
		if one := rs[i : i+1]; one[0].Shared == nil || !out.contains(one) {
			out.add1(one[0])
		}
	}
	return out
}

// conversion is what an operation turns into what (resources_utils.cpp,
// getResourceConversions). Where it is final, no copy of what it consumes may be
// left.
type conversion struct {
	consumed, converted resources
	final               bool
}

// apply returns the result of the conversion. It fails where the consumed
// resources are not there.
func (c conversion) apply(rs resources) (resources, error) {
	if !rs.contains(c.consumed) {
		return nil, refusedf("%s does not contain %s", rs, c.consumed)
	}
	out := rs.minus(c.consumed)
	if c.final && out.contains(c.consumed) {
		return nil, refusedf("Persistent volume %s cannot be removed due to additional shared copies", c.consumed)
	}
	out.add(c.converted...)
	return out, nil
}

// String prints the collection as error messages of the master do.
func (rs resources) String() string {
	if len(rs) == 0 {
		return "{}"
	}
	texts := make([]string, len(rs))
	for i := range rs {
		texts[i] = resourceText(&rs[i])
	}
	return strings.Join(texts, "; ")
}

func resourceText(r *mesos.Resource) string {
	var b strings.Builder
	b.WriteString(r.GetName())
	if r.AllocationInfo != nil {
		b.WriteString("(allocated: " + r.GetAllocationInfo().GetRole() + ")")
	}
	if len(r.Reservations) > 0 {
		texts := make([]string, len(r.Reservations))
		for i := range r.Reservations {
			texts[i] = "(" + reservationText(&r.Reservations[i]) + ")"
		}
		b.WriteString("(reservations: [" + strings.Join(texts, ",") + "])")
	}
	if r.Disk != nil {
		b.WriteString("[" + diskText(r.Disk) + "]")
	}
	if r.Revocable != nil {
		b.WriteString("{REV}")
	}
	if r.Shared != nil {
		b.WriteString("<SHARED>")
	}
	b.WriteString(":" + valueText(r))
	return b.String()
}

func reservationText(r *mesos.Resource_ReservationInfo) string {
	text := r.GetType().String() + "," + r.GetRole()
	if r.Principal != nil {
		text += "," + r.GetPrincipal()
	}
	if r.Labels != nil {
		labels := make([]string, len(r.Labels.Labels))
		for i, label := range r.Labels.Labels {
			labels[i] = label.Key
			if label.Value != nil {
				labels[i] += ": " + *label.Value
			}
		}
		text += ",{" + strings.Join(labels, ", ") + "}"
	}
	return text
}

func diskText(d *mesos.Resource_DiskInfo) string {
	text := ""
	if s := d.Source; s != nil {
		text = s.GetType().String()
		switch {
		case s.ID != nil || s.Profile != nil:
			text += "(" + s.GetVendor() + "," + s.GetID() + "," + s.GetProfile() + ")"
		case s.GetMount().GetRoot() != "":
			text += ":" + s.GetMount().GetRoot()
		case s.GetPath().GetRoot() != "":
			text += ":" + s.GetPath().GetRoot()
		}
	}
	if p := d.Persistence; p != nil {
		if d.Source != nil {
			text += ","
		}
		text += p.ID
	}
	if v := d.Volume; v != nil {
		text += ":" + v.ContainerPath
	}
	return text
}

func valueText(r *mesos.Resource) string {
	switch r.GetType() {
	case mesos.RANGES:
		ranges := make([]string, len(r.GetRanges().GetRange()))
		for i, one := range r.GetRanges().GetRange() {
			ranges[i] = strconv.FormatUint(one.Begin, 10) + "-" + strconv.FormatUint(one.End, 10)
		}
		return "[" + strings.Join(ranges, ", ") + "]"
	case mesos.SET:
		return "{" + strings.Join(r.GetSet().GetItem(), ", ") + "}"
	default:
		return strconv.FormatFloat(r.GetScalar().GetValue(), 'f', -1, 64)
	}
}
