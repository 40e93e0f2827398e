package agent

import (
	"fmt"
	"path/filepath"
	"strings"
)

// layout names the files below an agent's directory as src/slave/paths.cpp
// does, with the runtime directory, elsewhere /var/run/mesos, at "run".
type layout struct{ root string }

func (l layout) slaves() string { return filepath.Join(l.root, "meta", "slaves") }
func (l layout) latest() string { return filepath.Join(l.slaves(), "latest") }
func (l layout) slaveInfo(id string) string {
	return filepath.Join(l.slaves(), id, "slave.info")
}
func (l layout) resources() string {
	return filepath.Join(l.root, "meta", "resources", "resources.state")
}
func (l layout) frameworks(slave string) string {
	return filepath.Join(l.slaves(), slave, "frameworks")
}
func (l layout) frameworkInfo(slave, framework string) string {
	return filepath.Join(l.frameworks(slave), framework, "framework.info")
}

// run names a run of an executor; for the command executor, executor id and
// task id are the same.
type runPath struct{ slave, framework, executor, container string }

func (r runPath) under(root string) string {
	return filepath.Join(root, "slaves", r.slave, "frameworks", r.framework,
		"executors", r.executor, "runs", r.container)
}

func (l layout) sandbox(r runPath) string { return r.under(l.root) }
func (l layout) meta(r runPath) string    { return r.under(filepath.Join(l.root, "meta")) }
func (l layout) taskInfo(r runPath) string {
	return filepath.Join(l.meta(r), "tasks", r.executor, "task.info")
}
func (l layout) taskUpdates(r runPath) string {
	return filepath.Join(l.meta(r), "tasks", r.executor, "task.updates")
}
func (l layout) sentinel(r runPath) string { return filepath.Join(l.meta(r), "executor.sentinel") }

func (l layout) containers() string { return filepath.Join(l.root, "run", "containers") }
func (l layout) runtime(container string) string {
	return filepath.Join(l.containers(), container)
}
func (l layout) dockerVolumes() string {
	return filepath.Join(l.root, "run", "isolators", "docker", "volume")
}

// persistentVolume puts a space for each slash of a role, like Mesos.
func persistentVolume(root, role, id string) string {
	return filepath.Join(root, "volumes", "roles", strings.ReplaceAll(role, "/", " "), id)
}

// checkID refuses ids that are no plain names of files, as the master does
// (src/common/validation.cpp).
func checkID(kind, id string) error {
	if id == "" || id == "." || id == ".." || len(id) > 255 || strings.ContainsAny(id, "/\x00") {
		return fmt.Errorf("%s id %q cannot name a directory", kind, id)
	}
	return nil
}
