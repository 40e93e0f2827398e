package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// process is what can be told about another process; tests make one up.
type process struct {
	argv []string
	env  func(string) string
}

// parent reads the calling process from /proc. An unreadable one is nobody.
func parent() process {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	if err != nil {
		return process{env: os.Getenv}
	}
	return process{argv: strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"), env: os.Getenv}
}

// holderOf names who calls: an agent by its work directory, which it keeps over
// restarts, anybody else by user id. The agent hands its environment down.
func holderOf(p process, uid int) engine.Holder {
	if len(p.argv) > 0 && isAgent(p.argv[0]) {
		dir := flagValue(p.argv[1:], "work_dir")
		if dir == "" {
			dir = p.env("MESOS_WORK_DIR")
		}
		return engine.Holder{Name: "mesos-agent:" + dir}
	}
	return engine.Holder{Name: fmt.Sprintf("user:%d", uid), Person: true}
}

// isAgent knows the agent by its names, old and new, installed and in a libtool
// build tree.
func isAgent(path string) bool {
	switch strings.TrimPrefix(filepath.Base(path), "lt-") {
	case "mesos-agent", "mesos-slave":
		return true
	}
	return false
}

func flagValue(args []string, name string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return v
		}
		if a == "--"+name && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}
