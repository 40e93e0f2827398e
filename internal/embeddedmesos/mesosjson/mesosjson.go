// Package mesosjson is Mesos's own JSON mapping of its messages (stout's
// JSON::protobuf and protobuf::parse), over mesos-go's types.
//
// mesos-go's generated JSON differs from it: it prints unset numbers, refuses
// enum values that it does not know and lacks fields of Mesos 1.12. A client
// must meet here what a real master sends.
package mesosjson

import (
	"reflect"
	"strings"
	"sync"

	"github.com/mesos/mesos-go/api/v1/lib/master"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// laterEnumNames are enum values of Mesos 1.12 that mesos-go does not know.
var laterEnumNames = map[string]map[int32]string{
	"mesos.MasterInfo_Capability_Type": {3: "QUOTA_V2"},
}

// laterFields are fields of Mesos 1.12 that mesos-go does not know and that
// always have the same value in an embedded cluster.
var laterFields = map[reflect.Type]string{
	// Agents always checkpoint since 1.x.
	reflect.TypeFor[mesos.AgentInfo](): `"checkpoint":true`,
	// Constraints cannot be set through mesos-go's types.
	reflect.TypeFor[master.Response_GetFrameworks_Framework](): `"offer_constraints":{}`,
}

// printedWhenEmpty are lists that the operator API's hand-written serialisers
// (src/master/readonly_handler.cpp) print even when empty.
var printedWhenEmpty = map[reflect.Type][]string{
	reflect.TypeFor[master.Response_GetTasks]():      {"tasks", "unreachable_tasks", "completed_tasks"},
	reflect.TypeFor[master.Response_GetExecutors]():  {"executors"},
	reflect.TypeFor[master.Response_GetFrameworks](): {"frameworks", "completed_frameworks"},
	reflect.TypeFor[master.Response_GetAgents]():     {"agents", "recovered_agents"},
}

// deprecatedDefaults are fields whose default is not printed, since they are
// deprecated. The generated code does not say so.
var deprecatedDefaults = map[reflect.Type]string{
	reflect.TypeFor[mesos.Resource]():      "role",
	reflect.TypeFor[mesos.FrameworkInfo](): "role",
}

// field is one field of a message, from the protobuf tag that gogo generates.
type field struct {
	name     string
	preset   string // the default that is printed when the field is not set
	index    int
	enum     string // name in the enum registry
	repeated bool
	required bool
	always   bool // see printedWhenEmpty
}

// message describes one generated struct.
type message struct {
	fields []field
	byName map[string]field
	later  string
}

// messages caches descriptions by reflect.Type; it only grows with the number
// of message types.
var messages sync.Map

func describe(t reflect.Type) *message {
	if known, ok := messages.Load(t); ok {
		return known.(*message)
	}
	m := &message{byName: make(map[string]field), later: laterFields[t]}
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("protobuf")
		if tag == "" {
			continue
		}
		f := parseTag(tag)
		f.index = i
		if deprecatedDefaults[t] == f.name {
			f.preset = ""
		}
		for _, name := range printedWhenEmpty[t] {
			f.always = f.always || name == f.name
		}
		m.fields = append(m.fields, f)
		m.byName[f.name] = f
	}
	messages.Store(t, m)
	return m
}

func parseTag(tag string) field {
	var f field
	for _, part := range strings.Split(tag, ",") {
		switch {
		case part == "rep":
			f.repeated = true
		case part == "req":
			f.required = true
		case strings.HasPrefix(part, "name="):
			f.name = strings.TrimPrefix(part, "name=")
		case strings.HasPrefix(part, "def="):
			f.preset = strings.TrimPrefix(part, "def=")
		case strings.HasPrefix(part, "enum="):
			f.enum = strings.TrimPrefix(part, "enum=")
		}
	}
	return f
}
