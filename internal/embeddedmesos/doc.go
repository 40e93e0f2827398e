// Package embeddedmesos runs a Mesos master and its agents inside one program,
// for the demo, for tests and for trying things out on a laptop. Frameworks
// and operators talk to it as they talk to Apache Mesos: the v1 scheduler API
// and the operator API over HTTP. Agents run real processes in real sandboxes
// and execute the real dvdcli binary exactly as the docker/volume isolator of
// Apache Mesos does.
//
// Every program that starts a cluster calls Main first thing in its main
// function (a test: in TestMain), because the executors are separate processes
// that are this very program started again.
//
// What is not here: resource limits are accounted for in offers but not
// enforced (no cgroups), container images are refused, and only the command
// executor exists (no custom executors, no task groups).
package embeddedmesos
