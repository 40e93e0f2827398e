package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

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

func versionCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Flags: flagsEverywhere(), OnUsageError: usageError,
		Action: command(t, func(_ *cli.Context, s *session) error {
			b := thisBuild()
			return s.result(b, fmt.Sprintf("dvdcli %s (%s, %s/%s)", b.Version, b.Go, b.OS, b.Arch))
		}),
	}
}

func manCommand(t *terminal) *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "print the man page",
		Flags: flagsEverywhere(), OnUsageError: usageError,
		Action: command(t, func(c *cli.Context, s *session) error {
			page, err := c.App.ToMan()
			if err != nil {
				return fmt.Errorf("man page: %w", err)
			}
			return s.result(map[string]string{"man": page}, page)
		}),
	}
}

// completions are what shells evaluate. All of them ask dvdcli itself what may
// come next.
var completions = map[string]string{
	"bash": `_dvdcli() {
	local words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o bashdefault -o default -F _dvdcli dvdcli`,
	"zsh": `#compdef dvdcli
_dvdcli() {
	compadd -- ${(f)"$(${words[1,CURRENT-1]} --generate-bash-completion 2>/dev/null)"}
}
compdef _dvdcli dvdcli`,
	"fish": `complete -c dvdcli -f -a '(eval (commandline -opc) --generate-bash-completion 2>/dev/null)'`,
}

func completionCommand(t *terminal) *cli.Command {
	const flagShell = "shell"
	return &cli.Command{
		Name: "completion", Usage: "print a completion script, to be evaluated by the shell",
		Flags: append(flagsEverywhere(), &cli.StringFlag{Name: flagShell, Value: shellName(os.Getenv("SHELL")),
			Usage: "bash, zsh or fish", EnvVars: env(flagShell)}),
		OnUsageError: usageError,
		Action: command(t, func(c *cli.Context, s *session) error {
			script, ok := completions[c.String(flagShell)]
			if !ok {
				return fmt.Errorf("no completion for shell %q, only bash, zsh, fish; %w", c.String(flagShell), errUsage)
			}
			return s.result(map[string]string{"script": script}, script)
		}),
	}
}

func shellName(path string) string {
	for name := range completions {
		if len(path) >= len(name) && path[len(path)-len(name):] == name {
			return name
		}
	}
	return "bash"
}
