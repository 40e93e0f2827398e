package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
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
func aboutCommands() []definition {
	return []definition{
		{name: "version", usage: "print the version", action: printVersion, flags: flagsEverywhere},
		{name: "man", usage: "print the man page", action: printMan, flags: flagsEverywhere},
		{name: "completion", usage: "print a completion script, to be evaluated by the shell", action: printCompletion, flags: func() []cli.Flag {
			return append(flagsEverywhere(), stringFlag(flagShell, shellName(os.Getenv("SHELL")), "`shell`: bash, zsh or fish"))
		}},
	}
}

func printVersion(s *session) error {
	b := thisBuild()
	return s.result(b, fmt.Sprintf("dvdcli %s (%s, %s/%s)", b.Version, b.Go, b.OS, b.Arch))
}

// completions are what shells evaluate; they ask dvdcli itself what may come
// next. fish's is written by the library.
var completions = map[string]string{
	"bash": `_dvdcli() {
	local cur="${COMP_WORDS[COMP_CWORD]}" words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
	[[ $cur == -* ]] && words+=("$cur")
	COMPREPLY=($(compgen -W "$("${words[@]}" ` + completionRequest + ` 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _dvdcli dvdcli`,
	"zsh": `#compdef dvdcli
_dvdcli() {
	local -a asked=("${(@)words[1,CURRENT-1]}")
	[[ ${words[CURRENT]} == -* ]] && asked+=("${words[CURRENT]}")
	compadd -- ${(f)"$("${(@)asked}" ` + completionRequest + ` 2>/dev/null)"}
}
compdef _dvdcli dvdcli`,
	"fish": "",
}

func printCompletion(s *session) error {
	shell := s.String(flagShell)
	script, ok := completions[shell]
	if !ok {
		return fmt.Errorf("no completion for shell %q, only bash, zsh, fish; %w", shell, errUsage)
	}
	if shell == "fish" {
		var err error
		if script, err = s.App.ToFishCompletion(); err != nil {
			return fmt.Errorf("completion for fish: %w", err)
		}
	}
	return s.result(map[string]string{"script": script}, script)
}

func shellName(path string) string {
	for name := range completions {
		if strings.HasSuffix(path, name) {
			return name
		}
	}
	return "bash"
}
