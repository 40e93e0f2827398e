package explain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/core/mesostest"
	"github.com/mesos-dvdi/dvdi/framework/explain"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// invoke runs a subcommand as main does.
func invoke(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	a := &cli.App{Name: "dvdi-framework", Commands: explain.Commands(), Writer: &out, ErrWriter: &out,
		Reader: strings.NewReader(stdin), ExitErrHandler: func(*cli.Context, error) {}}
	err := a.RunContext(ctx, append([]string{"dvdi-framework"}, args...))
	return out.String(), err
}

func framework(t *testing.T) *mesostest.Framework {
	f := mesostest.Start(t, mesostest.Config{}, core.Config{ReviveInterval: 10 * time.Millisecond, Tick: 20 * time.Millisecond}, api.Config{Version: "test"})
	t.Setenv("DVDI_URL", f.URL)
	return f
}

func post(t *testing.T, f *mesostest.Framework, body string) {
	t.Helper()
	r, err := http.Post(f.URL+"/v2/apps", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusCreated {
		t.Fatalf("POST /v2/apps: %s", r.Status)
	}
}

func TestExplainSaysWhatIsMissing(t *testing.T) {
	f := framework(t)
	post(t, f, `{"id":"/big","cmd":"run","cpus":64,"mem":64,"instances":5}`)
	var out string
	// The first decisions may have none of the offers, or not yet those of all agents.
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out, "InsufficientCpus") || !strings.Contains(out, "3 agents"); {
		if time.Now().After(deadline) {
			t.Fatalf("explain says: %s", out)
		}
		var err error
		if out, err = invoke(t, "", "explain", "big"); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"/big: 5 waiting since", "and 2 more", "3 agents", "closest: host", "cpus"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	out, err := invoke(t, "", "explain", "-o", "json", "/big")
	if err != nil {
		t.Fatal(err)
	}
	var q client.Queued
	if err := json.Unmarshal([]byte(out), &q); err != nil {
		t.Fatal(err)
	}
	if len(q.Waiting) != 5 || q.Waiting[0].Best == "" || len(q.Waiting[0].Reasons) != 1 || q.Waiting[0].Reasons[0].Agents != 3 {
		t.Errorf("as JSON: %+v", q)
	}
}

func TestExplainTellsNothingWaitsFromNothingThere(t *testing.T) {
	f := framework(t)
	post(t, f, `{"id":"/small","cmd":"run","cpus":0.1,"mem":16,"instances":0}`)
	if out, err := invoke(t, "", "explain", "small"); err != nil || out != "nothing of /small waits\n" {
		t.Errorf("%q, %v", out, err)
	}
	var missing *client.Error
	if _, err := invoke(t, "", "explain", "smal"); !errors.As(err, &missing) || missing.Status != http.StatusNotFound {
		t.Errorf("an app that does not exist: %v", err)
	}
}

func TestMistakesInArguments(t *testing.T) {
	for _, args := range [][]string{
		{"explain"}, {"explain", "a", "b"}, {"explain", "-o", "xml", "a"}, {"explain", "..//"}, {"explain", "--url", "::", "a"},
		{"explain", "--credentials", "x", "a"}, {"replay"}, {"replay", "/no/such/file"}, {"replay", "-o", "xml", "-"}, {"replay", os.DevNull}, {"replay", "-o", "json", os.DevNull},
	} {
		var mistake *explain.UsageError
		if _, err := invoke(t, "", args...); !errors.As(err, &mistake) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// decisions are two logged decisions: one launch, and one instance that waits.
func decisions(t *testing.T) (scheduler.Record, string) {
	t.Helper()
	w := schedtest.New()
	w.Agents("a", "b")
	w.Pending("fits")
	w.Pending("huge").Needs(99, 1)
	r := scheduler.Record{Snapshot: w.Build(), Plan: w.Decide()}
	line, err := scheduler.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(line)
}

func TestReplayOfWhatWasLogged(t *testing.T) {
	_, line := decisions(t)
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(line+"\n"+strings.TrimSuffix(line, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := invoke(t, "", "replay", file)
	if err != nil || !strings.Contains(out, "2 of 2 decisions are the same") || !strings.Contains(out, "2 pending: 1 launched, 0 killed, 1 waiting") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = invoke(t, line, "replay", "--instance", "fits", "-")
	if err != nil || !strings.Contains(out, "  on a.test: ") && !strings.Contains(out, "  on b.test: ") {
		t.Errorf("%s, %v", out, err)
	}
	out, err = invoke(t, line, "replay", "--instance", "huge", "-")
	if err != nil || !strings.Contains(out, "  waits: ") {
		t.Errorf("%s, %v", out, err)
	}
	snapshot, err := scheduler.EncodeSnapshot(schedtest.New().Build())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := invoke(t, string(snapshot), "replay", "-"); err != nil {
		t.Errorf("a snapshot without plan: %s, %v", out, err)
	}
}

func TestReplayFindsDifferences(t *testing.T) {
	r, line := decisions(t)
	r.Plan.Accepts = nil
	changed, err := scheduler.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	out, err := invoke(t, line+string(changed)+"{broken\n", "replay", "-")
	if !errors.Is(err, explain.ErrDiffers) {
		t.Errorf("error %v", err)
	}
	for _, want := range []string{"line 1: ", "line 2: ", "DIFFERS", "recorded: {", "now: {", "line 3: decode record", "1 of 3 decisions are the same"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	out, err = invoke(t, string(changed), "replay", "-o", "json", "-")
	var told struct {
		Same     bool
		Recorded *scheduler.Plan
	}
	if jsonErr := json.Unmarshal([]byte(out), &told); jsonErr != nil || told.Same || told.Recorded == nil || !errors.Is(err, explain.ErrDiffers) {
		t.Errorf("as JSON: %s, %v, %v", out, jsonErr, err)
	}
}
