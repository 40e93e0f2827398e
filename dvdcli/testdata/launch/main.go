// Command launch runs a command and writes to file descriptor 3 what it cost:
// wall time and CPU time in nanoseconds and the peak of its resident memory in
// KiB. It exists because of the last: the kernel counts what the process was
// before its exec to a process's peak, and that is its parent, which must
// therefore be smaller than what is measured.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(argv []string) int {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return 125
	}
	start := now()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 126
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	for {
		_, err = syscall.Wait4(pid, &status, 0, &usage)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return 127
	}
	line := strconv.FormatInt(now()-start, 10) + " " +
		strconv.FormatInt(usage.Utime.Nano()+usage.Stime.Nano(), 10) + " " + strconv.FormatInt(usage.Maxrss, 10)
	if _, err := syscall.Write(3, []byte(line)); err != nil {
		return 124
	}
	if status.Exited() {
		return status.ExitStatus()
	}
	return 128 + int(status.Signal())
}

func now() int64 {
	var tv syscall.Timeval
	if err := syscall.Gettimeofday(&tv); err != nil {
		panic(err)
	}
	return tv.Nano()
}
