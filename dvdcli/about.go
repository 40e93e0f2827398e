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
func aboutCommands(t *terminal) []*cli.Command {
	return []*cli.Command{
		{Name: "version", Usage: "print the version", Action: command(t, printVersion), Flags: flagsEverywhere()},
		{Name: "man", Usage: "print the man page", Action: command(t, printMan), Flags: flagsEverywhere()},
		{Name: "completion", Usage: "print a completion script, to be evaluated by the shell", Action: command(t, printCompletion),
			Flags: append(flagsEverywhere(), stringFlag(flagShell, shellName(os.Getenv("SHELL")), "`shell`: bash, zsh or fish"))},
	}
}

func printVersion(s *session) error {
	b := thisBuild()
	return s.result(b, fmt.Sprintf("dvdcli %s (%s, %s/%s)", b.Version, b.Go, b.OS, b.Arch))
}

// manDetails goes into the description of the man page: what the library cannot
// know.
const manDetails = `

# EXIT STATUS

%s
# FILES

**/etc/dvdi/dvdcli.yaml**: what this agent allows: drivers, options, time-outs

**/run/dvdi**: what is mounted in this boot

**/var/lib/dvdi**: what outlives a reboot

**/run/docker/plugins, /etc/docker/plugins, /usr/lib/docker/plugins**: where volume plugins are looked for
`

func printMan(s *session) error {
	var statuses strings.Builder
	for _, x := range exitStatuses {
		fmt.Fprintf(&statuses, "**%d**: %s\n\n", x.status, x.meaning)
	}
	s.App.Description += fmt.Sprintf(manDetails, statuses.String())
	page, err := s.App.ToMan()
	if err != nil {
		return fmt.Errorf("man page: %w", err)
	}
	return s.result(map[string]string{"man": page}, page)
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
