package app

import (
	"fmt"
	"strings"
	"time"
)

// A volume is fenced where its class, a label of the app or an option of the
// volume says so: the value is how long its lease lasts without the framework,
// or FenceNone. The option counts before the label, and that before the class.
const (
	// FenceLabel is the label of an app.
	FenceLabel = "DVDI_FENCE"
	// fenceOption is the option of a volume.
	fenceOption = "dvdi/fence"
)

// The bounds of a lease: shorter ones end with any hiccup of the network, longer
// ones fence nothing in time.
const (
	minLease = 10 * time.Second
	maxLease = time.Hour
)

// parseFence reads the length of a lease; 0 for FenceNone or nothing.
func parseFence(text string) (time.Duration, error) {
	if text == "" || text == FenceNone {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minLease || d > maxLease {
		return 0, fmt.Errorf("fence %q is not supported: write %s, or how long a lease lasts, from %s to %s, such as 60s", text, FenceNone, minLease, maxLease)
	}
	return d, nil
}

// Lease is how long a lease on the volume lasts, 0 if it has none. Only volumes
// that one agent may have at a time are fenced.
func (e *External) Lease(a *App) time.Duration {
	if e.anyAgents() || e.Provider != DVDI {
		return 0
	}
	text := a.Labels[FenceLabel]
	if option, given := e.Options[fenceOption]; given {
		text = option
	} else if text == "" && e.Class != nil {
		text = e.Class.Fence
	}
	d, err := parseFence(text)
	if err != nil {
		return 0 // stored by a version with other bounds; the definition was checked
	}
	return d
}

// validateFence checks the label and the options.
func validateFence(p *problems, a *App) {
	if _, err := parseFence(a.Labels[FenceLabel]); err != nil {
		p.add(`/labels("`+FenceLabel+`")`, strings.TrimSpace(err.Error()))
	}
	for _, i := range a.ExternalVolumes() {
		if _, err := parseFence(a.Container.Volumes[i].External.Options[fenceOption]); err != nil {
			p.add(indexed("/container/volumes", i)+`/external/options("`+fenceOption+`")`, err.Error())
		}
	}
}
