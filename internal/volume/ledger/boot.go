package ledger

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Clock tells this boot and the time in it. The zero value asks the kernel;
// tests put other functions in.
type Clock struct {
	// BootID identifies the boot; nil: /proc/sys/kernel/random/boot_id.
	BootID func() (string, error)
	// SinceBoot is the time since boot, suspended time included; nil:
	// CLOCK_BOOTTIME.
	SinceBoot func() (time.Duration, error)
	// Now is the time of day, for people; nil: time.Now.
	Now func() time.Time
}

func (c Clock) bootID() (string, error) {
	if c.BootID != nil {
		return c.BootID()
	}
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("which boot this is cannot be told: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func (c Clock) sinceBoot() (time.Duration, error) {
	if c.SinceBoot != nil {
		return c.SinceBoot()
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

func (c Clock) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}
