package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// build is what `dvdcli version` tells.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisBuild() build {
	b := build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	return b
}

// aboutCommands tell about dvdcli itself.
func aboutCommands() []spec {
	return []spec{
		{name: "version", usage: "print the version", action: printVersion, options: flagsEverywhere},
		{name: "man", usage: "print the man page", action: printMan, options: flagsEverywhere},
		{name: "completion", usage: "print a completion script, to be evaluated by the shell", action: printCompletion,
			options: func() []option { return append(flagsEverywhere(), shellOption()) }},
	}
}

func printVersion(s *session) error {
	b := thisBuild()
	return s.result(b, fmt.Sprintf("dvdcli %s (%s, %s/%s)", b.Version, b.Go, b.OS, b.Arch))
}
