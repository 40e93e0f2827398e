// Package facts serves what this agent's bridge knows of its volumes to
// frameworks, and takes from them who may mount what: the Agent service of
// isolator-bridge/api/facts.proto.
//
// A framework finds the bridge on the agent's host at DefaultPort, or at the
// port, or host and port, that the agent's attribute "dvdi_bridge" names:
//
//	--attributes="dvdi_bridge:10.0.0.7:9861"
//
// An agent that is given a new attribute does not recover its old state, and
// refuses to start, unless it runs with --reconfiguration_policy=additive
// (Mesos 1.5 and later, docs/agent-recovery.md).
package facts

// DefaultPort is where the service is found.
const DefaultPort = 9861
