package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
)

// refusal remembers that the last mount of a volume failed for a holder and left
// it with nothing.
type refusal struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
	Volume  string `json:"volume"`
	BootID  string `json:"bootId"`
	Holder  string `json:"holder"`
}

func (l *Ledger) refusalDir() string { return filepath.Join(l.cfg.RunDir, dirRefusals) }

func refusalName(key Key, holder string) string {
	h := sha256.Sum256([]byte(holder))
	return key.FileName() + "-" + hex.EncodeToString(h[:8]) + recordSuffix
}

// SaveRefusal remembers for this boot that the holder's mount failed and left
// nothing: what is mounted of the volume all the same is not the holder's. It
// needs no lock and is not durable against a power failure, which ends the boot.
func (l *Ledger) SaveRefusal(key Key, holder string) error {
	data, err := json.Marshal(refusal{Version: FormatVersion, Driver: key.Driver, Volume: key.Volume, BootID: l.boot, Holder: holder})
	if err == nil {
		err = privateDir(l.refusalDir())
	}
	if err == nil {
		err = replaceFile(l.refusalDir(), refusalName(key, holder), append(data, '\n'), false)
	}
	if err != nil {
		return failedFact("remember a mount that failed", key, err)
	}
	return nil
}

// Refused says whether the last mount of the holder failed in this boot and no
// unmount has followed.
func (l *Ledger) Refused(key Key, holder string) (bool, error) {
	data, err := readFile(filepath.Join(l.refusalDir(), refusalName(key, holder)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, failed("read whether a mount failed", key, err)
	}
	var r refusal
	if checkVersion(data) != nil || json.Unmarshal(data, &r) != nil {
		return true, nil // of a newer program or damaged, but it is there
	}
	return r.BootID == l.boot, nil
}

// DeleteRefusal forgets it, if there is anything to forget.
func (l *Ledger) DeleteRefusal(key Key, holder string) error {
	if err := removeFile(filepath.Join(l.refusalDir(), refusalName(key, holder))); err != nil {
		return failed("forget a mount that failed", key, err)
	}
	return nil
}
