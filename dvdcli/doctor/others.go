package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// hostDirs are where the ledgers of one user know of each other, unless another
// place is named: root's, and those of the others.
var hostDirs = []string{"run/dvdi/ledgers", "run/user/*/dvdi/ledgers", "tmp/dvdi-*/ledgers"}

// otherLedgers warns of ledgers that the one here does not know of: those of other
// users, who may not read each other's, or of who has named another place.
func otherLedgers(in Input) []Finding {
	var out []Finding
	for _, pattern := range hostDirs {
		dirs, err := filepath.Glob(filepath.Join(in.Root, pattern))
		if err != nil {
			out = append(out, Finding{Problem, "other ledgers", err.Error(), "report this"})
		}
		for _, dir := range dirs {
			if dir != filepath.Clean(in.HostDir) && hasLedgers(dir) {
				out = append(out, Finding{Warning, "other ledgers", "those in " + dir + " and the ones in " + in.HostDir + " do not know of each other",
					"what two of them have from one plugin may be unmounted by the first that gives it up: run all that uses a plugin as one user, with one DVDCLI_HOST_DIR"})
			}
		}
	}
	return out
}

// hasLedgers says whether a ledger has joined there. Where one may not look somebody
// else's are.
func hasLedgers(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Type().IsRegular() })
}
