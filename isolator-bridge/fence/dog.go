package fence

import "time"

// dog is the watchdog with what is known of it. Keeper.mu guards it.
type dog struct {
	device Watchdog
	asked  time.Duration

	armed bool
	// timeout is the device's, or what will be asked of it.
	timeout time.Duration
	fed     time.Duration // CLOCK_BOOTTIME of the last feeding
	broken  error         // it could not be started or fed
}

const (
	// feedsPerTimeout is how often within its time-out it is fed.
	feedsPerTimeout = 4
	// feedsAfterLease is for how many time-outs the host may live on after the
	// end of a lease; see the package comment.
	feedsAfterLease = 3
)

// arm starts it, which feeds it.
func (d *dog) arm() error {
	timeout, err := d.device.Arm(d.asked)
	if d.broken = err; err != nil {
		return err
	}
	d.armed, d.timeout, d.fed = true, timeout, 0
	return nil
}

// feed feeds it when it is time to.
func (d *dog) feed(now time.Duration) error {
	if d.fed > 0 && now < d.fed+d.timeout/feedsPerTimeout {
		return nil
	}
	if d.broken = d.device.Feed(); d.broken != nil {
		return d.broken
	}
	d.fed = now
	return nil
}

// disarm stops it.
func (d *dog) disarm() error {
	if !d.armed {
		return nil
	}
	d.armed, d.broken = false, nil
	return d.device.Disarm()
}
