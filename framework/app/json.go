package app

import (
	"encoding/json"
	"fmt"
	"math"
)

const (
	disabled  = "disabled"
	unlimited = "unlimited"
)

// MarshalJSON writes the definition as Marathon does: defaults are always
// there, portDefinitions exactly with host networking, the container's
// portMappings exactly without, and no version before the app is stored.
func (a *App) MarshalJSON() ([]byte, error) {
	type plain App
	out := struct {
		*plain
		Container *container        `json:"container,omitempty"`
		Ports     *[]PortDefinition `json:"portDefinitions,omitempty"`
		Version   *Timestamp        `json:"version,omitempty"`
	}{plain: (*plain)(a)}
	if a.Container != nil {
		out.Container = &container{plainContainer: (*plainContainer)(a.Container)}
	}
	if a.HostNetworked() {
		ports := a.Ports
		if ports == nil {
			ports = []PortDefinition{}
		}
		out.Ports = &ports
	} else if a.Container != nil {
		// Absent ones would be read as the default, which is one mapping.
		mappings := a.Container.PortMappings
		if mappings == nil {
			mappings = []PortMapping{}
		}
		out.Container.PortMappings = &mappings
	}
	if !a.Version.IsZero() {
		out.Version = &a.Version
	}
	return json.Marshal(out)
}

type plainContainer Container

// container is Container in JSON.
type container struct {
	*plainContainer
	PortMappings *[]PortMapping `json:"portMappings,omitempty"`
}

// MarshalJSON writes a string, or an object that names a secret.
func (e EnvVar) MarshalJSON() ([]byte, error) {
	if e.Secret != "" {
		return json.Marshal(map[string]string{"secret": e.Secret})
	}
	return json.Marshal(e.Value)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *EnvVar) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*e = EnvVar{}
		return json.Unmarshal(data, &e.Value)
	}
	var ref struct{ Secret string }
	if err := json.Unmarshal(data, &ref); err != nil {
		return fmt.Errorf("environment variable: %w", err)
	}
	*e = EnvVar{Secret: ref.Secret}
	return nil
}

// limit is a bound in JSON: a number or "unlimited".
type limit float64

func (l limit) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(l), 1) {
		return json.Marshal(unlimited)
	}
	return json.Marshal(float64(l))
}

func (l *limit) UnmarshalJSON(data []byte) error {
	if string(data) == `"`+unlimited+`"` {
		*l = limit(math.Inf(1))
		return nil
	}
	return json.Unmarshal(data, (*float64)(l))
}

type limits struct {
	CPUs *limit `json:"cpus,omitempty"`
	Mem  *limit `json:"mem,omitempty"`
}

// MarshalJSON writes numbers or "unlimited".
func (l Limits) MarshalJSON() ([]byte, error) {
	return json.Marshal(limits{CPUs: (*limit)(l.CPUs), Mem: (*limit)(l.Mem)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *Limits) UnmarshalJSON(data []byte) error {
	var in limits
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("resource limits: %w", err)
	}
	*l = Limits{CPUs: (*float64)(in.CPUs), Mem: (*float64)(in.Mem)}
	return nil
}

type unreachable struct {
	InactiveAfterSeconds int `json:"inactiveAfterSeconds"`
	ExpungeAfterSeconds  int `json:"expungeAfterSeconds"`
}

// MarshalJSON writes "disabled" or the two times.
func (u UnreachableStrategy) MarshalJSON() ([]byte, error) {
	if u.Disabled {
		return json.Marshal(disabled)
	}
	return json.Marshal(unreachable{u.InactiveAfterSeconds, u.ExpungeAfterSeconds})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (u *UnreachableStrategy) UnmarshalJSON(data []byte) error {
	if string(data) == `"`+disabled+`"` {
		*u = UnreachableStrategy{Disabled: true}
		return nil
	}
	var in unreachable
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("unreachable strategy: %w", err)
	}
	*u = UnreachableStrategy{InactiveAfterSeconds: in.InactiveAfterSeconds, ExpungeAfterSeconds: in.ExpungeAfterSeconds}
	return nil
}

type checkExec struct {
	Command struct {
		Shell string   `json:"shell,omitempty"`
		Argv  []string `json:"argv,omitempty"`
	} `json:"command"`
}

// MarshalJSON writes {"command":{"shell":…}} or {"command":{"argv":[…]}}.
func (c CheckExec) MarshalJSON() ([]byte, error) {
	var out checkExec
	out.Command.Shell, out.Command.Argv = c.Command.Value, c.Argv
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *CheckExec) UnmarshalJSON(data []byte) error {
	var in checkExec
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("exec check: %w", err)
	}
	*c = CheckExec{Command: Command{Value: in.Command.Shell}, Argv: in.Command.Argv}
	return nil
}
