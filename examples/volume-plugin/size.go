package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	gib = int64(1) << 30
	// smallestImage is the least that ext4 with a journal makes sense on.
	smallestImage = int64(8) << 20
)

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KIB", 1 << 10}, {"MIB", 1 << 20}, {"GIB", 1 << 30}, {"TIB", 1 << 40},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
}

// parseSize reads the value of the size option in bytes. A bare number is
// GiB, as Marathon and REX-Ray mean it; K, M, G and T (or KiB and so on) are
// powers of 1024.
func parseSize(text string) (int64, error) {
	number, unit := strings.ToUpper(strings.TrimSpace(text)), gib
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("size %q: want a whole number of GiB, or one with a unit as in 64M or 1G", text)
	}
	return n * unit, nil
}

// formatSize is the inverse of parseSize, for people.
func formatSize(bytes int64) string {
	for i := len(sizeUnits) - 1; i >= len(sizeUnits)/2; i-- {
		if u := sizeUnits[i]; bytes%u.bytes == 0 {
			return strconv.FormatInt(bytes/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(bytes, 10)
}
