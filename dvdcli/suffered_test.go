package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row is what tests hold.
type row struct {
	symptom, seen string
	tests         []string // directory in the repository, test
}

// suffered are the complaints about dvdcli 0.2, the modules and the plugins that
// this program and the volume engine have to be better at, where they were made,
// and the tests that hold each.
var suffered = []row{
	{"pinned until unmounted by hand after a failed unmount", "MESOS-10126, dcos#1430, rexray#1301", []string{
		"internal/volume/engine TestFailedUnmountStaysOwed",
		"internal/volume/engine TestMountCancelsOwedUnmount",
		"internal/volume/engine TestUnmountedByHand",
		"dvdcli TestRcloneRestarts",
	}},
	{"hung unmount; later tasks stuck", "mesos-module-dvdi#88, rexray#364", []string{
		"dvdcli TestHungPluginCall",
		"dvdcli TestManyProcessesManyVolumes",
		"internal/embeddedmesos/agent TestRealHungMount",
	}},
	{"state unknown after Mesos killed dvdcli", "MESOS-7439", []string{
		"dvdcli TestKilledAtEveryStep",
		"dvdcli TestKilledDuringCall",
		"dvdcli TestMountThatComesAfterItsUnmount",
		"internal/embeddedmesos/agent TestRealAgentKilledDuringAMount",
	}},
	{"any Get error led to Create", "dcos#1196, rexray#511", []string{
		"internal/volume/engine TestCreateOnlyOnPositiveNotFound",
		"internal/volume/dockerplugin TestListDecides",
		"internal/volume/dockerplugin TestOutageDuringListIsNotAMissingVolume",
	}},
	{"volume never detaches when shared on an agent", "REX-Ray ignoreUsedCount", []string{
		"internal/volume/engine TestSharedVolumeIsMountedOnce",
		"dvdcli TestManyProcessesOneVolume",
		"dvdcli TestRcloneSharedVolume",
		"internal/embeddedmesos/agent TestRealSharedVolume",
	}},
	{"agent does not recover: damaged checkpoint", "MESOS-9507, mesos-module-dvdi#107", []string{
		"internal/volume/ledger TestDamagedFilesAreSetAside",
		"internal/volume/engine TestDamagedRecord",
		"dvdcli TestLedgerSurvivesDamage",
	}},
	{"mount leaked by a crash; in-use mount removed", "mesos-module-dvdi#93, #95", []string{
		"internal/volume/engine TestCrashAtEveryStep",
		"internal/volume/engine TestModel",
		"internal/volume/engine TestDoesNotAdoptMountOfAnotherLedger",
		"internal/embeddedmesos/agent TestRealUnknownOrphans",
	}},
	{"stale state believed after reboot", "mesos-module-dvdi#94, #102", []string{
		"internal/volume/engine TestReboot",
		"internal/volume/ledger TestAnotherBootsRecordIsAHint",
		"dvdcli TestRcloneAfterReboot",
	}},
	{"65,536 stacked mounts", "rexray#1130", []string{
		"internal/volume/engine TestForgottenMountIsFound",
		"internal/volume/engine TestModel",
	}},
	{"a typo creates an empty volume", "dvdcli#18", []string{
		"internal/volume/engine TestExplicitCreate",
	}},
	{"volume reformatted at every mount", "marathon#3607", []string{
		"dvdcli TestPolicyFile",
	}},
	{"unmount fails on plugins without Get", "dvdcli#23", []string{
		"dvdcli TestOldPluginWithoutGet",
	}},
	{"managed plugin rexray/ebs not found", "dvdcli#35, #36", []string{
		"internal/volume/dockerplugin TestManagedPluginByAnyName",
		"dvdcli TestDockerRoot",
	}},
	{"exit 0 and empty stdout on an unknown flag or command", "dvdcli 0.2", []string{
		"dvdcli TestMistakesAreFailures",
		"dvdcli TestFlagsStandAnywhere",
	}},
	{"empty Mountpoint printed", "dvdcli 0.2, isolator", []string{
		"internal/volume/engine TestPathOfMountIsChecked",
		"internal/volume/engine TestClaimsAreCheckedAsAnswersAre",
		"internal/volume/engine TestPathOfTheSystem",
	}},
	{"a=b=c truncated; k=x,y and flag crash", "dvdcli 0.2", []string{
		"internal/volume/engine TestParseOptions",
	}},
	{"error text useless", "dcos#1430", []string{
		"dvdcli TestErrorsNameEverything",
	}},
	{"several volumes, one fails, the others leak", "mesos-module-dvdi", []string{
		"dvdcli TestIsolatorCleanupAfterFailedMount",
		"internal/embeddedmesos/agent TestRealFailedMount",
	}},
	{"non-root task cannot write", "MESOS-9908", []string{
		"dvdcli TestChownOnMount",
	}},
	{"volumes destroyed", "marathon#4603, #5207", []string{
		"dvdcli TestRemoveOfWhatOthersUse",
	}},
}

