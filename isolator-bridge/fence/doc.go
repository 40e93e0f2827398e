// Package fence ends the use of a volume on this host when the framework has
// stopped renewing its lease, and says whether the framework may rely on that
// without hearing of this host again.
//
// # When a lease ends
//
// A lease counts on this host's CLOCK_BOOTTIME, which goes on while the host is
// suspended and is not set by anybody. It never counts from the arrival of a
// message: each answer carries a basis, the time at which it was given, and a
// renewal prolongs the lease to the time of the basis that it quotes plus the
// length L. So a renewal that lay in a buffer, or that a frozen bridge reads
// late, prolongs nothing by its delay. A registration that is repeated, or comes
// twice, prolongs nothing either.
//
// When the lease is over nothing mounts the volume under its epoch (the engine
// reads the lease under the volume's lock), and the bridge fences:
//
//  1. It kills, again and again, the control groups of the containers whose
//     checkpoint names the volume, and every process that has a file, a
//     directory or a mapping of it open.
//  2. It has the driver unmount the volume.
//  3. It looks whether a process or a mount namespace has anything of the volume
//     left. A process whose namespace has the volume at a place of its own, as a
//     container has, is killed; from namespaces to which the mount was only handed
//     down it is taken away. If anything was left it begins again; if not it
//     writes down that the epoch is fenced.
//
// It does so for the claim that is registered, and for no other: a lease whose
// epoch was superseded ends without that.
//
// # When that may be relied upon
//
// All of the above is software on a host of which nothing is heard: the bridge
// may be frozen or killed. An expiry is trusted only if one of two things is
// independent of it:
//
//   - A watchdog that resets the host. It is armed before the registration is
//     answered, so before the mount, and fed only while every lease that depends
//     on it holds. The device must go on when the bridge dies (magic close, see
//     Linux's Documentation/watchdog/watchdog-api.rst) and must not be the
//     kernel's software watchdog, which stops when the machine is suspended,
//     unless the operator says that this host never is.
//   - A backend that revokes the old attachment when a new one is made, as the
//     operator says of a driver.
//
// # Arithmetic
//
// With these quantities, in time of this host:
//
//	L  length of the lease
//	W  time-out of the watchdog, as the device reports it
//	M  margin (Config.Margin) for writes that are on their way through network and
//	   storage when the host is reset
//
// and a basis given out at b:
//
//	b + L          the lease is over; no mount begins, the bridge fences
//	b + L + W      latest time at which the watchdog is fed: the bridge may look
//	               at the clock right before the end, be stopped, and go on to
//	               feed; were it stopped for longer than W since it fed before,
//	               the host would have been reset
//	b + L + 2W     should the bridge be killed before that, the kernel feeds once
//	               more as it closes the device (watchdog_release); a new bridge
//	               does not open it while a lease is over that depends on it
//	b + L + 3W     the host is reset at the latest
//	b + L + 3W + M nothing that was written there arrives any more
//
// Grace in the API is 3W + M, or M for a backend that revokes. The framework
// does not know b, but knows when it received the basis, which was not before b.
// It counts L + Grace from the receipt of the newest basis that it has ever
// quoted, whether or not the renewal was answered, and stretches that by the
// drift R of the two clocks:
//
//	moved at = received + (L + Grace) * (1 + R)     R = 0.002
//
// # Assumptions
//
//   - Clocks of both hosts run within 1000 ppm of true time each. Oscillators are
//     within 100 ppm, and NTP slews by 500 ppm at most.
//   - The framework's clock may stand while its host is suspended: it then waits
//     longer. Nothing depends on the time of day of either host.
//   - The watchdog counts true time and resets the machine. A virtual machine's
//     watchdog that is stopped with the machine does not: where machines are
//     paused, use one outside of it, or none.
//   - One framework process renews at a time, and a new one takes over only when
//     the old one cannot go on: it is dead, or cannot commit, and commits before
//     it quotes a basis for the first time. The new one counts from its own
//     start, as if a renewal had been quoted right then.
//   - Control over a storage device ends with the host: no other host writes in
//     its name, and no cache outside of it holds writes for longer than M.
package fence
