package isolator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// temporary is the directory below which container paths are made.
const temporary = "/tmp"

// containerPath checks a container path by the rules that mesos-module-dvdi
// documents: it is absolute, and exists unless it lies below /tmp, where it is
// made, for root. Users can write to /tmp, so no symbolic link may lead the
// making of directories out of it. Errors are volume.Invalid and, for a path
// that does not exist, volume.Forbidden.
func containerPath(path string) error {
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return invalid(fmt.Sprintf("container path %q is not absolute", path), "give an absolute path")
	}
	path = filepath.Clean(path)
	st, err := os.Stat(path)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return forbidden(fmt.Sprintf("container path %s is not a directory", path), nil)
	case !errors.Is(err, fs.ErrNotExist):
		return forbidden("container path "+path+" cannot be used", err)
	}
	inside, below := strings.CutPrefix(path, temporary+"/")
	if !below {
		return forbidden(fmt.Sprintf("container path %s does not exist and is not below %s", path, temporary), nil)
	}
	root, err := os.OpenRoot(temporary)
	if err != nil {
		return forbidden("container path "+path+" cannot be made", err)
	}
	if err := errors.Join(root.MkdirAll(inside, 0o755), root.Close()); err != nil {
		return forbidden("container path "+path+" cannot be made", err)
	}
	return nil
}

func forbidden(message string, cause error) error {
	return &volume.Error{Kind: volume.Forbidden, Op: "prepare", Message: message, Err: cause,
		Hint: "make the directory on the agent, or give one below " + temporary}
}
