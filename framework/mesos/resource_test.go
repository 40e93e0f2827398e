package mesos

import (
	"maps"
	"reflect"
	"testing"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// anyResource makes resources such as offers hold, all fields included.
var anyResource = rapid.Custom(func(t *rapid.T) resource.Resource {
	word := rapid.StringMatching(`[a-z]{1,3}`)
	maybe := rapid.OneOf(rapid.Just(""), word)
	labels := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) resource.Label {
		return resource.Label{Key: word.Draw(t, "key"), Value: maybe.Draw(t, "value")}
	}), 0, 3)
	none := func(ls []resource.Label) []resource.Label {
		if len(ls) == 0 {
			return nil
		}
		return ls
	}
	r := resource.Resource{
		Name: word.Draw(t, "name"), AllocatedRole: maybe.Draw(t, "allocated"), ProviderID: maybe.Draw(t, "provider"),
		Shared: rapid.Bool().Draw(t, "shared"), Revocable: rapid.Bool().Draw(t, "revocable"),
	}
	switch r.Kind = rapid.SampledFrom([]resource.Kind{resource.Scalar, resource.Ranges, resource.Set}).Draw(t, "kind"); r.Kind {
	case resource.Scalar:
		r.Scalar = resource.Milli(rapid.Int64Range(0, 1<<40).Draw(t, "scalar"))
	case resource.Ranges:
		for next := uint64(1); len(r.Ranges) < rapid.IntRange(1, 3).Draw(t, "ranges"); {
			end := next + uint64(rapid.IntRange(0, 9).Draw(t, "length"))
			r.Ranges = append(r.Ranges, resource.Range{Begin: next, End: end})
			next = end + 2
		}
	case resource.Set:
		r.Items = []string{"a", "b"}
	}
	for range rapid.IntRange(0, 3).Draw(t, "levels") {
		r.Reservations = append(r.Reservations, resource.Reservation{
			Role: word.Draw(t, "role"), Principal: maybe.Draw(t, "principal"),
			Dynamic: rapid.Bool().Draw(t, "dynamic"), Labels: none(labels.Draw(t, "labels")),
		})
	}
	if rapid.Bool().Draw(t, "disk") {
		r.Disk = &resource.Disk{PersistenceID: maybe.Draw(t, "id")}
		if r.Disk.PersistenceID != "" {
			r.Disk.PersistencePrincipal = maybe.Draw(t, "creator")
			r.Disk.ContainerPath = word.Draw(t, "path")
			r.Disk.ReadOnly = rapid.Bool().Draw(t, "read only")
		}
		r.Disk.Source = resource.SourceType(rapid.IntRange(0, int(resource.SourceRaw)).Draw(t, "source"))
		if r.Disk.Source != resource.SourceRoot {
			r.Disk.SourceID, r.Disk.Profile, r.Disk.Vendor = maybe.Draw(t, "source id"), maybe.Draw(t, "profile"), maybe.Draw(t, "vendor")
			r.Disk.Metadata = none(labels.Draw(t, "metadata"))
		}
		if r.Disk.Source == resource.SourcePath || r.Disk.Source == resource.SourceMount {
			r.Disk.Root = maybe.Draw(t, "root")
		}
	}
	return r
})

func TestNoResourceLosesAnythingOnTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyResource.Draw(t, "resource")
		wire := toWire(&want)
		data, err := wire.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var back mesosgo.Resource
		if err := back.Unmarshal(data); err != nil {
			t.Fatal(err)
		}
		got, err := fromWire(&back)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

func TestReservationsInTheOldFormatAreUnderstood(t *testing.T) {
	wire := mesosgo.Resource{Name: "cpus", Type: mesosgo.SCALAR.Enum(), Scalar: &mesosgo.Value_Scalar{Value: 1}, Role: pointer("dvdi")}
	static, err := fromWire(&wire)
	if err != nil || len(static.Reservations) != 1 || static.Role() != "dvdi" || static.Reservations[0].Dynamic {
		t.Errorf("static: %+v, %v", static, err)
	}
	wire.Reservation = &mesosgo.Resource_ReservationInfo{Principal: pointer("p")}
	dynamic, err := fromWire(&wire)
	if err != nil || !dynamic.Reservations[0].Dynamic || dynamic.Reservations[0].Principal != "p" {
		t.Errorf("dynamic: %+v, %v", dynamic, err)
	}
	wire = mesosgo.Resource{Name: "cpus", Type: mesosgo.SCALAR.Enum(), Role: pointer("*")}
	if free, err := fromWire(&wire); err != nil || free.Reservations != nil {
		t.Errorf("unreserved: %+v, %v", free, err)
	}
}

