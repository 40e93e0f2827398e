package scheduler_test

import (
	"testing"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// FuzzReplay feeds records that nobody has checked: whatever a file holds, it
// is refused with an error or decided upon, never a panic, and what is decided
// can be written down.
func FuzzReplay(f *testing.F) {
	w := reserving()
	w.Offer("a1").Usual().Attr("rack", "r1").In("r", "z").Add(volume(10, "db", "data"))
	w.Bridge("a1")
	w.Claim("v", "a1", scheduler.Releasing)
	w.Volume("v").Last("a1")
	w.Placed("p", "a1")
	resident(w, "db").Port(0, 31000).Persists(resource.SourceRoot, 5, "data").
		Where("rack", scheduler.GroupBy, "2").Mounts("v", scheduler.OneAgent)
	w.Pending("x").Where("hostname", scheduler.Like, "a.*").Mounts("v", scheduler.OneTask)
	line, err := scheduler.EncodeRecord(scheduler.Record{Snapshot: w.Build(), Plan: w.Decide()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"dvdiDecision":1,"snapshot":{"Offers":[{}],"Pending":[{}]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := scheduler.DecodeSnapshot(line)
		if err != nil {
			return
		}
		if _, err := scheduler.EncodePlan(scheduler.Decide(s)); err != nil {
			t.Fatal(err)
		}
	})
}
