package core

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/google/uuid"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// newInstanceID makes an id in Marathon's form (contract 7.2). Version 1 UUIDs
// carry the time, as Marathon's do.
func newInstanceID(id app.ID) (string, error) {
	u, err := uuid.NewUUID()
	if err != nil {
		return "", fmt.Errorf("make an instance id for %s: %w", id, err)
	}
	return id.SafePath() + instanceMark + u.String(), nil
}

// instanceMark stands between an app's safe path and the UUID in an instance id.
const instanceMark = ".instance-"

// taskID names the n-th task of an instance; n counts from 1.
func taskID(instanceID string, n int) string {
	return instanceID + "._app." + strconv.Itoa(n)
}

// An instance that was taken over has the id that its reservation's label gives
// it: <safe path>.<UUID>, <safe path>_<UUID> or <safe path>.marathon-<UUID> of old
// Marathons (Reservation.LegacyId, Instance.PrefixMarathon).
var taskIDPattern = regexp.MustCompile(`^(.+)\._app\.(\d+)$`)

// instanceOfTask returns the instance that a task id belongs to; ok is false
// when the id is not in our form.
func instanceOfTask(taskID string) (instanceID string, ok bool) {
	m := taskIDPattern.FindStringSubmatch(taskID)
	if m == nil {
		return "", false
	}
	return m[1], true
}
