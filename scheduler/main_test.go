package scheduler_test

import (
	"flag"
	"os"
	"testing"
)

// exhaustive says whether the exhaustive versions of the tests are asked for
// (make test-long).
func exhaustive() bool { return os.Getenv("DVDI_LONG") != "" }

// TestMain sets how many worlds the property tests draw: faults in how rules
// combine were found after thousands, not after rapid's hundred.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		checks := "400"
		if exhaustive() {
			checks = "50000"
		}
		if err := flag.Set("rapid.checks", checks); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
