// Package proc reads the kernel's process table and kills process trees.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTicks is USER_HZ, which Linux fixes at 100 for user space on every
// architecture that Go supports.
const clockTicks = 100

// kernelThread is PF_KTHREAD of include/linux/sched.h.
const kernelThread = 0x00200000

// Process identifies a process for good: a pid alone is given to another
// process after the first one's end.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot, see proc(5)
}

// Stat is what proc(5) says of a process.
type Stat struct {
	Process
	Parent, Group, Session int
	Zombie                 bool
	Kernel                 bool // a thread of the kernel
	User, System           time.Duration
	RSS                    uint64 // bytes
	Threads                uint32
}

// Read returns the state of a process. The error matches fs.ErrNotExist when
// there is none.
func Read(pid int) (Stat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, unix.ESRCH) {
		err = fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	if err != nil {
		return Stat{}, err
	}
	return parse(pid, raw)
}

// parse reads proc_pid_stat(5). The second field, a name in parentheses, may
// hold anything, so what counts begins after the last parenthesis.
func parse(pid int, raw []byte) (Stat, error) {
	_, rest, found := bytes.Cut(raw[bytes.LastIndexByte(raw, ')')+1:], []byte(" "))
	fields := strings.Fields(string(rest))
	if !found || len(fields) < 22 {
		return Stat{}, fmt.Errorf("process %d: unexpected format of its stat file", pid)
	}
	number := func(field int) uint64 { // numbered as in the manual page
		n, err := strconv.ParseUint(fields[field-3], 10, 64)
		if err != nil {
			return 0 // negative: no process group or session of this namespace
		}
		return n
	}
	ticks := func(n uint64) time.Duration { return time.Duration(n) * time.Second / clockTicks }
	return Stat{
		Process: Process{PID: pid, Start: number(22)},
		Parent:  int(number(4)),
		Group:   int(number(5)),
		Session: int(number(6)),
		// Of a process with several threads the first can be a zombie while
		// others still run.
		Zombie:  (fields[0] == "Z" || fields[0] == "X") && number(20) <= 1,
		Kernel:  number(9)&kernelThread != 0,
		User:    ticks(number(14)),
		System:  ticks(number(15)),
		Threads: uint32(number(20)),
		RSS:     number(24) * uint64(os.Getpagesize()),
	}, nil
}

// Alive reports whether that very process still runs; a zombie does not.
func (p Process) Alive() bool {
	s, err := Read(p.PID)
	return err == nil && s.Start == p.Start && !s.Zombie
}

// All returns every process that is neither a zombie nor of the kernel.
func All() ([]Stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the process table: %w", err)
	}
	var all []Stat
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := Read(pid); err == nil && !s.Zombie && !s.Kernel {
			all = append(all, s)
		}
	}
	return all, nil
}

// Tree returns the process with the given pid, its descendants, and the
// processes of the sessions that these lead. It is empty when the process does
// not exist (any more) and leads no session.
func Tree(pid int) ([]Stat, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	in := map[int]bool{pid: true}
	for grown := true; grown; {
		grown = false
		for _, s := range all {
			if !in[s.PID] && (in[s.Parent] || in[s.Session]) {
				in[s.PID], grown = true, true
			}
		}
	}
	return slices.DeleteFunc(all, func(s Stat) bool { return !in[s.PID] }), nil
}

// WithEnvironment returns the processes that were started with the given
// KEY=value in their environment, as far as this process may look.
func WithEnvironment(entry string) ([]Stat, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	var found, unclear []Stat
	for _, s := range all {
		switch has, known := hasEnvironment(s, entry); {
		case has:
			found = append(found, s)
		case !known:
			unclear = append(unclear, s)
		}
	}
	if len(unclear) == 0 {
		return found, nil
	}
	// The environment looks empty for a moment while a program is executed.
	time.Sleep(time.Millisecond)
	for _, s := range unclear {
		if has, _ := hasEnvironment(s, entry); has {
			found = append(found, s)
		}
	}
	return found, nil
}

func hasEnvironment(s Stat, entry string) (has, known bool) {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.PID), "environ"))
	if err != nil {
		return false, true
	}
	return slices.Contains(strings.Split(string(env), "\x00"), entry), len(env) > 0
}

// Signal sends sig to each process of the list that still is the same one.
func Signal(list []Stat, sig unix.Signal) {
	for _, s := range list {
		if s.PID == os.Getpid() || !s.Alive() {
			continue
		}
		// The process may end between the look and the signal; that is no
		// failure, and the callers look again.
		_ = unix.Kill(s.PID, sig)
	}
}

// Kill sends SIGKILL to what find returns until that is nothing and everything
// that was found has ended for good, so that processes that fork meanwhile are
// found, too. It fails when some are left after the limit.
func Kill(find func() ([]Stat, error), limit time.Duration) error {
	deadline := time.Now().Add(limit)
	var dying []Stat
	for {
		list, err := find()
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.PID != os.Getpid() && !slices.ContainsFunc(dying, func(d Stat) bool { return d.Process == s.Process }) {
				dying = append(dying, s)
			}
		}
		// A process on its way out is still there, with open files perhaps,
		// when nothing of it can be found by what it was.
		dying = slices.DeleteFunc(dying, func(s Stat) bool { return !s.Alive() })
		if len(dying) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes did not end within %v of SIGKILL, the first is %d",
				len(dying), limit, dying[0].PID)
		}
		Signal(dying, unix.SIGKILL)
		time.Sleep(2 * time.Millisecond)
	}
}
