package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

func TestMain(m *testing.M) {
	volumetest.Main()
	goleak.VerifyTestMain(m)
}

// fakeClock lets sleeping take no time, and tells what was slept. It may do
// something while it sleeps.
type fakeClock struct {
	mu    sync.Mutex // guards now and slept
	now   time.Time
	slept []time.Duration
	on    func(n int)
}

func newFakeClock() *fakeClock { return &fakeClock{now: time.Now()} }

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	n, on := len(c.slept), c.on
	c.mu.Unlock()
	if on != nil {
		on(n)
	}
	return ctx.Err()
}

// driversFor searches the plugin's directory, with a clock that never waits.
func driversFor(t *testing.T, p *volumetest.Plugin) (*Drivers, *fakeClock) {
	t.Helper()
	clock := newFakeClock()
	d := New(Config{Dirs: []string{p.PluginDir()}, Clock: clock, MaxAnswer: 64 << 10})
	t.Cleanup(d.Close)
	return d, clock
}

func open(t *testing.T, d *Drivers, name string) volume.Driver {
	t.Helper()
	driver, err := d.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return driver
}

func openTest(t *testing.T, p *volumetest.Plugin) volume.Driver {
	t.Helper()
	d, _ := driversFor(t, p)
	return open(t, d, p.Name())
}

func wantKind(t *testing.T, err error, kind volume.Kind, parts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error %v, want one of kind %q", err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not contain %q", err, part)
		}
	}
}

func ref(name string) volume.Ref { return volume.Ref{Name: name} }

func mountOf(name, id string) volume.MountRequest {
	return volume.MountRequest{Volume: ref(name), ID: id}
}

func unmountOf(name, id string) volume.UnmountRequest {
	return volume.UnmountRequest{Volume: ref(name), ID: id}
}

func TestVolumeLife(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Scope: "global"})
	d := openTest(t, p)
	ctx := t.Context()
	if d.Name() != p.Name() || d.Traits() != (volume.Traits{Kind: "docker"}) {
		t.Errorf("%q %+v", d.Name(), d.Traits())
	}
	if c, err := d.Capabilities(ctx); err != nil || c.Scope != volume.ScopeGlobal {
		t.Errorf("Capabilities = %+v, %v", c, err)
	}
	created, err := d.Create(ctx, volume.CreateRequest{Name: "a/b ü", Options: map[string]string{"size": "1"}, Secrets: volume.Secrets{"key": "hidden"}})
	if err != nil || created.Name != "a/b ü" {
		t.Fatal(created, err)
	}
	mounted, err := d.Mount(ctx, mountOf("a/b ü", "id"))
	if err != nil || mounted.Path != p.Mountpoint("a/b ü") || mounted.ServerPID != os.Getpid() {
		t.Fatalf("Mount = %+v, %v", mounted, err)
	}
	if v, err := d.Get(ctx, ref("a/b ü")); err != nil || v.Name != "a/b ü" || v.Mountpoint != mounted.Path {
		t.Errorf("Get = %+v, %v", v, err)
	}
	if path, err := d.Path(ctx, ref("a/b ü")); err != nil || path != mounted.Path {
		t.Errorf("Path = %q, %v", path, err)
	}
	if all, err := d.List(ctx); err != nil || len(all) != 1 || all[0].Name != "a/b ü" {
		t.Errorf("List = %+v, %v", all, err)
	}
	if err := d.Unmount(ctx, unmountOf("a/b ü", "id")); err != nil {
		t.Error(err)
	}
	if err := d.Remove(ctx, ref("a/b ü")); err != nil {
		t.Error(err)
	}
	if all, err := d.List(ctx); err != nil || all == nil || len(all) != 0 {
		t.Errorf("List = %+v, %v; want an empty list", all, err)
	}

	var methods []string
	for _, r := range p.Requests() {
		methods = append(methods, r.Method)
		if r.Header["Accept"] != "application/vnd.docker.plugins.v1.2+json" || r.Header["Host"] != "plugin" {
			t.Errorf("%s: headers %v", r.Method, r.Header)
		}
		if (r.Method == "Mount" || r.Method == "Unmount") && r.ID != "id" {
			t.Errorf("%s with id %q", r.Method, r.ID)
		}
		if r.Method == "Create" && (r.Opts["size"] != "1" || r.Opts["key"] != "hidden" || len(r.Opts) != 2) {
			t.Errorf("options %v", r.Opts)
		}
	}
	want := []string{"Activate", "Capabilities", "Create", "Mount", "Get", "Path", "List", "Unmount", "Remove", "List"}
	if !slices.Equal(methods, want) {
		t.Errorf("calls %v, want %v", methods, want)
	}
}

