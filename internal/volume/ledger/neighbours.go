package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Neighbours is where the ledgers of one host know of each other: a directory
// with one file per run directory. Several agents on one host have a ledger
// each; what one of them mounted must not be taken for an ownerless mount by
// another.
type Neighbours struct {
	// Dir is the directory; made if missing.
	Dir string
}

// Join makes a run directory known. It writes only the first time.
func (n Neighbours) Join(runDir string) error {
	if err := privateDir(n.Dir); err != nil {
		return failed("join the host's ledgers", Key{}, err)
	}
	sum := sha256.Sum256([]byte(runDir))
	name := hex.EncodeToString(sum[:12])
	if data, err := readFile(filepath.Join(n.Dir, name)); err == nil && string(data) == runDir {
		return nil
	}
	if err := writeFile(n.Dir, name, []byte(runDir), false); err != nil {
		return failed("join the host's ledgers", Key{}, err)
	}
	return nil
}

// dirHostLocks is where the locks of Neighbours.Lock are.
const dirHostLocks = "locks"

// Lock lets one of the host's ledgers at a time find out who holds a volume and
// write down that it does. It waits until ctx ends and fails as Ledger.Lock does.
// It is taken after the volume's own lock.
func (n Neighbours) Lock(ctx context.Context, key Key) (*FileLock, error) {
	dir := filepath.Join(n.Dir, dirHostLocks)
	if err := privateDir(dir); err != nil {
		return nil, failed("lock for this host", key, err)
	}
	lock, err := lockFile(ctx, filepath.Join(dir, key.FileName()+".lock"))
	if err != nil {
		return nil, lockFailed(ctx, key, err)
	}
	return lock, nil
}

// Holding returns another run directory of this host that has a record of the
// volume in this boot, or an empty string. Run directories that are gone are
// forgotten.
func (n Neighbours) Holding(runDir, boot string, key Key) (string, error) {
	entries, err := os.ReadDir(n.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", failed("read the host's ledgers", key, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) || e.IsDir() {
			continue
		}
		data, err := readFile(filepath.Join(n.Dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", failed("read the host's ledgers", key, err)
		}
		other := string(data)
		if other == runDir {
			continue
		}
		if _, err := os.Stat(other); errors.Is(err, fs.ErrNotExist) {
			if err := removeFile(filepath.Join(n.Dir, e.Name())); err != nil {
				return "", failed("forget a ledger of this host", key, err)
			}
			continue
		}
		holds, err := holds(other, boot, key)
		if err != nil {
			return "", err
		}
		if holds {
			return other, nil
		}
	}
	return "", nil
}
