package volume

import "context"

// Process is one process of this host, told apart from a later one of the same
// pid.
type Process struct {
	PID int `json:"pid"`
	// Started is when it started, in clock ticks since boot (proc_pid_stat(5),
	// starttime).
	Started uint64 `json:"started"`
	// Namespace is the pid namespace in which PID counts: the link text of
	// /proc/self/ns/pid.
	Namespace string `json:"namespace"`
}

// Processes is implemented by MountTables that can tell processes apart.
type Processes interface {
	// Process describes a process that runs. An error that wraps fs.ErrNotExist
	// or fs.ErrPermission: there is none of this pid, or it may not be looked at.
	Process(pid int) (Process, error)
	// Ended says that the process has certainly ended. What cannot be known, as of
	// another pid namespace, has not; nor has a process that its parent has not
	// waited for.
	Ended(p Process) bool
}

type reachedKey struct{}

// WithReached makes drivers that know which process serves them call reached with
// its pid when the connection for a call under ctx stands and before anything is
// sent over it. It is called in the goroutine of the call, and again for each
// connection.
func WithReached(ctx context.Context, reached func(pid int)) context.Context {
	return context.WithValue(ctx, reachedKey{}, reached)
}

// Reached tells whoever wants to know it which process gets the call under ctx.
// 0 stands for one that is not known.
func Reached(ctx context.Context, pid int) {
	if reached, ok := ctx.Value(reachedKey{}).(func(int)); ok {
		reached(pid)
	}
}