// The master takes an empty field for another one than a missing field: a task on
// such a resource would be refused again and again.
func TestResourcesThatCannotBeSentBackAreNotUsed(t *testing.T) {
	reserved := func(change func(*mesosgo.Resource_ReservationInfo)) mesosgo.Resource {
		info := mesosgo.Resource_ReservationInfo{
			Type: mesosgo.Resource_ReservationInfo_DYNAMIC.Enum(), Role: pointer("dvdi"), Principal: pointer("p"),
			Labels: &mesosgo.Labels{Labels: []mesosgo.Label{{Key: "k", Value: pointer("v")}}},
		}
		change(&info)
		return mesosgo.Resource{Name: "cpus", Type: mesosgo.SCALAR.Enum(), Scalar: &mesosgo.Value_Scalar{Value: 1},
			Reservations: []mesosgo.Resource_ReservationInfo{info}}
	}
	disk := func(source mesosgo.Resource_DiskInfo_Source) mesosgo.Resource {
		return mesosgo.Resource{Name: "disk", Type: mesosgo.SCALAR.Enum(), Scalar: &mesosgo.Value_Scalar{Value: 1},
			Disk: &mesosgo.Resource_DiskInfo{Source: &source}}
	}
	usual := reserved(func(*mesosgo.Resource_ReservationInfo) {})
	if _, err := fromWire(&usual); err != nil {
		t.Errorf("the usual reservation: %v", err)
	}
	keyOnly := reserved(func(i *mesosgo.Resource_ReservationInfo) { i.Labels.Labels[0].Value = nil })
	if _, err := fromWire(&keyOnly); err != nil {
		t.Errorf("a label without a value: %v", err)
	}
	for name, wire := range map[string]mesosgo.Resource{
		"labels":    reserved(func(i *mesosgo.Resource_ReservationInfo) { i.Labels = &mesosgo.Labels{} }),
		"principal": reserved(func(i *mesosgo.Resource_ReservationInfo) { i.Principal = pointer("") }),
		"kind":      reserved(func(i *mesosgo.Resource_ReservationInfo) { i.Type = nil }),
		"profile":   disk(mesosgo.Resource_DiskInfo_Source{Type: mesosgo.Resource_DiskInfo_Source_RAW, Profile: pointer("")}),
		"path":      disk(mesosgo.Resource_DiskInfo_Source{Type: mesosgo.Resource_DiskInfo_Source_PATH}),
	} {
		if r, err := fromWire(&wire); err == nil {
			t.Errorf("%s: understood as %+v", name, r)
		}
	}
}

func TestAttributesAreRenderedAsMarathonComparesThem(t *testing.T) {
	scalar := func(name string, v float64) mesosgo.Attribute {
		return mesosgo.Attribute{Name: name, Type: mesosgo.SCALAR, Scalar: &mesosgo.Value_Scalar{Value: v}}
	}
	got := attributes([]mesosgo.Attribute{
		{Name: "text", Type: mesosgo.TEXT, Text: &mesosgo.Value_Text{Value: " as is "}},
		{Name: "text", Type: mesosgo.TEXT, Text: &mesosgo.Value_Text{Value: "second"}},
		scalar("whole", 10), scalar("third", 1.0/3), scalar("ties", 0.0625), scalar("hundred", 100),
		{Name: "ranges", Type: mesosgo.RANGES, Ranges: &mesosgo.Value_Ranges{Range: []mesosgo.Value_Range{{Begin: 20, End: 30}, {Begin: 1, End: 5}}}},
		{Name: "set", Type: mesosgo.SET, Set: &mesosgo.Value_Set{Item: []string{"b", "a"}}},
	})
	want := map[string]string{
		"text": " as is ", "whole": "10", "third": "0.333", "ties": "0.062", "hundred": "100", "ranges": "[1-5,20-30]", "set": "{a,b}",
	}
	if !maps.Equal(got, want) {
		t.Errorf("attributes %v, want %v", got, want)
	}
}

func TestMaintenanceOfAnOffer(t *testing.T) {
	c := &Conn{log: zap.NewNop()}
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	o := c.offer(&mesosgo.Offer{Unavailability: &mesosgo.Unavailability{
		Start: mesosgo.TimeInfo{Nanoseconds: start.UnixNano()}, Duration: &mesosgo.DurationInfo{Nanoseconds: 3600e9}}})
	if !o.UnavailableFrom.Equal(start) || o.UnavailableFor != time.Hour {
		t.Errorf("unavailable from %s for %s", o.UnavailableFrom, o.UnavailableFor)
	}
	if o := c.offer(&mesosgo.Offer{}); !o.UnavailableFrom.IsZero() || o.Region != "" {
		t.Errorf("offer %+v", o)
	}
}

func TestCheckResultsOfAStatus(t *testing.T) {
	for name, test := range map[string]struct {
		wire *mesosgo.CheckStatusInfo
		want func(r *core.CheckResult) bool
	}{
		"http":    {&mesosgo.CheckStatusInfo{HTTP: &mesosgo.CheckStatusInfo_Http{StatusCode: pointer(uint32(200))}}, func(r *core.CheckResult) bool { return *r.HTTPStatus == 200 }},
		"tcp":     {&mesosgo.CheckStatusInfo{TCP: &mesosgo.CheckStatusInfo_Tcp{Succeeded: pointer(true)}}, func(r *core.CheckResult) bool { return *r.TCPSucceeded }},
		"command": {&mesosgo.CheckStatusInfo{Command: &mesosgo.CheckStatusInfo_Command{ExitCode: pointer(int32(3))}}, func(r *core.CheckResult) bool { return *r.ExitCode == 3 }},
		"pending": {&mesosgo.CheckStatusInfo{HTTP: &mesosgo.CheckStatusInfo_Http{}}, func(r *core.CheckResult) bool { return r.HTTPStatus == nil }},
		"none":    {nil, func(r *core.CheckResult) bool { return r == nil }},
	} {
		if got := status(&mesosgo.TaskStatus{CheckStatus: test.wire}).Check; !test.want(got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
