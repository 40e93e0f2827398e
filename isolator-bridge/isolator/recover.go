package isolator

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Action is what Recover did with a container.
type Action string

// The actions.
const (
	Kept    Action = "kept"    // known to the caller
	Left    Action = "left"    // an orphan, which the caller kills and cleans up
	Cleaned Action = "cleaned" // nobody's any more: its volumes are given up
	Strange Action = "strange" // known to the caller, without volumes here
)

// Recovered is one container of Recover's answer.
type Recovered struct {
	Outcomes
	Action Action
}

// Recover compares the containers of an owner with those that the owner still
// has. Those that are neither known nor orphans are cleaned up. Errors of single
// volumes are in the outcomes; what is not given up at once is tried again.
func (i *Isolator) Recover(ctx context.Context, owner string, known, orphans []string) ([]Recovered, error) {
	for _, id := range slices.Concat(known, orphans) {
		if err := checkID(id, owner); err != nil {
			return nil, err
		}
	}
	list, bad, err := i.store.list()
	if err != nil {
		return nil, err
	}
	i.tellDamaged(bad)
	var out []Recovered
	have := map[string]bool{}
	for _, c := range list {
		if c.Owner != owner {
			continue
		}
		have[c.ID] = true
		switch {
		case slices.Contains(orphans, c.ID):
			out = append(out, Recovered{Outcomes{Container: c.ID, Volumes: i.look(ctx, c)}, Left})
		case slices.Contains(known, c.ID):
			r, err := i.recoverKnown(ctx, c)
			if err != nil {
				return out, err
			}
			out = append(out, r)
		default:
			// The failures are in the outcomes.
			res, _ := i.Cleanup(ctx, owner, c.ID)
			out = append(out, Recovered{res, Cleaned})
		}
	}
	for _, id := range known {
		if !have[id] {
			out = append(out, Recovered{Outcomes{Container: id}, Strange})
		}
	}
	return out, nil
}

// recoverKnown keeps a container that is prepared, once nobody works on it; one
// whose preparation or cleaning was cut short is cleaned up.
func (i *Isolator) recoverKnown(ctx context.Context, c *container) (Recovered, error) {
	done, err := i.turns.take(ctx, c.Owner, c.ID)
	if err != nil {
		return Recovered{}, busy("recover", c.ID, err)
	}
	defer done()
	now, err := i.store.load(c.Owner, c.ID)
	if err != nil {
		return Recovered{}, err
	}
	if now != nil && now.Phase == prepared {
		return Recovered{Outcomes{Container: c.ID, Volumes: i.look(ctx, now)}, Kept}, nil
	}
	// The failures are in the outcomes.
	res, _ := i.cleanup(ctx, c.Owner, c.ID)
	return Recovered{res, Cleaned}, nil
}

// look tells how the volumes of a container are.
func (i *Isolator) look(ctx context.Context, c *container) []Outcome {
	var out []Outcome
	for _, w := range c.Volumes {
		o := Outcome{Key: w.key(), ContainerPath: w.ContainerPath, State: Mounted}
		o.Path, o.Err = i.engine.Path(ctx, w.Driver, w.Volume)
		if o.Err != nil {
			o.State = Lost
		}
		out = append(out, o)
	}
	return out
}

func (i *Isolator) tellDamaged(bad []damaged) {
	for _, d := range bad {
		i.log.Warn("damaged container set aside", zap.String("file", d.file), zap.Error(d.err))
	}
}

// Tidied is what Tidy did about one container.
type Tidied struct {
	Outcomes
	// Found says what was wrong.
	Found string
}

// tidyWorkers bounds how many containers are tidied up at once: one whose driver
// hangs must not hold up the others.
const tidyWorkers = 64

// Tidy finishes what was cut short: preparations of which the caller never
// learned are undone, cleanings are gone on with. starting says that this bridge
// has only just begun, so that no call is under way. The containers are worked on
// at the same time; what fails of one is tried again with the next Tidy.
func (i *Isolator) Tidy(ctx context.Context, starting bool) ([]Tidied, error) {
	list, bad, err := i.store.list()
	if err != nil {
		return nil, err
	}
	i.tellDamaged(bad)
	var out []Tidied
	for _, d := range bad {
		out = append(out, Tidied{Found: "a container's file was damaged and is set aside as " + d.file})
	}
	var all sync.WaitGroup
	var mu sync.Mutex // guards out and errs
	var errs []error
	slots := make(chan struct{}, tidyWorkers)
	for _, c := range list {
		if c.Phase == prepared || c.Phase == preparing && !starting {
			continue
		}
		all.Go(func() {
			slots <- struct{}{}
			t, err := i.tidy(ctx, c)
			<-slots
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			if t.Found != "" {
				out = append(out, t)
			}
		})
	}
	all.Wait()
	if starting {
		more, err := i.strays(ctx, list)
		out, errs = append(out, more...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// tidy cleans a container up, once nobody works on it, if it still is as it was.
func (i *Isolator) tidy(ctx context.Context, c *container) (Tidied, error) {
	done, err := i.turns.take(ctx, c.Owner, c.ID)
	if err != nil {
		return Tidied{}, busy("tidy up", c.ID, err)
	}
	defer done()
	now, err := i.store.load(c.Owner, c.ID)
	if err != nil || now == nil || now.Phase != c.Phase {
		return Tidied{}, err
	}
	t := Tidied{Found: "its preparation was cut short"}
	if c.Phase == cleaning {
		t.Found = "its cleaning was cut short"
	}
	// The failures are in the outcomes; they are owed and tried again.
	t.Outcomes, _ = i.cleanup(ctx, c.Owner, c.ID)
	return t, nil
}

// strays are references in the ledger of containers that are not written down:
// their file was damaged or removed. Nobody can clean them up but by their id,
// so they are kept; that they exist is told.
func (i *Isolator) strays(_ context.Context, list []*container) ([]Tidied, error) {
	known := map[string]bool{}
	for _, c := range list {
		known[Holder(c.Owner, c.ID)] = true
	}
	records, err := i.engine.Ledger().List()
	if err != nil {
		return nil, err
	}
	var out []Tidied
	for _, item := range records {
		if item.Record == nil || item.Hint {
			continue
		}
		for _, h := range item.Record.Holders {
			if id, ok := ContainerOf(h.Name); ok && !known[h.Name] {
				out = append(out, Tidied{Found: "it holds a volume and is not written down; it is kept until somebody cleans it up",
					Outcomes: Outcomes{Container: id, Volumes: []Outcome{{Key: item.Record.Key(), State: Mounted, Path: item.Record.Path}}}})
			}
		}
	}
	return out, nil
}

// Volumes tells where the volumes of a container are. NotMounted if the
// container is not known.
func (i *Isolator) Volumes(ctx context.Context, owner, id string) ([]Outcome, error) {
	if err := checkID(id, owner); err != nil {
		return nil, err
	}
	c, err := i.store.load(owner, id)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &volume.Error{Kind: volume.NotMounted, Op: "look at container", Message: "container " + id + " is not known",
			Hint: "prepare it first"}
	}
	return i.look(ctx, c), nil
}

// Containers tells which containers named each volume in Prepare.
func (i *Isolator) Containers() (map[ledger.Key][]string, error) {
	list, _, err := i.store.list()
	out := map[ledger.Key][]string{}
	for _, c := range list {
		for _, w := range c.Volumes {
			out[w.key()] = append(out[w.key()], c.ID)
		}
	}
	return out, err
}

// IsNotKnown says that an error is about a container that is not known.
func IsNotKnown(err error) bool { return errors.Is(err, volume.NotMounted) }
