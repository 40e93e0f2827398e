package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/journal"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// oneDriver answers every call with an error, or none.
type oneDriver struct{ err error }

func (d oneDriver) Name() string                                  { return "one" }
func (d oneDriver) Traits() volume.Traits                         { return volume.Traits{} }
func (d oneDriver) List(context.Context) ([]volume.Volume, error) { return nil, d.err }
func (d oneDriver) Capabilities(context.Context) (volume.Capabilities, error) {
	return volume.Capabilities{}, d.err
}
func (d oneDriver) Create(context.Context, volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{}, d.err
}
func (d oneDriver) Remove(context.Context, volume.Ref) error { return d.err }
func (d oneDriver) Get(context.Context, volume.Ref) (volume.Volume, error) {
	return volume.Volume{}, d.err
}
func (d oneDriver) Path(context.Context, volume.Ref) (string, error) { return "", d.err }
func (d oneDriver) Mount(context.Context, volume.MountRequest) (volume.Mounted, error) {
	return volume.Mounted{}, d.err
}
func (d oneDriver) Unmount(context.Context, volume.UnmountRequest) error { return d.err }

// source is where the driver is found.
type source struct{ driver oneDriver }

func (s source) Open(_ context.Context, name string) (volume.Driver, error) {
	if name == "absent" {
		return nil, &volume.DriverUnknownError{Driver: name}
	}
	return s.driver, nil
}
func (source) List(context.Context) ([]volume.DriverInfo, error) { return nil, nil }

func exposed(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("%d %s %v", w.Code, body, err)
	}
	return string(body)
}

func has(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// Every call of a driver is counted under its kind and outcome, once.
func TestOperations(t *testing.T) {
	m := New("v")
	ctx := context.Background()
	for _, kind := range []volume.Kind{"", volume.NotFound, volume.AlreadyExists, volume.Refused, volume.Unsupported, volume.DriverUnreachable, volume.Unsettled, volume.Deadline} {
		var cause error
		if kind != "" {
			cause = &volume.Error{Kind: kind}
		}
		d, err := m.Drivers(source{oneDriver{cause}}).Open(ctx, "one")
		if err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"capabilities": second(d.Capabilities(ctx)), "create": second(d.Create(ctx, volume.CreateRequest{})), "remove": d.Remove(ctx, volume.Ref{}),
			"get": second(d.Get(ctx, volume.Ref{})), "list": second(d.List(ctx)), "path": second(d.Path(ctx, volume.Ref{})), "mount": second(d.Mount(ctx, volume.MountRequest{})),
			"unmount": d.Unmount(ctx, volume.UnmountRequest{}),
		} {
			if !errors.Is(err, cause) {
				t.Errorf("%s changed the error: %v", name, err)
			}
		}
	}
	if _, err := m.Drivers(source{}).Open(ctx, "absent"); volume.KindOf(err) != volume.DriverUnknown {
		t.Error(err)
	}
	text := exposed(t, m)
	for _, kind := range []string{"capabilities", "create", "remove", "get", "list", "path", "mount", "unmount"} {
		for _, outcome := range []string{"ok", "not_found", "already_exists", "refused", "unsupported", "unreachable", "unsettled", "failed"} {
			has(t, text, `dvdi_bridge_operations_total{driver="one",kind="`+kind+`",outcome="`+outcome+`"} 1`)
		}
		has(t, text, `dvdi_bridge_operation_duration_seconds_count{driver="one",kind="`+kind+`"} 8`)
	}
	if strings.Contains(text, "absent") {
		t.Error("a driver that does not exist got a label of its own")
	}
}

// A name that is not UTF-8 ends no collection, and stays apart from others.
func TestNamesThatAreNoText(t *testing.T) {
	m := New("v")
	names := []string{"\xff", "\xfe"}
	f := &client.Facts{}
	for _, name := range names {
		f.Drivers = append(f.Drivers, &client.Driver{Name: name})
		m.Called(journal.Call{Driver: name, Kind: "mount", Outcome: "ok"})
		m.LeaseChanged(ledger.Key{Driver: name}, fence.Fencing)
	}
	m.Show(facts{f}, leases{})
	has(t, exposed(t, m), `dvdi_bridge_operations_total{driver="\"\\xff\"",kind="mount",outcome="ok"} 1`,
		`dvdi_bridge_lease_expirations_total{driver="\"\\xfe\"",state="fencing"} 1`, `dvdi_bridge_driver_healthy{driver="\"\\xff\""} 0`)
}

func second[T any](_ T, err error) error { return err }

type facts struct{ f *client.Facts }

func (f facts) Facts() *client.Facts { return f.f }

type leases map[fence.State]int

func (l leases) Counts() map[fence.State]int { return l }

