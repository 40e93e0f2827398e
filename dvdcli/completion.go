package main

import (
	"fmt"
	"os"
	"strings"
)

// completionRequest at the end of a command line asks what may come next.
const completionRequest = "--generate-completion"

// completions are what shells evaluate. All of them ask dvdcli itself what may
// come next.
var completions = map[string]string{
	"bash": `_dvdcli() {
	local words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
	COMPREPLY=($(compgen -W "$("${words[@]}" --generate-completion 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o bashdefault -o default -F _dvdcli dvdcli`,
	"zsh": `#compdef dvdcli
_dvdcli() {
	compadd -- ${(f)"$(${words[1,CURRENT-1]} --generate-completion 2>/dev/null)"}
}
compdef _dvdcli dvdcli`,
	"fish": `complete -c dvdcli -f -a '(eval (commandline -opc) --generate-completion 2>/dev/null)'`,
}

func printCompletion(s *session) error {
	script, ok := completions[s.String(flagShell)]
	if !ok {
		return fmt.Errorf("no completion for shell %q, only bash, zsh, fish; %w", s.String(flagShell), errUsage)
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

// shellOption is completion's own.
func shellOption() option {
	return option{name: flagShell, value: shellName(os.Getenv("SHELL")), usage: "`shell`: bash, zsh or fish"}
}

// candidates are what may follow these words: commands, or flags.
func candidates(specs []spec, words []string) []string {
	s, path, _, err := find(specs, words)
	if err != nil {
		return nil
	}
	var out []string
	for _, sub := range s.sub {
		out = append(out, sub.name)
	}
	if path == "" {
		return append(out, "help")
	}
	if s.options != nil {
		for _, o := range s.options() {
			out = append(out, "--"+o.name)
		}
	}
	return out
}
