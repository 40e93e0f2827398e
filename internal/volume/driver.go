package volume

import "context"

// Driver is one volume driver, opened by name. A Docker volume plugin, a CSI
// plugin pair or a FlexVolume binary each fit behind it.
//
// All methods may be called from several goroutines at once; calls for
// different volumes must not wait for each other inside the driver's client.
// Each method returns when ctx ends at the latest. Failures are *Error values
// whose Kind tells what the caller may conclude:
//
//   - Refused, NotFound, AlreadyExists, Unsupported: the driver answered.
//   - DriverUnreachable: nothing was sent; the call had no effect and may be
//     repeated.
//   - Garbled: the driver has finished; whether it succeeded is unknown.
//   - Unsettled: the request was sent, the answer is missing. The driver may
//     still be working, may have finished or may have done nothing.
//
// A client never repeats Create, Remove, Mount or Unmount on its own once any
// byte of the request may have reached the driver.
type Driver interface {
	// Name is the name under which the driver was opened.
	Name() string

	// Traits describes the kind of driver. It costs no call.
	Traits() Traits

	// Capabilities asks the driver for its scope and version. It is optional
	// for drivers: one that does not answer it is of local scope, without
	// error. An unreachable driver is an error.
	Capabilities(ctx context.Context) (Capabilities, error)

	// Create makes the volume. The result carries the backend's id and
	// context, where the kind of driver has them.
	// AlreadyExists: the driver says that a volume of this name exists.
	Create(ctx context.Context, req CreateRequest) (Volume, error)

	// Remove destroys the volume. NotFound: it does not exist.
	Remove(ctx context.Context, ref Ref) error

	// Get describes one volume. NotFound is returned only when the driver's
	// answer leaves no doubt that the volume does not exist; any other failure
	// means that nothing is known. Unsupported: the driver has neither Get nor
	// a List that could replace it.
	Get(ctx context.Context, ref Ref) (Volume, error)

	// List describes all volumes. Unsupported: the driver has no such call.
	List(ctx context.Context) ([]Volume, error)

	// Path asks where the driver says that the volume is mounted; empty when
	// it is not. The answer is a claim, not a proof.
	Path(ctx context.Context, ref Ref) (string, error)

	// Mount makes the volume available on this host. It is called once per
	// mount id until Unmount was answered for that id.
	Mount(ctx context.Context, req MountRequest) (Mounted, error)

	// Unmount releases what Mount with the same id made available.
	Unmount(ctx context.Context, req UnmountRequest) error
}

// Served is implemented by drivers that know which process serves them.
type Served interface {
	// ServerPID is the process that answered the last call, 0 if there was none
	// or it is unknown.
	ServerPID() int
}

// Traits are the properties of a kind of driver that the engine acts on.
type Traits struct {
	// Kind is for people: "docker", "csi", "flexvolume".
	Kind string
	// CallerChoosesTarget says that the driver mounts at MountRequest.Target
	// (CSI, FlexVolume). The engine then makes the target's parent directory
	// before Mount and removes the empty target after Unmount. Otherwise the
	// driver chooses (Docker plugins) and the target is ignored. Such a driver
	// must take an Unmount of what is not mounted, or not any more, for success.
	CallerChoosesTarget bool
}

// Scope tells whether a driver's volumes exist on one host or on all.
type Scope string

// The scopes of the Docker volume plugin protocol (VolumeDriver.Capabilities).
const (
	ScopeLocal  Scope = "local"
	ScopeGlobal Scope = "global"
)

// Capabilities is what a driver says about itself.
type Capabilities struct {
	// Scope is ScopeLocal where the driver says nothing usable. Global does not
	// promise that several hosts may write at once.
	Scope Scope
	// Version is the driver's or its protocol's version, empty if unknown.
	Version string
}

// Ref names a volume towards a driver.
type Ref struct {
	// Name is the name that users give, exactly as given.
	Name string
	// BackendID is the backend's own id of the volume, where the driver
	// returned one at Create or Get (CSI volume_id); otherwise empty.
	BackendID string
	// Context is what the driver returned with the id and wants back with each
	// call (CSI volume_context).
	Context map[string]string
}

// Volume is what a driver tells about a volume.
type Volume struct {
	Ref
	// Mountpoint is the driver's claim where the volume is mounted. Some
	// drivers report one for volumes that are not.
	Mountpoint string
	// CreatedAt is the driver's text, empty if it gives none.
	CreatedAt string
	// Status is free-form, mostly for people.
	Status map[string]any
}

// CreateRequest asks for a volume.
type CreateRequest struct {
	Name    string
	Options map[string]string
	// Secrets are options whose values must not appear in any record, log or
	// error. A protocol with one kind of options sends both.
	Secrets Secrets
}

// MountRequest asks for a volume on this host.
type MountRequest struct {
	Volume Ref
	// ID is the mount id: stable per run directory, driver, volume and holder,
	// and empty for a mount adopted from a caller that sends none.
	ID string
	// Target is where the caller wants the volume, for drivers whose Traits say
	// CallerChoosesTarget: an absolute path, short enough for any socket or
	// mount table, safe as a file name.
	Target string
	// Options and Secrets are those of the volume, for drivers that need them
	// at each mount (FlexVolume).
	Options map[string]string
	Secrets Secrets
	// PublishContext is what an earlier, unfinished Mount of the same ID
	// recorded through Checkpoint (CSI publish_context, FlexVolume's device).
	PublishContext map[string]string
	// Checkpoint, if not nil, records publish context durably in the middle of
	// a Mount, for drivers of several steps: after it returned nil, Unmount of
	// this ID will carry the context, whatever crashes. The driver stops and
	// returns the error if it fails.
	Checkpoint func(publishContext map[string]string) error
}

// Mounted is a driver's answer to Mount.
type Mounted struct {
	// Path is where the driver says the volume is, in this host's terms (paths
	// of managed plugins are already rescoped). It may be empty or wrong: the
	// caller checks it.
	Path string
	// PublishContext is what Unmount must get back; nil keeps what Checkpoint
	// recorded.
	PublishContext map[string]string
	// ServerPID is the process that answered, for looking into its mount
	// namespace; 0 if unknown (remote or of another pid namespace).
	ServerPID int
}

// UnmountRequest releases a volume.
type UnmountRequest struct {
	Volume Ref
	// ID, Target, PublishContext as at Mount.
	ID             string
	Target         string
	PublishContext map[string]string
	// Path is what Mount answered, empty if its answer was lost.
	Path string
	// Secrets are those known to this call, possibly none.
	Secrets Secrets
}
