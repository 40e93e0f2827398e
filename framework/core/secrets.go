package core

import (
	"fmt"
	"maps"
	"slices"
)

// Secrets gives the values of secrets that the framework itself knows. It may
// be asked from several goroutines.
type Secrets interface {
	// Value returns the value of a source, as App.Secrets names it. known is
	// false where the agent's own resolver is to be asked instead.
	Value(source string) (value string, known bool, err error)
}

// resolveSecrets fills in the values that the tasks of an Accept need. They are
// neither stored nor logged. A value that cannot be had makes its task invalid.
func (c *Core) resolveSecrets(a Accept) error {
	if c.cfg.Secrets == nil {
		return nil
	}
	for _, op := range a.Operations {
		if op.Task == nil || len(op.Task.App.Secrets) == 0 {
			continue
		}
		values := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(op.Task.App.Secrets)) {
			value, known, err := c.cfg.Secrets.Value(op.Task.App.Secrets[name].Source)
			if err != nil {
				return &InvalidTaskError{TaskID: op.Task.ID, Reason: fmt.Sprintf("the secret %q cannot be had: %v", name, err)}
			}
			if known {
				values[name] = value
			}
		}
		op.Task.SecretValues = values
	}
	return nil
}