func TestServerPIDIsThatOfThePlugin(t *testing.T) {
	p := volumetest.StartProcess(t, volumetest.Config{})
	d := openTest(t, p)
	if _, err := d.Create(t.Context(), volume.CreateRequest{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if mounted, err := d.Mount(t.Context(), mountOf("v", "1")); err != nil || mounted.ServerPID != p.PID() {
		t.Errorf("%+v, %v; the plugin is %d", mounted, err, p.PID())
	}
}

// Whoever makes a call learns which process gets it before that process does.
func TestServerIsToldBeforeTheCall(t *testing.T) {
	p := volumetest.StartProcess(t, volumetest.Config{})
	d := openTest(t, p)
	var told []int
	ctx := volume.WithReached(t.Context(), func(pid int) {
		told = append(told, pid)
		if n := len(p.Calls("Create")); n != 0 {
			t.Errorf("the plugin had %d calls by then", n)
		}
	})
	if _, err := d.Create(ctx, volume.CreateRequest{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []int{p.PID()}) {
		t.Errorf("told %v, the plugin is %d", told, p.PID())
	}
}

func TestHandshakeIsMadeOnce(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	d, _ := driversFor(t, p)
	for range 3 {
		if _, err := open(t, d, p.Name()).List(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.Calls("Activate")); n != 1 {
		t.Errorf("%d handshakes", n)
	}
}

func TestHandshakeFails(t *testing.T) {
	for name, test := range map[string]struct {
		rule volumetest.Rule
		kind volume.Kind
		part string
	}{
		"other plugin": {volumetest.Rule{Do: volumetest.DoAnswer, Body: `{"Implements":["NetworkDriver"]}`}, volume.Unsupported, "NetworkDriver"},
		"nothing":      {volumetest.Rule{Do: volumetest.DoAnswer, Body: `{}`}, volume.Unsupported, "no volume driver"},
		"status":       {volumetest.Rule{Do: volumetest.DoAnswer, Status: 503, Body: "warming up"}, volume.DriverUnreachable, "warming up"},
		"garbage":      {volumetest.Rule{Do: volumetest.DoAnswer, Body: "hello"}, volume.DriverUnreachable, "Plugin.Activate"},
		"error":        {volumetest.Rule{Do: volumetest.DoAnswer, Body: `{"Err":"no license"}`}, volume.DriverUnreachable, "no license"},
		"dropped":      {volumetest.Rule{Do: volumetest.DoDrop}, volume.DriverUnreachable, "Plugin.Activate"},
	} {
		t.Run(name, func(t *testing.T) {
			test.rule.Method = "Activate"
			p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{test.rule}})
			d := openTest(t, p)
			for op, do := range map[string]func() error{
				"Mount":        func() error { _, err := d.Mount(t.Context(), mountOf("v", "1")); return err },
				"Get":          func() error { _, err := d.Get(t.Context(), ref("v")); return err },
				"Capabilities": func() error { _, err := d.Capabilities(t.Context()); return err },
			} {
				wantKind(t, do(), test.kind, test.part, "VolumeDriver."+op)
			}
			for _, r := range p.Requests() {
				if r.Method != "Activate" {
					t.Errorf("%s was called without a handshake", r.Method)
				}
			}
		})
	}
}

// answers is what plugins answer to Unmount, and what it means.
var answers = []struct {
	name   string
	status int
	body   string
	kind   volume.Kind // empty: success
	part   string
}{
	{"empty object", 200, `{}`, "", ""},
	{"empty Err", 200, `{"Err":""}`, "", ""},
	{"null Err", 200, `{"Err":null}`, "", ""},
	{"empty body", 200, ``, "", ""},
	{"blank body", 200, " \n", "", ""},
	{"null", 200, `null`, "", ""},
	{"something behind", 200, `{"Err":""} tail`, "", ""},
	{"unknown fields", 200, `{"Mountpoint":null,"X":1}`, "", ""},
	{"lower case", 200, `{"err":"busy"}`, volume.Refused, "busy"},
	{"Err", 200, `{"Err":"busy"}`, volume.Refused, "busy"},
	{"Err with 500", 500, `{"Err":"busy"}`, volume.Refused, "busy"},
	{"Error with 500", 500, `{"Error":"busy"}`, volume.Refused, "busy"},
	{"Err before Error", 500, `{"Error":"worse","Err":"better"}`, volume.Refused, "better"},
	{"empty Err, Error", 500, `{"Err":"","Error":"busy"}`, volume.Refused, "busy"},
	{"empty Error with 500", 500, `{"Error":""}`, volume.Refused, `{"Error":""}`},
	{"text with 500", 500, "device busy\n", volume.Refused, "device busy"},
	{"nothing with 500", 500, "", volume.Refused, "no reason"},
	{"Err is an object", 200, `{"Err":{"code":7}}`, volume.Refused, `{"code":7}`},
	{"Err is a number", 500, `{"Err":7}`, volume.Refused, "7"},
	{"html with 502", 502, "<html><body>bad gateway</body></html>", volume.Refused, "bad gateway"},
	{"redirect", 307, "elsewhere", volume.Refused, "status 307"},
	{"201", 201, `{}`, volume.Refused, "status 201"},
	{"404 about a volume", 404, `{"Err":"volume v not found"}`, volume.Refused, "volume v not found"},
	{"404 of a router", 404, "404 page not found\n", volume.Unsupported, "page not found"},
	{"404 of an old plugin", 404, "Handler not found", volume.Unsupported, "Handler not found"},
	{"405", 405, "", volume.Unsupported, "status 405"},
	{"501", 501, "", volume.Unsupported, "status 501"},
	{"garbage", 200, "it worked!", volume.Garbled, "not understood"},
	{"half JSON", 200, `{"Err":`, volume.Garbled, "ends in the middle"},
	{"array", 200, `[]`, volume.Garbled, "not understood"},
	{"control characters", 500, "\x1b[31mred\x07\xff", volume.Refused, "red"},
}

func TestEveryKindOfAnswer(t *testing.T) {
	for _, test := range answers {
		t.Run(test.name, func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
				{Method: "Unmount", Do: volumetest.DoAnswer, Status: test.status, Body: test.body},
			}})
			err := openTest(t, p).Unmount(t.Context(), unmountOf("v", "1"))
			if n := len(p.Calls("Unmount")); n != 1 {
				t.Errorf("called %d times", n)
			}
			if test.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantKind(t, err, test.kind, test.part, `volume "v"`, `driver "test"`, "VolumeDriver.Unmount", fmt.Sprint("status ", test.status))
			if strings.ContainsAny(err.Error(), "\x1b\x07") || !utf8.ValidString(err.Error()) {
				t.Errorf("control characters in %q", err)
			}
		})
	}
}

