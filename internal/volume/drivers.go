package volume

import "context"

// Drivers finds drivers by name. Implementations are safe for concurrent use.
type Drivers interface {
	// Open finds the driver of this name. It may contact the driver (a
	// handshake such as Docker's Plugin.Activate) or leave that to the first
	// call.
	//
	// Failures: a *DriverUnknownError when nothing by that name exists, at
	// once, without waiting for it to appear; an *Error of Kind
	// DriverUnreachable when it exists but does not answer within ctx, or is
	// disabled.
	Open(ctx context.Context, name string) (Driver, error)

	// List tells every driver that can be found, broken entries included
	// (with Problem set), in the order in which Open would prefer them. It does
	// not contact them.
	List(ctx context.Context) ([]DriverInfo, error)
}

// Namer is implemented by Drivers that can be opened by several names.
type Namer interface {
	// Canonical is the one name of the driver that is opened by name, so that
	// nothing that is known or ruled about a driver can be missed by calling it
	// otherwise. A name that is not known is its own, without what never makes a
	// difference.
	Canonical(name string) string
}

// DriverInfo is one driver as discovery finds it.
type DriverInfo struct {
	Name string `json:"name"`
	// Kind is the Traits.Kind of the driver.
	Kind string `json:"kind"`
	// Source is the file that defines it: a socket, a spec, a json file.
	Source string `json:"source"`
	// Address is where it listens, without credentials.
	Address string `json:"address,omitempty"`
	// Problem says why it cannot be used, empty if nothing is known against it.
	Problem string `json:"problem,omitempty"`
}
