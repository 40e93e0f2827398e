package core

import (
	"cmp"
	"slices"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// surplusOf picks n instances to be stopped, in killOrder. Where the app is spread
// by GROUP_BY the running ones are taken from the groups with the most instances,
// so that what stays is spread too (contract 4).
func surplusOf(list []*instance, def *app.App, n int) []*instance {
	order := killOrder(list, def)
	n = max(0, n)
	fields := groupedBy(def)
	if len(fields) == 0 || def.Ordered() {
		return order[:n]
	}
	var out []*instance
	for range n {
		at := 0
		if killRank(order[0]) == killRunning {
			at = inLargestGroup(order, fields)
		}
		out = append(out, order[at])
		order = slices.Delete(order, at, at+1)
	}
	return out
}

// groupedBy lists the fields over whose values the app's instances are spread.
func groupedBy(def *app.App) (fields []string) {
	for _, c := range def.Constraints {
		if con, ok := constraint(c); ok && con.Operator == scheduler.GroupBy {
			fields = append(fields, con.Field)
		}
	}
	return fields
}

// inLargestGroup returns the first of the running instances whose group has the
// most of them, the first field counting before the others.
func inLargestGroup(running []*instance, fields []string) int {
	sizes := make([][]int, len(running))
	for _, field := range fields {
		groups := map[string]int{}
		for _, i := range running {
			groups[valueOf(i, field)]++
		}
		for k, i := range running {
			sizes[k] = append(sizes[k], groups[valueOf(i, field)])
		}
	}
	best := 0
	for k := range running {
		if slices.CompareFunc(sizes[k], sizes[best], cmp.Compare) > 0 {
			best = k
		}
	}
	return best
}

// valueOf is the value of a constraint's field where an instance runs, empty
// where its agent has none.
func valueOf(i *instance, field string) string {
	t := i.Task
	at := scheduler.Placed{Hostname: t.Hostname, Region: t.Region, Zone: t.Zone, Attributes: t.Attributes}
	v, _ := at.Field(field)
	return v
}