func TestLongErrorIsCut(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
		{Method: "Mount", Do: volumetest.DoAnswer, Status: 500, Body: strings.Repeat("é", 10_000)},
	}})
	_, err := openTest(t, p).Mount(t.Context(), mountOf("v", "1"))
	wantKind(t, err, volume.Refused, "éé…")
	if n := len(err.Error()); n > 3000 {
		t.Errorf("%d bytes of error", n)
	}
}

func TestAnswerSizeIsBounded(t *testing.T) {
	huge := `{"Mountpoint":"/` + strings.Repeat("x", 100<<10) + `"}`
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Do: volumetest.DoAnswer, Body: huge}}})
	d := openTest(t, p)
	_, err := d.Mount(t.Context(), mountOf("v", "1"))
	wantKind(t, err, volume.Garbled, "too large")
	_, err = d.List(t.Context())
	wantKind(t, err, volume.Refused, "too large")
	if n := len(p.Calls("List")) + len(p.Calls("Mount")); n != 2 {
		t.Errorf("%d calls; a too large answer must not be asked for again", n)
	}
}

func TestMountReturnsWhatThePluginSays(t *testing.T) {
	for body, want := range map[string]string{
		`{"Mountpoint":"/mnt/x"}`: "/mnt/x", `{}`: "", `{"Mountpoint":null}`: "", ``: "", `{"Mountpoint":"relative"}`: "relative",
	} {
		p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "Mount", Do: volumetest.DoAnswer, Body: body}}})
		if m, err := openTest(t, p).Mount(t.Context(), mountOf("v", "1")); err != nil || m.Path != want {
			t.Errorf("%s: %+v, %v", body, m, err)
		}
	}
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "Mount", Do: volumetest.DoAnswer, Body: `{"Mountpoint":7}`}}})
	_, err := openTest(t, p).Mount(t.Context(), mountOf("v", "1"))
	wantKind(t, err, volume.Garbled)
}

