// Package volumetest has volume plugins for tests: they listen on real Unix
// sockets, differ in what real plugins differ in, fail where a test wants them
// to, and keep a log of what they were asked. A plugin runs in the test's
// process (Start) or in one of its own (StartProcess), which outlives a killed
// client and can be killed itself.
package volumetest

import "time"

// Counting is how a plugin keeps account of mounts.
type Counting string

// The ways of counting, after real plugins.
const (
	// CountIDs knows each mount id once; repeating a call changes nothing.
	CountIDs Counting = "ids"
	// CountRefusing knows each id once and refuses repeated calls (rclone).
	CountRefusing Counting = "refusing"
	// CountCalls counts calls and ignores ids; too many unmounts make the count
	// negative, and then Remove fails for ever (sshfs).
	CountCalls Counting = "calls"
	// CountNothing is mounted or not (convoy).
	CountNothing Counting = "nothing"
	// CountAfterUnmount counts calls, but an Unmount unmounts first and looks
	// at the count afterwards (REX-Ray 0.11).
	CountAfterUnmount Counting = "after-unmount"
)

// Restart is what a plugin does about mounts when it starts again. Real mounts
// stay in the mount table meanwhile, unless they are Volatile.
type Restart string

// The ways of starting again.
const (
	// RestartRemembers keeps its account.
	RestartRemembers Restart = "remembers"
	// RestartForgets starts with an empty account (REX-Ray).
	RestartForgets Restart = "forgets"
	// RestartRemounts keeps its account and mounts what it says (rclone).
	RestartRemounts Restart = "remounts"
)

// Missing is what Get answers for a volume that does not exist.
type Missing string

// The answers.
const (
	MissingErr     Missing = "err"      // 500 with Err
	MissingErr200  Missing = "err200"   // 200 with Err
	MissingObscure Missing = "obscure"  // 500 with an Err that does not say why
	MissingEmpty   Missing = "empty"    // 200 with {}
	MissingNoName  Missing = "no-name"  // 200 with an empty Volume
	MissingStatus  Missing = "status"   // 404 with Err
	MissingRawText Missing = "raw-text" // 500 with text
)

// Config describes a plugin. The zero value is a well-behaved one.
type Config struct {
	// Name is the driver's name. Empty: "test".
	Name string
	// Dir holds the plugin's volumes, mounts, state and request log. Empty: a
	// new directory that goes with the test.
	Dir string
	// PluginDir is where the socket NAME.sock goes. Empty: Dir.
	PluginDir string

	Counting Counting // empty: CountIDs
	Restart  Restart  // empty: RestartRemembers
	Missing  Missing  // empty: MissingErr
	// CreateTwice makes Create of a volume that exists fail.
	CreateTwice bool
	// Bind mounts volumes; otherwise their directories are what is returned.
	// Needs root.
	Bind bool
	// Volatile makes mounts end with the plugin, as those of FUSE do.
	Volatile bool
	// AlwaysMountpoint makes Get, List and Path name a mount point even when
	// the volume is not mounted.
	AlwaysMountpoint bool
	// Lacks are methods (such as "Get") that the plugin does not know.
	Lacks []string
	// Scope is what Capabilities says. Empty: "local".
	Scope string
	// Delay slows every call down, before its effect.
	Delay time.Duration
	// Rules are those that apply from the start.
	Rules []Rule
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.Name, "test"},
		{(*string)(&c.Counting), string(CountIDs)},
		{(*string)(&c.Restart), string(RestartRemembers)},
		{(*string)(&c.Missing), string(MissingErr)},
		{&c.Scope, "local"},
		{&c.PluginDir, c.Dir},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return c
}

// Instant is a point in the handling of a call.
type Instant string

// The instants.
const (
	Before Instant = "before" // received, nothing done
	After  Instant = "after"  // done, not answered
)

// Do is what a rule does.
type Do string

// The actions.
const (
	// DoHold keeps the call until Release.
	DoHold Do = "hold"
	// DoAnswer answers with Status and Body, at once: a rule at Before keeps
	// the call from having an effect.
	DoAnswer Do = "answer"
	// DoDrop closes the connection without an answer.
	DoDrop Do = "drop"
	// DoCut closes the connection in the middle of the answer Body.
	DoCut Do = "cut"
	// DoExit ends the plugin's process as SIGKILL would. Only for plugins in a
	// process of their own.
	DoExit Do = "exit"
)

// Rule makes calls go wrong.
type Rule struct {
	// Method such as "Mount", or "Activate". Empty: every VolumeDriver method.
	Method string
	// Volume restricts the rule to one volume. Empty: all.
	Volume string
	// Skip is how many matching calls are let through first; Times how many
	// are affected after that (0: all).
	Skip, Times int

	At     Instant // empty: Before
	Do     Do
	Status int    // of DoAnswer and DoCut; 0: 200
	Body   string // of DoAnswer and DoCut
}

// Request is one entry of the request log.
type Request struct {
	Method string // such as "Mount"
	Name   string
	ID     string
	Opts   map[string]string
	// Status is 0 as long as the call has no answer.
	Status int
	Answer string
	Header map[string]string // Host, Accept, Content-Type
}

// State is what a plugin knows of a volume.
type State struct {
	Options map[string]string
	// Mounted is what the plugin believes.
	Mounted bool
	// IDs of the mounts, for those that count them.
	IDs []string
	// Count of the mounts, for those that count calls.
	Count int
	// Mounts and Unmounts count how often it was really mounted and unmounted.
	Mounts, Unmounts int
}
