package app

import (
	"slices"
	"strconv"
	"strings"
)

// ordinalPattern is a volume's name in which the ordinal stands once.
type ordinalPattern struct {
	nameInUse
	before, after   string
	driver          string
	shared, changed bool
	instances       int // of the app
}

// foreseen is the number of instances that every app may come to have.
const foreseen = 10

// reaches says whether an instance of the app may have an ordinal.
func (o *ordinalPattern) reaches(ordinal string) bool {
	n, err := strconv.Atoi(ordinal)
	return err == nil && n < max(o.instances, foreseen)
}

// meeting finds the pairs of different patterns of one driver that make the same
// name, as "x-${instance}-1" and "x-1-${instance}" both make "x-1-1", with ordinals
// that their apps have instances for. One of each pair is of a changed app.
// Patterns that are both shared may meet. It does not compare each with all: there
// may be thousands.
func meeting(apps map[ID]*App, isChanged map[ID]bool) (pairs [][2]nameInUse) {
	all := ordinalPatterns(apps, isChanged)
	if !slices.ContainsFunc(all, func(o *ordinalPattern) bool { return o.changed }) {
		return nil
	}
	byBefore, byBoth := map[string][]*ordinalPattern{}, map[[2]string][]*ordinalPattern{}
	for _, o := range all {
		byBefore[o.before] = append(byBefore[o.before], o)
		byBoth[[2]string{o.before, o.after}] = append(byBoth[[2]string{o.before, o.after}], o)
	}
	for _, long := range all {
		look := func(list []*ordinalPattern) {
			for _, short := range list {
				if (short.changed || long.changed) && short.meets(long) {
					pairs = append(pairs, [2]nameInUse{short.nameInUse, long.nameInUse})
				}
			}
		}
		for i := range len(long.before) {
			if isDigit(long.before[i]) { // where the other's ordinal may stand
				look(byBefore[long.before[:i]])
			}
		}
		// The other's ordinal may have this one's in it, and digits that follow that.
		for i := 0; i < len(long.after) && isDigit(long.after[i]); i++ {
			look(byBoth[[2]string{long.before, long.after[i+1:]}])
		}
	}
	return pairs
}

func ordinalPatterns(apps map[ID]*App, isChanged map[ID]bool) (all []*ordinalPattern) {
	for id, a := range apps {
		for _, v := range a.externals() {
			before, after, found := strings.Cut(v.External.Name, instanceVariable)
			if found && !strings.Contains(after, instanceVariable) {
				all = append(all, &ordinalPattern{nameInUse: nameInUse{id, v.External.Name}, before: before, after: after,
					driver: v.External.Driver(), shared: !v.uniqueName(), changed: isChanged[id], instances: a.Instances})
			}
		}
	}
	return all
}

// meets says whether the patterns make the same name; what stands before the
// ordinal in the one begins what stands before it in the other.
func (o *ordinalPattern) meets(long *ordinalPattern) bool {
	if o.driver != long.driver || o.shared && long.shared {
		return false
	}
	return slices.ContainsFunc(sameName(o.after, long.before[len(o.before):], long.after), func(ordinals [2]string) bool {
		return o.reaches(ordinals[0]) && long.reaches(ordinals[1])
	})
}

// sameName finds the ordinals n and m for which n+after and between+m+end are the
// same: the least ones of each kind of solution.
func sameName(after, between, end string) (ordinals [][2]string) {
	// n ends within between.
	digits := len(between) - len(strings.TrimLeft(between, "0123456789"))
	for k := 1; k <= digits; k++ {
		n := between[:k]
		rest, begins := strings.CutPrefix(after, between[k:])
		m, ends := strings.CutSuffix(rest, end)
		if begins && ends && isOrdinal(n) && isOrdinal(m) {
			ordinals = append(ordinals, [2]string{n, m})
		}
	}
	// n goes on behind between, in m and what follows it.
	if digits < len(between) || strings.HasPrefix(between, "0") {
		return ordinals
	}
	more, longer := strings.CutSuffix(after, end)
	fewer, shorter := strings.CutSuffix(end, after)
	switch {
	case longer && shorter && between != "":
		ordinals = append(ordinals, [2]string{between + "0", "0"})
	case longer && more != "" && allDigits(more):
		ordinals = append(ordinals, [2]string{between + "1", "1" + more})
	case shorter && fewer != "" && allDigits(fewer):
		m := "0"
		if between == "" {
			m = "1" // n begins with it
		}
		ordinals = append(ordinals, [2]string{between + m + fewer, m})
	}
	return ordinals
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func allDigits(s string) bool { return strings.TrimLeft(s, "0123456789") == "" }

// isOrdinal says whether a text is a number as it is written.
func isOrdinal(s string) bool {
	return s == "0" || s != "" && s[0] != '0' && allDigits(s)
}