// facts are those of Docker's plugin protocol, and how real plugins differ, with
// the tests that hold what this program makes of them.
var facts = []row{
	{"sockets, specs and json files in Docker's order", "discovery", []string{
		"internal/volume/dockerplugin TestOrderOfDiscovery",
		"internal/volume/dockerplugin TestDefaultPlacesAreDockers",
		"internal/volume/dockerplugin TestAddresses",
		"internal/volume/dockerplugin TestBrokenDefinitions",
		"internal/volume/dockerplugin TestTLS",
		"internal/volume/dockerplugin TestRemotePlugin",
	}},
	{"managed plugins by id, rescoped, never replaced by a legacy one", "docker plugin install", []string{
		"internal/volume/dockerplugin TestManagedPluginByAnyName",
		"internal/volume/dockerplugin TestManagedPluginThatCannotBeUsed",
		"internal/volume/dockerplugin TestRescope",
	}},
	{"handshake, headers, any type of answer", "Plugin.Activate", []string{
		"internal/volume/dockerplugin TestHandshakeIsMadeOnce",
		"internal/volume/dockerplugin TestHandshakeFails",
		"internal/volume/dockerplugin TestVolumeLife",
	}},
	{"retries as Docker makes them, no change sent twice, no wait for what does not exist", "pkg/plugins", []string{
		"internal/volume/dockerplugin TestWaitsForAPluginThatDoesNotAnswerYet",
		"internal/volume/dockerplugin TestMutationsAreNeverSentTwice",
		"internal/volume/dockerplugin TestQueriesAreRepeated",
		"internal/volume/dockerplugin TestUnknownDriverSaysWhatThereIs",
	}},
	{"time-outs below those of Mesos, configurable", "volume/drivers", []string{
		"dvdcli TestDeadlinesAreBelowMesos",
		"dvdcli TestDefaultTimesLeaveTheNextMountItsTurn",
		"internal/volume/engine TestPolicy",
	}},
	{"error bodies of every kind; 404 of a missing method or volume; not found has no type", "Err, Error, text", []string{
		"internal/volume/dockerplugin TestEveryKindOfAnswer",
		"internal/volume/dockerplugin TestGetOfWhatIsMissing",
		"internal/volume/dockerplugin TestListDecides",
	}},
	{"capabilities are optional", "1.12", []string{
		"internal/volume/dockerplugin TestCapabilitiesAreOptional",
		"internal/volume/dockerplugin TestCapabilitiesThatBringNoAnswer",
	}},
	{"Mountpoint in Get, List and Path is a claim", "openstorage, REX-Ray", []string{
		"internal/volume/dockerplugin TestMountReturnsWhatThePluginSays",
		"internal/volume/engine TestClaimsAreCheckedAsAnswersAre",
		"internal/volume/engine TestPathIsOnlyToldWhenMounted",
	}},
	{"repeated Mount refused, counted or ignored; an Unmount too many; Create twice", "rclone, sshfs, convoy, REX-Ray", []string{
		"internal/volume/engine TestUnmountedByHand",
		"internal/volume/engine TestUnmountedByHandForADriverThatKeepsItsCount",
		"internal/volume/engine TestTwoLedgersOneMount",
		"internal/volume/dockerplugin TestRclone",
		"internal/volume/dockerplugin TestCreateOfWhatExists",
		"dvdcli TestKilledAtEveryStep",
		"dvdcli TestRcloneKilledAtEveryStep",
	}},
}

// Each complaint and each fact has tests, and they exist.
func TestWhatUsersSufferedIsTested(t *testing.T) {
	for _, row := range slices.Concat(suffered, facts) {
		if row.seen == "" || len(row.tests) == 0 {
			t.Errorf("%s: no tests", row.symptom)
		}
		for _, entry := range row.tests {
			dir, name, _ := strings.Cut(entry, " ")
			if !hasTest(t, filepath.Join("..", dir), name) {
				t.Errorf("%s: %s has no %s", row.symptom, dir, name)
			}
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}