// mutations are the calls that must never be repeated.
var mutations = map[string]func(context.Context, volume.Driver) error{
	"Create": func(ctx context.Context, d volume.Driver) error {
		_, err := d.Create(ctx, volume.CreateRequest{Name: "v"})
		return err
	},
	"Remove": func(ctx context.Context, d volume.Driver) error { return d.Remove(ctx, ref("v")) },
	"Mount": func(ctx context.Context, d volume.Driver) error {
		_, err := d.Mount(ctx, mountOf("v", "1"))
		return err
	},
	"Unmount": func(ctx context.Context, d volume.Driver) error { return d.Unmount(ctx, unmountOf("v", "1")) },
}

func TestMutationsAreNeverSentTwice(t *testing.T) {
	for method, do := range mutations {
		for name, rule := range map[string]volumetest.Rule{
			"dropped before": {Do: volumetest.DoDrop},
			"dropped after":  {Do: volumetest.DoDrop, At: volumetest.After},
			"cut":            {Do: volumetest.DoCut, Body: `{"Mountpoint":"/somewhere","Err":""}`},
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				rule.Method = method
				p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{rule}})
				d, clock := driversFor(t, p)
				driver := open(t, d, p.Name())
				wantKind(t, do(t.Context(), driver), volume.Unsettled, `volume "v"`, "VolumeDriver."+method)
				if n := len(p.Calls(method)); n != 1 || len(clock.slept) != 0 {
					t.Errorf("%d calls, slept %v", n, clock.slept)
				}
			})
		}
		t.Run(method+" no answer in time", func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: method, Do: volumetest.DoHold}}})
			d := openTest(t, p)
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() { failed <- do(ctx, d) }()
			p.AwaitHeld(1)
			cancel()
			wantKind(t, <-failed, volume.Unsettled, context.Canceled.Error())
			if n := len(p.Calls(method)); n != 1 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestQueriesAreRepeated(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	d, clock := driversFor(t, p)
	driver := open(t, d, p.Name())
	if _, err := driver.Create(t.Context(), volume.CreateRequest{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	p.Add(volumetest.Rule{Method: "Get", Times: 2, Do: volumetest.DoDrop})
	if _, err := driver.Get(t.Context(), ref("v")); err != nil {
		t.Error(err)
	}
	if want := []time.Duration{time.Second, 2 * time.Second}; !slices.Equal(clock.slept, want) {
		t.Errorf("slept %v, want %v", clock.slept, want)
	}
}

func TestWaitsForAPluginThatDoesNotAnswerYet(t *testing.T) {
	t.Run("never seen", func(t *testing.T) { testWaits(t, false) })
	t.Run("seen before", func(t *testing.T) { testWaits(t, true) })
}

func testWaits(t *testing.T, seen bool) {
	p := volumetest.Start(t, volumetest.Config{})
	d, clock := driversFor(t, p)
	driver := open(t, d, p.Name())
	if seen {
		if _, err := driver.List(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.Kill()
	for _, do := range mutations {
		clock.slept = nil
		wantKind(t, do(t.Context(), driver), volume.DriverUnreachable, "unix://"+p.Socket(), "start the plugin")
		if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}; !slices.Equal(clock.slept, want) {
			t.Errorf("slept %v, want %v", clock.slept, want)
		}
	}
	clock.slept, clock.on = nil, func(n int) {
		if n == 3 {
			p.Restart()
		}
	}
	if err := mutations["Create"](t.Context(), driver); err != nil {
		t.Errorf("the plugin is back: %v", err)
	}
	if n := len(p.Calls("Create")); n != 1 {
		t.Errorf("%d creates", n)
	}
}

func TestDoesNotWaitBeyondTheDeadline(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	d, clock := driversFor(t, p)
	driver := open(t, d, p.Name())
	p.Kill()
	ctx, cancel := context.WithDeadline(t.Context(), clock.now.Add(5*time.Second))
	defer cancel()
	_, err := driver.Mount(ctx, mountOf("v", "1"))
	wantKind(t, err, volume.DriverUnreachable, "connection refused")
	if want := []time.Duration{time.Second, 2 * time.Second}; !slices.Equal(clock.slept, want) {
		t.Errorf("slept %v, want %v", clock.slept, want)
	}
}

func TestHungPluginEndsWithTheContext(t *testing.T) {
	p := volumetest.StartProcess(t, volumetest.Config{})
	d := openTest(t, p)
	p.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := d.Mount(ctx, mountOf("v", "1"))
	wantKind(t, err, volume.DriverUnreachable, "Plugin.Activate") // the Mount itself was never sent
	p.Thaw()
	if n := len(p.Calls("Mount")); n != 0 {
		t.Errorf("%d mounts", n)
	}
}

func TestDifferentVolumesDoNotWaitForEachOther(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "Unmount", Do: volumetest.DoHold}}})
	d := openTest(t, p)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			name := fmt.Sprint("v", i)
			if _, err := d.Create(t.Context(), volume.CreateRequest{Name: name}); err != nil {
				t.Error(err)
			}
			if err := d.Unmount(t.Context(), unmountOf(name, "1")); err != nil {
				t.Error(err)
			}
		})
	}
	p.AwaitHeld(20)
	p.Release()
	group.Wait()
}

