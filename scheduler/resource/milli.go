package resource

import (
	"math"
	"strconv"
)

// FromFloat converts a scalar of the wire to thousandths, rounded to the
// nearest as Mesos rounds (src/common/values.cpp, convertToFixed). Values that
// are not finite or do not fit become 0, negative ones stay negative.
func FromFloat(v float64) Milli {
	m := math.Round(v * 1000)
	if math.IsNaN(m) || math.Abs(m) >= math.MaxInt64 {
		return 0
	}
	return Milli(m)
}

// Float converts back to the unit of the wire.
func (m Milli) Float() float64 { return float64(m) / 1000 }

// String is the amount in its unit without needless digits, as "0.5" or "128".
func (m Milli) String() string { return strconv.FormatFloat(m.Float(), 'f', -1, 64) }
