package app

import (
	"errors"
	"regexp"
	"strings"
)

// maxIDLength keeps "<safe path>.instance-<uuid>._app.<n>" below the 255 bytes
// of a file name: the agent uses the task id as a directory name.
const maxIDLength = 190

// idPattern is Marathon's wire pattern for ids and paths (contract 2.1).
var idPattern = regexp.MustCompile(`^(\/?((\.\.)|(([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9\-]*[a-z0-9]))?($|\/))+$`)

// reservedSegments end no app id, since they name sub-resources in the API.
var reservedSegments = map[string]bool{"restart": true, "tasks": true, "versions": true}

// Root is the id of the root group.
const Root ID = "/"

// ErrInvalidID means that a path breaks Marathon's grammar for ids.
var ErrInvalidID = errors.New("must fully match regular expression '" + idPattern.String() + "'")

var errBeyondRoot = errors.New("leads above the root group; remove a '..'")

// ResolveID makes an absolute id of one that may be relative to the group base
// ("" means the root). Superfluous slashes are dropped. The errors are
// ErrInvalidID or say that the path leads above the root.
func ResolveID(s string, base ID) (ID, error) {
	if !idPattern.MatchString(s) {
		return "", ErrInvalidID
	}
	var segments []string
	if !strings.HasPrefix(s, "/") {
		segments = base.segments()
	}
	for seg := range strings.SplitSeq(s, "/") {
		switch seg {
		case "", ".":
		case "..":
			if len(segments) == 0 {
				return "", errBeyondRoot
			}
			segments = segments[:len(segments)-1]
		default:
			segments = append(segments, seg)
		}
	}
	return ID("/" + strings.Join(segments, "/")), nil
}

func (id ID) segments() []string {
	var out []string
	for seg := range strings.SplitSeq(string(id), "/") {
		if seg != "" {
			out = append(out, seg)
		}
	}
	return out
}

// SafePath joins the segments with "_", for names in which no slash may stand:
// "/a/b" becomes "a_b" (contract 3.3.3, 7.2).
func (id ID) SafePath() string { return strings.Join(id.segments(), "_") }

// TaskName is the path reversed with dots, the name of the app's tasks in
// Mesos: "/a/b" becomes "b.a" (contract 7.2).
func (id ID) TaskName() string {
	segs := id.segments()
	for i, j := 0, len(segs)-1; i < j; i, j = i+1, j-1 {
		segs[i], segs[j] = segs[j], segs[i]
	}
	return strings.Join(segs, ".")
}

// Parent is the group that holds the app or group; the root's parent is the
// root.
func (id ID) Parent() ID {
	// The parent of each of thousands of apps is asked for whenever one is posted.
	switch last := strings.LastIndexByte(string(id), '/'); {
	case last <= 0:
		return Root
	case last < len(id)-1 && id[0] == '/' && !strings.Contains(string(id), "//"):
		return id[:last]
	}
	segs := id.segments()
	if len(segs) < 2 {
		return Root
	}
	return ID("/" + strings.Join(segs[:len(segs)-1], "/"))
}

// Within says whether the app or group is group itself or below it.
func (id ID) Within(group ID) bool {
	return group == Root || id == group || strings.HasPrefix(string(id), string(group)+"/")
}

// topGroup is the name of the top-level group that holds the app, "" when the
// app is directly under the root.
func (id ID) topGroup() string {
	if segs := id.segments(); len(segs) > 1 {
		return segs[0]
	}
	return ""
}

// validateAppID adds to p what is wrong with the id of an app.
func validateAppID(p *problems, id ID) {
	segs := id.segments()
	if len(segs) == 0 {
		p.add("/id", "Path must contain at least one path element")
		return
	}
	if reservedSegments[segs[len(segs)-1]] {
		p.add("/id", "must not end with any of the following reserved keywords: restart, tasks, versions, ., ..")
	}
	if len(id) > maxIDLength {
		p.addf("/id", "must not be longer than %d characters, since Mesos agents use it in directory names", maxIDLength)
	}
}