func TestCapabilitiesAreOptional(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   volume.Scope
	}{
		"global":  {200, `{"Capabilities":{"Scope":"global"}}`, volume.ScopeGlobal},
		"GLOBAL":  {200, `{"Capabilities":{"Scope":"Global"}}`, volume.ScopeGlobal},
		"local":   {200, `{"Capabilities":{"Scope":"local"}}`, volume.ScopeLocal},
		"unknown": {200, `{"Capabilities":{"Scope":"galaxy"}}`, volume.ScopeLocal},
		"none":    {200, `{}`, volume.ScopeLocal},
		"garbage": {200, `x`, volume.ScopeLocal},
		"wrong":   {200, `{"Capabilities":["global"]}`, volume.ScopeLocal},
		"lacking": {404, "404 page not found", volume.ScopeLocal},
		"error":   {500, `{"Err":"no"}`, volume.ScopeLocal},
	} {
		p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "Capabilities", Do: volumetest.DoAnswer, Status: test.status, Body: test.body}}})
		if c, err := openTest(t, p).Capabilities(t.Context()); err != nil || c.Scope != test.want {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestCapabilitiesThatBringNoAnswer(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{{Method: "Capabilities", Do: volumetest.DoDrop}}})
	drivers, clock := driversFor(t, p)
	d := open(t, drivers, p.Name())
	if c, err := d.Capabilities(t.Context()); err != nil || c.Scope != volume.ScopeLocal || len(clock.slept) > 0 {
		t.Errorf("dropped: %+v, %v, slept %v", c, err, clock.slept)
	}
	p.Clear()
	p.Add(volumetest.Rule{Method: "Capabilities", Do: volumetest.DoHold})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := d.Capabilities(ctx)
		failed <- err
	}()
	p.AwaitHeld(1)
	cancel()
	wantKind(t, <-failed, volume.Unsettled, context.Canceled.Error())
	p.Kill()
	_, err := d.Capabilities(t.Context())
	wantKind(t, err, volume.DriverUnreachable)
}

