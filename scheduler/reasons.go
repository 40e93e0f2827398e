package scheduler

// verdict is the first reason why an agent cannot take an instance, fits if
// there is none. Verdicts are ordered as the rules are tested (contract 1.6,
// with the volume rules between maintenance and resources).
type verdict uint8

const (
	fits verdict = iota
	failsRole
	failsConstraint
	failsReservation
	failsMaintenance
	failsDriver
	failsHeld
	failsReleasing
	failsFence
	failsLocal
	failsZone
	failsAttachLimit
	failsPreference
	failsLaunchLimit
	failsCPUs
	failsMemory
	failsDisk
	failsGPUs
	failsPorts
	failsScarce
	verdicts
)

var reasonOf = [verdicts]Reason{
	failsRole:        UnfulfilledRole,
	failsConstraint:  UnfulfilledConstraint,
	failsReservation: NoReservationFound,
	failsMaintenance: AgentMaintenance,
	failsDriver:      DriverMissing,
	failsHeld:        VolumeHeldElsewhere,
	failsReleasing:   VolumeReleasing,
	failsFence:       FenceNotExpired,
	failsLocal:       VolumeIsLocal,
	failsZone:        WrongZone,
	failsAttachLimit: AttachLimit,
	failsPreference:  WaitingForPreferred,
	failsLaunchLimit: LaunchLimit,
	failsCPUs:        InsufficientCPUs,
	failsMemory:      InsufficientMemory,
	failsDisk:        InsufficientDisk,
	failsGPUs:        InsufficientGPUs,
	failsPorts:       InsufficientPorts,
	failsScarce:      DeclinedScarceResources,
}

// first returns the verdict that is tested first, ignoring fits.
func first(a, b verdict) verdict {
	if a == fits || (b != fits && b < a) {
		return b
	}
	return a
}
