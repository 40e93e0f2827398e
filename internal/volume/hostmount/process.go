package hostmount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

var _ volume.Processes = (*Tables)(nil)

// Process implements volume.Processes.
func (t *Tables) Process(pid int) (volume.Process, error) {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return volume.Process{}, fmt.Errorf("pid namespace: %w", err)
	}
	started, err := startTime(pid)
	if err != nil {
		return volume.Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return volume.Process{PID: pid, Started: started, Namespace: namespace}, nil
}

// Ended implements volume.Processes.
func (t *Tables) Ended(p volume.Process) bool {
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil || namespace != p.Namespace || p.PID <= 0 {
		return false
	}
	// A /proc that hides the processes of others says that there is none; the
	// kernel itself tells "none" from "not yours".
	if errors.Is(unix.Kill(p.PID, 0), unix.ESRCH) {
		return true
	}
	started, err := startTime(p.PID)
	return err == nil && started != p.Started
}

// startTime reads the 22nd field of /proc/<pid>/stat. The second, the command in
// parentheses, may hold spaces and parentheses itself.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const index = 22 - 3 // the first one after the command is the third
	if len(fields) <= index {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the command", pid, len(fields))
	}
	return strconv.ParseUint(string(fields[index]), 10, 64)
}
