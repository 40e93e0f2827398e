// Package agenttest has what tests of agents need: a dvdcli that does as it is
// told and tells how it was called.
package agenttest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scriptEnv names the script's directory in the environment of the scripted
// dvdcli.
const scriptEnv = "AGENTTEST_DVDCLI"

// Call is one execution of dvdcli.
type Call struct {
	Argv  []string
	Env   []string
	Dir   string
	Files map[string]string // what descriptors 0, 1 and 2 are
	Group bool              // leads a process group of its own
	Begin time.Time
	End   time.Time // zero while it runs, and when it was killed
	Exit  int
}

// Operation returns the call's command and volume, as in "mount rclone/v1".
func (c Call) Operation() string {
	var driver, name string
	for _, arg := range c.Argv[2:] {
		if v, ok := strings.CutPrefix(arg, "--volumedriver="); ok {
			driver = v
		}
		if v, ok := strings.CutPrefix(arg, "--volumename="); ok {
			name = v
		}
	}
	return c.Argv[1] + " " + driver + "/" + name
}

// Answer is what a scripted dvdcli does for an operation.
type Answer struct {
	Stdout, Stderr string
	Exit           int
	// Hold delays the answer until Script.Release.
	Hold bool
	// Tmpfs mounts one where the volume is, and unmounts it.
	Tmpfs bool
}

// Script controls a scripted dvdcli.
type Script struct {
	t   testing.TB
	dir string
}

// NewScript makes a dvdcli, which mounts and unmounts plain directories
// until told otherwise. The test binary's TestMain has to call Main.
func NewScript(t testing.TB) *Script {
	t.Helper()
	s := &Script{t: t, dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, s.Path()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"calls", "answers", "volumes"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Path returns the path of the binary.
func (s *Script) Path() string { return filepath.Join(s.dir, "dvdcli") }

// Env is what the agent's configuration has to add to dvdcli's environment.
func (s *Script) Env() []string { return []string{scriptEnv + "=" + s.dir} }

// Volume returns the directory of a volume of the script's.
func (s *Script) Volume(name string) string { return filepath.Join(s.dir, "volumes", name) }

// On sets the answer to an operation like "mount rclone/v1".
func (s *Script) On(operation string, a Answer) {
	s.t.Helper()
	data, err := json.Marshal(a)
	if err != nil {
		s.t.Fatal(err)
	}
	s.replace(s.answer(operation), data)
}

// Release lets the held calls of an operation go on, and does not hold later
// ones.
func (s *Script) Release(operation string) {
	s.t.Helper()
	s.replace(s.answer(operation)+".release", nil)
}

func (s *Script) replace(path string, data []byte) {
	s.t.Helper()
	if err := os.WriteFile(path+".new", data, 0o666); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Script) answer(operation string) string {
	return filepath.Join(s.dir, "answers", strings.NewReplacer("/", "_", " ", "_").Replace(operation))
}

// Calls returns the calls so far, in the order of their begin.
func (s *Script) Calls() []Call {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "calls", "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	var calls []Call
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		var c Call
		if err := json.Unmarshal(data, &c); err != nil {
			s.t.Fatalf("%s: %v", path, err)
		}
		calls = append(calls, c)
	}
	slices.SortFunc(calls, func(a, b Call) int { return a.Begin.Compare(b.Begin) })
	return calls
}

// Operations returns the operations of all calls, in the order of their begin.
func (s *Script) Operations() []string {
	s.t.Helper()
	var list []string
	for _, c := range s.Calls() {
		list = append(list, c.Operation())
	}
	return list
}

// Main runs the scripted dvdcli, and does not return, if this process was
// started as one.
func Main() {
	dir := os.Getenv(scriptEnv)
	if dir == "" || filepath.Base(os.Args[0]) != "dvdcli" {
		return
	}
	exit, err := run(&Script{dir: dir})
	if err != nil {
		fmt.Fprintln(os.Stderr, "scripted dvdcli:", err)
		exit = 99
	}
	os.Exit(exit)
}

func run(s *Script) (int, error) {
	call, err := newCall()
	if err != nil {
		return 0, err
	}
	log := filepath.Join(s.dir, "calls", fmt.Sprintf("%d-%d.json", call.Begin.UnixNano(), os.Getpid()))
	if err := write(log, call); err != nil {
		return 0, err
	}
	call.Exit, err = s.obey(call)
	if err != nil {
		return 0, err
	}
	call.End = time.Now()
	return call.Exit, write(log, call)
}

func newCall() (Call, error) {
	c := Call{Argv: os.Args, Env: os.Environ(), Files: make(map[string]string), Begin: time.Now()}
	c.Group = syscall.Getpgrp() == os.Getpid()
	var err error
	if c.Dir, err = os.Getwd(); err != nil {
		return c, err
	}
	for _, fd := range []string{"0", "1", "2"} {
		target, err := os.Readlink("/proc/self/fd/" + fd)
		if err != nil {
			return c, err
		}
		kind, _, _ := strings.Cut(target, ":")
		c.Files[fd] = kind
	}
	return c, nil
}

func write(path string, c Call) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (s *Script) obey(c Call) (int, error) {
	path := s.answer(c.Operation())
	var a Answer
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &a)
	}
	if err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	for a.Hold {
		if _, err := os.Stat(path + ".release"); err == nil {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	fmt.Fprint(os.Stderr, a.Stderr)
	if a.Exit != 0 {
		return a.Exit, nil
	}
	return 0, s.perform(c, a)
}

func (s *Script) perform(c Call, a Answer) error {
	_, name, _ := strings.Cut(c.Operation(), "/")
	dir := s.Volume(name)
	if c.Argv[1] != "mount" {
		if a.Tmpfs {
			return syscall.Unmount(dir, 0)
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if a.Tmpfs {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			return err
		}
	}
	out := a.Stdout
	if out == "" {
		out = dir + "\n"
	}
	_, err := fmt.Print(out)
	return err
}
