package fence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watchdog resets the host when it is not fed. Implementations need not be safe
// for concurrent use.
type Watchdog interface {
	// Arm starts it and returns its time-out, which may differ from the one
	// asked for. An error means that it cannot be relied upon; it is not running
	// then.
	Arm(timeout time.Duration) (time.Duration, error)
	// Feed starts its time anew.
	Feed() error
	// Disarm stops it. After an error it may go on running.
	Disarm() error
}

// Device is a watchdog device of Linux, such as /dev/watchdog.
type Device struct {
	// Path is the device.
	Path string
	// Software allows the kernel's own timer (softdog): the operator answers for
	// it that the host is never suspended or paused.
	Software bool

	file *os.File
}

// Bits of watchdog_info.options (include/uapi/linux/watchdog.h).
const (
	canSetTimeout = 0x0080
	magicClose    = 0x0100
)

// watchdogInfo is struct watchdog_info.
type watchdogInfo struct {
	Options, Firmware uint32
	Identity          [32]byte
}

const softdog = "Software Watchdog"

// Arm implements Watchdog. Opening the device starts it. A device that cannot be
// stopped again is refused: every stop of the bridge would reset the host.
func (d *Device) Arm(timeout time.Duration) (time.Duration, error) {
	if d.noWayOut() {
		return 0, fmt.Errorf("watchdog %s cannot be stopped once it runs; load its driver with nowayout=0", d.Path)
	}
	if err := d.Check(); err != nil {
		return 0, err // before anything is written to what is somebody's file or disk
	}
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	if err != nil {
		return 0, fmt.Errorf("watchdog: %w", err)
	}
	d.file = f
	actual, err := d.prepare(timeout)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("watchdog %s: %w", d.Path, err), d.Disarm())
	}
	return actual, nil
}

// ErrNoWatchdog says that what is there is no watchdog.
var ErrNoWatchdog = errors.New("not a watchdog device")

// Check says without starting it that the device is not there, or is something else:
// ErrNoWatchdog.
func (d *Device) Check() error {
	st, err := os.Stat(d.Path)
	if err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	if st.Mode()&os.ModeCharDevice == 0 {
		return fmt.Errorf("watchdog: %s is %w", d.Path, ErrNoWatchdog)
	}
	return nil
}

// prepare checks that the device can be relied upon and sets its time-out.
func (d *Device) prepare(timeout time.Duration) (time.Duration, error) {
	var info watchdogInfo
	if err := d.ioctl(unix.WDIOC_GETSUPPORT, unsafe.Pointer(&info)); err != nil {
		return 0, fmt.Errorf("asking what it is: %w", err)
	}
	name := strings.TrimRight(string(info.Identity[:]), "\x00")
	switch {
	case info.Options&magicClose == 0:
		return 0, fmt.Errorf("%q stops when its user dies", name)
	case name == softdog && !d.Software:
		return 0, fmt.Errorf("%q is software of the host that it should reset; allow it with --watchdog-software if this host is never suspended", name)
	}
	seconds := int32(max(timeout/time.Second, 1))
	if info.Options&canSetTimeout != 0 {
		if err := d.ioctl(unix.WDIOC_SETTIMEOUT, unsafe.Pointer(&seconds)); err != nil {
			return 0, fmt.Errorf("setting its time-out to %d s: %w", seconds, err)
		}
	} else if err := d.ioctl(unix.WDIOC_GETTIMEOUT, unsafe.Pointer(&seconds)); err != nil {
		return 0, fmt.Errorf("asking for its time-out: %w", err)
	}
	if seconds <= 0 {
		return 0, fmt.Errorf("%q reports a time-out of %d s", name, seconds)
	}
	return time.Duration(seconds) * time.Second, d.Feed()
}

func (d *Device) ioctl(request uint, argument unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), uintptr(request), uintptr(argument))
	if errno != 0 {
		return errno
	}
	return nil
}

// Feed implements Watchdog.
func (d *Device) Feed() error {
	if _, err := d.file.Write([]byte{0}); err != nil {
		return fmt.Errorf("feeding watchdog %s: %w", d.Path, err)
	}
	return nil
}

// noWayOut asks the kernel whether the device goes on after it was closed, in
// whatever way. /dev/watchdog is the first one under its old name.
func (d *Device) noWayOut() bool {
	name := filepath.Base(d.Path)
	if name == "watchdog" {
		name = "watchdog0"
	}
	data, err := os.ReadFile(filepath.Join("/sys/class/watchdog", name, "nowayout"))
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// Disarm implements Watchdog: closing after a "V" stops it.
func (d *Device) Disarm() error {
	_, err := d.file.Write([]byte("V"))
	if err = errors.Join(err, d.file.Close()); err != nil {
		return fmt.Errorf("stopping watchdog %s: %w", d.Path, err)
	}
	return nil
}
