// Package secret reads secrets that the operator keeps in files on the
// framework's machine.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxSize bounds a secret in bytes: it travels in the description of the task.
const maxSize = 64 << 10

// Dir finds secrets in a directory: the source "db/password" is the file
// db/password below it. It may be used concurrently; a file that changes counts
// from the next launch on.
type Dir struct{ root *os.Root }

// OpenDir opens the directory. Sources cannot lead out of it, nor can symbolic
// links.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory of secrets: %w", err)
	}
	return &Dir{root}, nil
}

// Close releases the directory.
func (d *Dir) Close() error { return d.root.Close() }

// Value returns the content of the source's file, without one newline at its
// end. known is false where there is no such file. Errors never hold the value.
func (d *Dir) Value(source string) (value string, known bool, err error) {
	name := strings.TrimPrefix(source, "/")
	f, err := d.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read the secret %q: %w", source, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", false, fmt.Errorf("read the secret %q: %w", source, err)
	}
	if len(data) > maxSize {
		return "", false, fmt.Errorf("the secret %q is larger than %d bytes", source, maxSize)
	}
	return strings.TrimSuffix(string(data), "\n"), true, nil
}
