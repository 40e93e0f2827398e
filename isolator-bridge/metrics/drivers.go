package metrics

import (
	"strconv"
	"unicode/utf8"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/journal"
)

// Drivers returns drivers whose calls are measured.
func (m *Metrics) Drivers(inner volume.Drivers) volume.Drivers {
	return journal.Observe(inner, m.Called)
}

// Called measures a call to a driver.
func (m *Metrics) Called(c journal.Call) {
	driver := label(c.Driver)
	m.operations.WithLabelValues(driver, c.Kind, c.Outcome).Inc()
	if c.Kind != journal.KindOpen { // which makes no call
		m.durations.WithLabelValues(driver, c.Kind).Observe(c.Took.Seconds())
	}
}

// label makes a label's value of a name, which a user may have chosen: one that
// is not UTF-8 would end the collection of all metrics.
func label(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.QuoteToASCII(name)
}
