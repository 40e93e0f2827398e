package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Key names a record: one volume of one driver.
type Key struct {
	Driver string
	Volume string
}

// keyLength bounds the readable part of a file name; with the hash and a suffix
// it stays well under the 255 bytes that file systems allow.
const keyLength = 48

// FileName is a name for the key that is safe in any directory: a readable part
// made of letters, digits, dot, dash and underscore, and a hash that tells
// apart all drivers and volumes whatever bytes they contain.
func (k Key) FileName() string {
	// The length in front keeps ("a", "bc") and ("ab", "c") apart.
	h := sha256.New()
	h.Write([]byte{byte(len(k.Driver)), byte(len(k.Driver) >> 8), byte(len(k.Driver) >> 16)})
	h.Write([]byte(k.Driver))
	h.Write([]byte(k.Volume))
	return readable(k.Driver) + "--" + readable(k.Volume) + "-" + hex.EncodeToString(h.Sum(nil)[:12])
}

func (k Key) fileName() string { return k.FileName() + recordSuffix }

func readable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < keyLength; i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
			b.WriteByte(c)
		case c == '.' && b.Len() > 0:
			b.WriteByte(c)
		default:
			b.WriteByte('_')
		}
	}
	return b.String()
}
