package takeover

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
)

func isTransport(err error) bool {
	var e *url.Error
	return errors.As(err, &e)
}

// Return gives one app back to Marathon, from wherever its take-over is.
func (t *Takeover) Return(ctx context.Context, id string) error {
	if err := t.giveBack(ctx, id); err != nil {
		return fmt.Errorf("give back %s: %w", id, err)
	}
	return nil
}

func (t *Takeover) giveBack(ctx context.Context, id string) error {
	e := t.cfg.Journal.content.Apps[id]
	if e == nil {
		return errors.New("the journal knows of no take-over of it")
	}
	if t.cfg.From == nil {
		return errors.New("there is no running Marathon to give it back to")
	}
	steps := map[phase]func(context.Context, string, *entry) (phase, error){
		planned: t.toStopped, created: t.toStopped,
		// What Marathon is ending ends first, so that its volumes are known.
		suspending: t.awaitSuspended, suspended: t.claimForReturn, claimed: t.toStopped,
		starting: t.toStopping, taken: t.toStopping,
		stopping: t.awaitStopped, stopped: t.awaitUnmounted, returning: t.awaitReturned,
	}
	for e.Phase != returned {
		if err := t.advance(ctx, id, e, steps[e.Phase]); err != nil {
			return err
		}
	}
	t.cfg.Say("%s: runs at Marathon", id)
	return nil
}

// claimForReturn has volumes claimed where they were used, so that Marathon is
// bound to that agent while they are mounted there. Where tasks ran on several
// agents nobody can tell which, and nothing ever ran here: Marathon goes on as it
// would by itself.
func (t *Takeover) claimForReturn(ctx context.Context, id string, e *entry) (phase, error) {
	if len(agentsOf(e.Tasks)) > 1 {
		return claimed, nil
	}
	return t.claim(ctx, id, e)
}

func (t *Takeover) toStopping(context.Context, string, *entry) (phase, error) { return stopping, nil }

// toStopped is the way back for an app of which nothing ever ran here.
func (t *Takeover) toStopped(context.Context, string, *entry) (phase, error) { return stopped, nil }

// awaitStopped ends the instances here.
func (t *Takeover) awaitStopped(ctx context.Context, id string, _ *entry) (phase, error) {
	err := t.poll(ctx, "the tasks to end here", func(ctx context.Context) (bool, error) {
		a, found, err := t.cfg.To.App(ctx, id)
		if err != nil || !found {
			return !found && err == nil, err
		}
		if a.Instances != 0 {
			t.cfg.Say("%s: suspending here (%d instances)", id, a.Instances)
			return false, t.ignoreLocked(t.cfg.To.Update(ctx, id, map[string]any{"instances": 0}))
		}
		return len(a.active()) == 0 && a.Deployments == 0, nil
	})
	return stopped, err
}

// awaitUnmounted waits until the volumes are known to be unmounted here, for
// Marathon may start the app on any agent. Where nobody says so in time the app
// is bound to the host that had them last.
func (t *Takeover) awaitUnmounted(ctx context.Context, id string, e *entry) (phase, error) {
	if e.Pinned != "" || len(e.Volumes) == 0 {
		return returning, nil
	}
	claims, err := t.unmounted(ctx, id, e)
	if err != nil {
		return "", err
	}
	for _, c := range claims {
		if e.Pinned != "" && e.Pinned != c.Hostname {
			return "", fmt.Errorf("its volumes are on %s and %s: wait until they are unmounted", e.Pinned, c.Hostname)
		}
		e.Pinned = c.Hostname
	}
	return returning, nil
}

// unmounted waits for the claims on the app's volumes to end; it returns those
// that did not.
func (t *Takeover) unmounted(ctx context.Context, id string, e *entry) (left []Claim, err error) {
	look := func(ctx context.Context) (bool, error) {
		claims, err := t.cfg.To.Claims(ctx)
		left = slices.DeleteFunc(claims, func(c Claim) bool {
			return !slices.Contains(e.Volumes, Volume{Driver: c.Driver, Name: c.Name})
		})
		return len(left) == 0, err
	}
	waiting := New(t.cfg)
	waiting.cfg.Timeout = t.cfg.UnmountWait
	var timeout *timeoutError
	if err := waiting.poll(ctx, "the volumes to be unmounted", look); !errors.As(err, &timeout) {
		return nil, err
	}
	// The wait may have ended within a look.
	if done, err := look(ctx); done || err != nil {
		return nil, err
	}
	for _, c := range left {
		if c.State != "releasing" {
			return nil, fmt.Errorf("volume %s of driver %s is %s on %s", c.Name, c.Driver, c.State, c.Hostname)
		}
	}
	t.cfg.Say("%s: nobody says that its volumes are unmounted on %s: Marathon gets it with a constraint that binds it to that host; "+
		"remove the constraint once it may move", id, left[0].Hostname)
	return left, nil
}

// awaitReturned deletes the app here and has Marathon start it again.
func (t *Takeover) awaitReturned(ctx context.Context, id string, e *entry) (phase, error) {
	if err := t.cfg.To.Delete(ctx, id); err != nil {
		return "", err
	}
	err := t.poll(ctx, "the app to be gone here", func(ctx context.Context) (bool, error) {
		_, found, err := t.cfg.To.App(ctx, id)
		return !found, err
	})
	if err != nil {
		return "", err
	}
	for _, v := range e.Volumes {
		if err := t.cfg.To.Release(ctx, v); err != nil {
			return "", err
		}
	}
	err = t.poll(ctx, "the instances to run at Marathon", func(ctx context.Context) (bool, error) {
		a, err := t.source(ctx, id)
		if err != nil {
			return false, err
		}
		if a.Instances != e.Instances {
			t.cfg.Say("%s: starting at Marathon (%d instances)", id, e.Instances)
			return false, t.ignoreLocked(t.cfg.From.Update(ctx, id, e.comeback(a)))
		}
		return a.Running >= e.Instances && a.Deployments == 0, nil
	})
	return returned, err
}

// comeback is the update with which the app starts again at Marathon.
func (e *entry) comeback(a App) map[string]any {
	fields := map[string]any{"instances": e.Instances}
	if e.Pinned == "" {
		return fields
	}
	constraints, _ := a.Definition["constraints"].([]any)
	pin := []any{"hostname", "CLUSTER", e.Pinned}
	fields["constraints"] = append(slices.Clone(constraints), pin)
	return fields
}
