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
// # Faults
//
// What goes wrong in a cluster can be had at will: KillMaster, and per agent
// KillProcess (tasks live on), LoseHost (agent, executors and tasks end at
// once), Freeze, and Partition. A dvdcli or a driver that is slow or fails is
// one that the caller provides.
//
// # Volumes
//
// Where the program may, as root, each container has a mount namespace of its
// own in which its volumes are bound; it does not see, and does not keep in
// use, those of other containers. Elsewhere volumes are symbolic links in the
// sandbox: a volume is then not read-only where a task asks for that, and an
// absolute container path is refused.
//
// # What is not here
//
// Resources are accounted for in offers but not enforced: there are no
// control groups. Container images are refused, and only the command executor
// exists (no custom executors, no task groups, no nested containers).
// Sandboxes are kept until the cluster's directory is removed.
package embeddedmesos
