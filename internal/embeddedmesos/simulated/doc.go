// Package simulated is the embedded Mesos without processes, sockets and
// sandboxes, for simulations of whole clusters: the real master, whose HTTP
// interface is reached over connections in memory, and agents on which tasks
// are entries in a table. It waits for nothing but timers and channels, so that
// inside of a testing/synctest bubble hours pass in a moment.
//
// Agents do what a framework can observe of real ones: they register, answer
// pings, repeat status and operation updates until these are acknowledged, keep
// reservations and persistent volumes over restarts, and unmount a task's
// docker volumes some time after its end. Tasks start after a while and run
// until they are killed or made to end. Health checks are not performed and
// commands not executed.
//
// What must never happen is noted when it does: a volume mounted on two hosts
// at a time, a task beyond what the agent has. See Cluster.Violations.
package simulated