func TestStates(t *testing.T) {
	m := New("v9")
	name := func(driver string) *client.VolumeName { return &client.VolumeName{Driver: driver, Name: "x"} }
	m.Show(facts{&client.Facts{ContainersKnown: true,
		Drivers: []*client.Driver{{Name: "a", Healthy: true, Attached: 3, AttachLimit: 5}, {Name: "b"}},
		Volumes: []*client.Volume{{Name: name("a"), State: client.Volume_MOUNTED}, {Name: name("a"), State: client.Volume_MOUNTED, Leaked: true},
			{Name: name("a"), State: client.Volume_UNSETTLED}, {Name: name("a")}, {Name: name("gone"), State: client.Volume_PENDING}}}},
		leases{fence.Holding: 2, fence.Fencing: 1, fence.Fenced: 0})
	m.Refused(access.WrongToken)
	m.Recovered("ledger", true)
	m.Recovered("agent", false)
	m.LeaseChanged(ledger.Key{Driver: "a"}, fence.Fencing)
	m.LeaseChanged(ledger.Key{Driver: "a"}, fence.Fenced)
	has(t, exposed(t, m),
		`dvdi_bridge_volumes{driver="a",state="mounted"} 2`, `dvdi_bridge_volumes{driver="a",state="leaked"} 1`,
		`dvdi_bridge_volumes{driver="a",state="unsettled"} 1`, `dvdi_bridge_volumes{driver="a",state="pending"} 0`,
		`dvdi_bridge_volumes{driver="gone",state="pending"} 1`, `dvdi_bridge_volumes{driver="b",state="mounted"} 0`,
		`dvdi_bridge_driver_healthy{driver="a"} 1`, `dvdi_bridge_driver_healthy{driver="b"} 0`,
		`dvdi_bridge_attached_volumes{driver="a"} 3`, `dvdi_bridge_attach_limit{driver="a"} 5`, `dvdi_bridge_agent_known 1`,
		`dvdi_bridge_leases{state="holding"} 2`, `dvdi_bridge_leases{state="fencing"} 1`, `dvdi_bridge_leases{state="fenced"} 0`,
		`dvdi_bridge_lease_expirations_total{driver="a",state="fencing"} 1`, `dvdi_bridge_lease_expirations_total{driver="a",state="fenced"} 1`,
		`dvdi_bridge_refused_total{reason="wrong_token"} 1`, `dvdi_bridge_refused_total{reason="no_token"} 0`,
		`dvdi_bridge_recovered_total{outcome="settled",source="ledger"} 1`, `dvdi_bridge_recovered_total{outcome="problem",source="agent"} 1`,
		`dvdi_bridge_build_info{version="v9"} 1`)
	// The first expiry of a driver is an increase only over a zero that was there.
	has(t, exposed(t, m), `dvdi_bridge_lease_expirations_total{driver="b",state="fencing"} 0`,
		`dvdi_bridge_lease_expirations_total{driver="b",state="fenced"} 0`)
}

var metricName = regexp.MustCompile(`dvdi_bridge_[a-z_]+`)

// The examples use metrics that exist.
func TestExamplesUseMetricsThatExist(t *testing.T) {
	m := New("v")
	m.Show(facts{&client.Facts{Drivers: []*client.Driver{{Name: "a", AttachLimit: 1}}, Volumes: []*client.Volume{{Name: &client.VolumeName{Driver: "a"}, State: client.Volume_MOUNTED}}}}, leases{0: 0})
	d, err := m.Drivers(source{}).Open(context.Background(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Unmount(context.Background(), volume.UnmountRequest{}); err != nil {
		t.Fatal(err)
	}
	m.LeaseChanged(ledger.Key{Driver: "a"}, fence.Fencing)
	m.Recovered("ledger", true)
	text := exposed(t, m)
	for _, file := range []string{"alerts.yaml", "dashboard.json", "README.md"} {
		data, err := os.ReadFile("../../examples/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasSuffix(file, ".json") && !json.Valid(data):
			t.Errorf("%s is no JSON", file)
		case strings.HasSuffix(file, ".yaml"):
			checkRules(t, data)
		}
		checkLabels(t, file, string(data), text)
		names := metricName.FindAllString(string(data), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") && !strings.Contains(text, "# TYPE "+name+" ") {
				t.Errorf("%s uses %s, which does not exist", file, name)
			}
		}
	}
}

var (
	selector  = regexp.MustCompile(`(dvdi_bridge_[a-z_]+)\{([^{}]*)\}`)
	labelName = regexp.MustCompile(`([a-z_]+) *(?:=~|!~|!=|=)`)
)

// checkLabels checks that selectors ask for labels that the metric has, or that
// Prometheus adds.
func checkLabels(t *testing.T, file, text, exposed string) {
	t.Helper()
	for _, found := range selector.FindAllStringSubmatch(text, -1) {
		_, after, known := strings.Cut(exposed, "\n"+found[1]+"{")
		labels, _, _ := strings.Cut(after, "}")
		for _, l := range labelName.FindAllStringSubmatch(found[2], -1) {
			if l[1] == "instance" || l[1] == "job" {
				continue
			}
			if !known || !strings.Contains(","+labels, ","+l[1]+"=") {
				t.Errorf("%s asks %s for the label %s, which it has not", file, found[1], l[1])
			}
		}
	}
}

func checkRules(t *testing.T, data []byte) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(data, &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Expr == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("incomplete rule %+v", r)
			}
		}
	}
}
