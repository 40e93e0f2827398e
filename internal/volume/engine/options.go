package engine

import (
	"fmt"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// reservedPrefix marks options that speak to the engine. They never reach a
// driver.
const reservedPrefix = "dvdi."

// The reserved options that the engine knows; it ignores others of the prefix.
const (
	optionInstance = reservedPrefix + "instance"
	optionExplicit = reservedPrefix + "explicit"
	optionEpoch    = reservedPrefix + "epoch"
	optionLease    = reservedPrefix + "lease"
)

// Options are a volume's options as a caller gave them.
type Options struct {
	// Driver are those for the driver.
	Driver map[string]string
	// Engine are those that begin with "dvdi.".
	Engine map[string]string
}

// ParseOptions reads option arguments. Each is key=value, split at the first
// "="; one without "=" is a key with an empty value. An argument is a list of
// several at its commas only if every piece has an "=". A later value of a key
// replaces an earlier one. An empty key is volume.Invalid.
func ParseOptions(args []string) (Options, error) {
	out := Options{Driver: map[string]string{}, Engine: map[string]string{}}
	for _, arg := range args {
		for _, piece := range splitList(arg) {
			key, value, _ := strings.Cut(piece, "=")
			if key == "" {
				return Options{}, &volume.Error{Kind: volume.Invalid, Op: "read the volume options",
					Message: fmt.Sprintf("an option without a key among %d", len(args)),
					Hint:    "give options as --volumeopts key=value"}
			}
			if strings.HasPrefix(key, reservedPrefix) {
				out.Engine[key] = value
			} else {
				out.Driver[key] = value
			}
		}
	}
	return out, nil
}

func splitList(arg string) []string {
	pieces := strings.Split(arg, ",")
	for _, p := range pieces {
		if !strings.Contains(p, "=") {
			return []string{arg}
		}
	}
	return pieces
}

func (o Options) explicit() bool {
	switch strings.ToLower(o.Engine[optionExplicit]) {
	case "true", "1", "yes":
		return true
	}
	return false
}

// divide tells open options from secret ones.
func divide(options map[string]string, rules DriverRules) (open map[string]string, secrets volume.Secrets) {
	open, secrets = map[string]string{}, volume.Secrets{}
	for k, v := range options {
		if rules.isSecret(k) || volume.SecretKey(k) {
			secrets[k] = v
		} else {
			open[k] = v
		}
	}
	return open, secrets
}
