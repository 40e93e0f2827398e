package embeddedmesos_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// difference is one way in which the embedded cluster may differ from a
// recorded session. Everything else has to be equal, field by field.
type difference struct {
	name string
	what string
	why  string
	// fields are the paths of the values concerned, by their ends; empty when
	// the difference is one of order or number, which the replay handles.
	fields []string
}

// differences is the whole list; testdata/differences.txt is the same for
// people. The replay applies no other rule.
var differences = []difference{
	{
		name: "ids",
		what: "Ids that are made up (of master, framework, agents, offers, streams, containers, status updates; process ids) may have other values, but each always the same one.",
		why:  "They are random, or numbered by what a master did before the recording began.",
		fields: []string{
			"framework_id.value", "agent_id.value", "offer_id.value", "offers.*.id.value", "agent_info.id.value",
			"framework_info.id.value", "master_info.id", "uuid", "uuid.value", "status_update_uuid",
			"container_id.value", "executor_pid",
		},
	},
	{
		name: "ports",
		what: "The ports of the master's and the agents' own HTTP endpoints may have other values, but each always the same one.",
		why:  "Several clusters run on one host; ports are given by the system.",
		fields: []string{
			"master_info.port", "master_info.pid", "address.port", "agent_info.port", "agents.*.pid",
		},
	},
	{
		name:   "times",
		what:   "Times may have other values.",
		why:    "The replay is another day, and does not wait where the person who recorded did.",
		fields: []string{"timestamp", "unreachable_time.nanoseconds", "registered_time.nanoseconds", "reregistered_time.nanoseconds", "start_time", "elected_time"},
	},
	{
		name:   "build",
		what:   "When, by whom and from what commit the master was built may be another value or missing.",
		why:    "It is another program, and Go records a commit only for some builds.",
		fields: []string{"build_date", "build_time", "git_sha", "git_branch"},
	},
	{
		name: "heartbeats",
		what: "There may be another number of heartbeats after the first, which follows SUBSCRIBED at once.",
		why:  "Their number depends on how long the session takes.",
	},
	{
		name: "batches of offers",
		what: "Offers may come in other OFFERS events together, and earlier or later than other events of the same agent.",
		why:  "They come with the allocator's next round.",
	},
	{
		name: "order between agents",
		what: "Events about different agents, and agents in lists, may come in another order; events about one agent keep theirs.",
		why:  "Agents do not wait for each other.",
	},
	{
		name: "repetitions",
		what: "An update that was not acknowledged may be repeated another number of times, unchanged.",
		why:  "Their number depends on how long the session takes.",
	},
}

// fieldRules turns the table into patterns for paths.
func fieldRules() map[string][]*regexp.Regexp {
	rules := make(map[string][]*regexp.Regexp)
	for _, d := range differences {
		for _, field := range d.fields {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(field), `\*`, `[0-9]+`)
			rules[d.name] = append(rules[d.name], regexp.MustCompile(`(^|\.)`+pattern+`$`))
		}
	}
	return rules
}

func differencesText() string {
	var b strings.Builder
	b.WriteString("What a replay of the recorded sessions may differ in (differences_test.go).\n")
	for _, d := range differences {
		fmt.Fprintf(&b, "\n%s\n  %s\n  Why: %s\n", d.name, d.what, d.why)
		if len(d.fields) > 0 {
			fmt.Fprintf(&b, "  Fields: %s\n", strings.Join(d.fields, ", "))
		}
	}
	return b.String()
}

func TestDifferencesAreWrittenDown(t *testing.T) {
	path := filepath.Join("testdata", "differences.txt")
	if os.Getenv("UPDATE_TESTDATA") != "" {
		if err := os.WriteFile(path, []byte(differencesText()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != differencesText() {
		t.Errorf("%s is not the table's text; run the test with UPDATE_TESTDATA=1", path)
	}
}