func TestCreateOfWhatExists(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{CreateTwice: true})
	d := openTest(t, p)
	if _, err := d.Create(t.Context(), volume.CreateRequest{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	_, err := d.Create(t.Context(), volume.CreateRequest{Name: "v"})
	wantKind(t, err, volume.AlreadyExists, "volume name already exists")
	p.Add(volumetest.Rule{Method: "Create", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"pool full"}`})
	_, err = d.Create(t.Context(), volume.CreateRequest{Name: "v"})
	wantKind(t, err, volume.Refused, "pool full")
}

func TestRemoveAndPathOfWhatIsMissing(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	d := openTest(t, p)
	wantKind(t, d.Remove(t.Context(), ref("v")), volume.NotFound)
	_, err := d.Path(t.Context(), ref("v"))
	wantKind(t, err, volume.NotFound)
	// An unmount that fails is a failure, whatever the plugin says: it may be
	// about a device.
	wantKind(t, d.Unmount(t.Context(), unmountOf("v", "1")), volume.Refused, "not found")
}

func TestNameThatIsNoText(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	_, err := openTest(t, p).Mount(t.Context(), mountOf("v\xff", "1"))
	wantKind(t, err, volume.Invalid, "UTF-8")
	if n := len(p.Requests()); n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestSecretsStayOut(t *testing.T) {
	secret := `s3cr"et<&>`
	var traced []Exchange
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
		{Method: "Create", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"login with s3cr\"et<&> failed"}`},
		{Method: "Mount", Do: volumetest.DoAnswer, Status: 500, Body: "bad key " + secret},
		{Method: "Unmount", Do: volumetest.DoDrop},
	}})
	d := New(Config{Dirs: []string{p.PluginDir()}, Clock: newFakeClock(), Trace: func(e Exchange) { traced = append(traced, e) }})
	driver := open(t, d, p.Name())
	secrets := volume.Secrets{"password": secret, "pin": "s3cr", "empty": ""}
	_, createErr := driver.Create(t.Context(), volume.CreateRequest{Name: "v", Options: map[string]string{"size": "1"}, Secrets: secrets})
	_, mountErr := driver.Mount(t.Context(), volume.MountRequest{Volume: ref("v"), ID: "1", Secrets: secrets})
	unmountErr := driver.Unmount(t.Context(), volume.UnmountRequest{Volume: ref("v"), ID: "1", Secrets: secrets})
	wantKind(t, createErr, volume.Refused, "login with *** failed")
	wantKind(t, mountErr, volume.Refused, "bad key ***")
	if len(traced) != 4 || traced[1].Method != "VolumeDriver.Create" || !strings.Contains(traced[1].Request, `"size":"1"`) ||
		traced[1].Status != 500 || traced[3].Err == nil || traced[2].Driver != "test" || traced[0].Address != "unix://"+p.Socket() {
		t.Errorf("traced %+v", traced)
	}
	for _, text := range []string{createErr.Error(), mountErr.Error(), unmountErr.Error(), fmt.Sprintf("%+v", traced)} {
		if strings.Contains(text, "s3cr") || strings.Contains(text, `et<`) {
			t.Errorf("secret in %s", text)
		}
	}
	if got := p.Calls("Create")[0].Opts["password"]; got != secret {
		t.Errorf("the plugin got %q", got)
	}
}

// A socket that this user may not connect to will not open by waiting. (Root may
// connect to any, so that no test can have it happen.)
func TestForbiddenSocketIsNotTriedAgain(t *testing.T) {
	if err := (&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}); !hopeless(err) {
		t.Errorf("tried again after %v", err)
	}
	if err := (&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}); hopeless(err) {
		t.Errorf("not tried again after %v", err)
	}
}
