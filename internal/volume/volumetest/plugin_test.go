package volumetest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	Main()
	goleak.VerifyTestMain(m)
}

// call makes a protocol call and returns Err.
func call(t *testing.T, p *Plugin, method, name, id string) (mountpoint, failure string, err error) {
	t.Helper()
	var answer struct{ Err, Mountpoint string }
	err = ask(p.Socket(), "POST", "/VolumeDriver."+method, map[string]string{"Name": name, "ID": id}, &answer)
	return answer.Mountpoint, answer.Err, err
}

func must(t *testing.T, p *Plugin, method, name, id string) {
	t.Helper()
	if _, failure, err := call(t, p, method, name, id); err != nil || failure != "" {
		t.Fatalf("%s: %v %s", method, err, failure)
	}
}

func fails(t *testing.T, p *Plugin, method, name, id string) {
	t.Helper()
	if _, _, err := call(t, p, method, name, id); err == nil {
		t.Fatalf("%s(%s, %s) succeeded", method, name, id)
	}
}

// both runs a test with the plugin in this process and in its own.
func both(t *testing.T, test func(t *testing.T, start func(testing.TB, Config) *Plugin)) {
	t.Run("here", func(t *testing.T) { test(t, Start) })
	t.Run("own process", func(t *testing.T) { test(t, StartProcess) })
}

func TestCounting(t *testing.T) {
	for counting, test := range map[Counting]struct {
		repeated, extra bool // succeed?
		afterOne        bool // still mounted after two mounts by different ids and one unmount?
		removable       bool // after one unmount too many?
	}{
		CountIDs:          {true, true, true, true},
		CountRefusing:     {false, false, true, true},
		CountCalls:        {true, true, true, false},
		CountNothing:      {true, true, false, true},
		CountAfterUnmount: {true, true, false, true},
	} {
		t.Run(string(counting), func(t *testing.T) {
			p := Start(t, Config{Counting: counting})
			must(t, p, "Create", "v", "")
			must(t, p, "Mount", "v", "1")
			must(t, p, "Mount", "v", "2")
			must(t, p, "Unmount", "v", "1")
			if got := p.States()["v"].Mounted; got != test.afterOne {
				t.Errorf("mounted after one of two unmounts: %t", got)
			}
			must(t, p, "Unmount", "v", "2")
			must(t, p, "Create", "w", "")
			must(t, p, "Mount", "w", "1")
			if _, _, err := call(t, p, "Mount", "w", "1"); (err == nil) != test.repeated {
				t.Errorf("repeated Mount: %v", err)
			}
			must(t, p, "Create", "x", "")
			if _, _, err := call(t, p, "Unmount", "x", "1"); (err == nil) != test.extra {
				t.Errorf("extra Unmount: %v", err)
			}
			if _, _, err := call(t, p, "Remove", "x", ""); (err == nil) != test.removable {
				t.Errorf("Remove after an extra Unmount: %v", err)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	both(t, func(t *testing.T, start func(testing.TB, Config) *Plugin) {
		for restart, want := range map[Restart]State{
			RestartRemembers: {Mounted: true, Mounts: 1, Count: 1, IDs: []string{"1"}},
			RestartForgets:   {Mounted: false, Mounts: 1},
			RestartRemounts:  {Mounted: true, Mounts: 1, Count: 1, IDs: []string{"1"}},
		} {
			p := start(t, Config{Restart: restart})
			must(t, p, "Create", "v", "")
			must(t, p, "Mount", "v", "1")
			p.Restart()
			got := p.States()["v"]
			if restart == RestartRemounts && !p.config.Bind {
				want.Mounts = 2
			}
			if got.Mounted != want.Mounted || got.Mounts != want.Mounts || got.Count != want.Count || !slices.Equal(got.IDs, want.IDs) {
				t.Errorf("%s: %+v", restart, got)
			}
			var methods []string
			for _, r := range p.Requests() {
				methods = append(methods, r.Method)
			}
			if !slices.Equal(methods, []string{"Create", "Mount"}) {
				t.Errorf("the log lost or gained calls: %v", methods)
			}
		}
	})
}

func TestBindMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	p := Start(t, Config{Bind: true, Volatile: true, Restart: RestartRemounts})
	must(t, p, "Create", "v", "")
	at, _, err := call(t, p, "Mount", "v", "1")
	if err != nil || at != p.Mountpoint("v") {
		t.Fatal(at, err)
	}
	if err := os.WriteFile(filepath.Join(at, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if _, err := os.Stat(filepath.Join(at, "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a volatile mount outlived its plugin: %v", err)
	}
	p.Restart()
	if _, err := os.Stat(filepath.Join(at, "file")); err != nil {
		t.Errorf("not remounted: %v", err)
	}
}

func TestRules(t *testing.T) {
	both(t, func(t *testing.T, start func(testing.TB, Config) *Plugin) {
		p := start(t, Config{Rules: []Rule{{Method: "Create", Skip: 1, Times: 1, Do: DoAnswer, Status: 500, Body: `{"Err":"full"}`}}})
		must(t, p, "Create", "a", "")
		fails(t, p, "Create", "b", "")
		must(t, p, "Create", "c", "")
		if states := p.States(); len(states) != 2 {
			t.Errorf("the refused call had an effect: %v", states)
		}
		p.Add(Rule{Method: "Mount", Volume: "a", At: After, Do: DoDrop})
		if _, _, err := call(t, p, "Mount", "a", "1"); !errors.Is(err, io.EOF) {
			t.Errorf("dropped call: %v", err)
		}
		must(t, p, "Mount", "c", "1")
		if !p.States()["a"].Mounted {
			t.Error("a call dropped afterwards had no effect")
		}
		p.Clear()
		p.Add(Rule{Method: "Unmount", Do: DoCut, Body: `{"Err":"a long story"}`})
		var syntax *json.SyntaxError
		if _, _, err := call(t, p, "Unmount", "a", "1"); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &syntax) {
			t.Errorf("cut call: %v", err)
		}
		if calls := p.Calls("Mount"); len(calls) != 2 || calls[0].Status != 0 || calls[1].Status != 200 || calls[0].ID != "1" {
			t.Errorf("log: %+v", calls)
		}
	})
}

func TestHold(t *testing.T) {
	both(t, func(t *testing.T, start func(testing.TB, Config) *Plugin) {
		p := start(t, Config{})
		must(t, p, "Create", "v", "")
		p.Add(Rule{Method: "Mount", Times: 1, Do: DoHold})
		answered := make(chan error, 1)
		go func() {
			_, _, err := call(t, p, "Mount", "v", "1")
			answered <- err
		}()
		p.AwaitHeld(1)
		if p.States()["v"].Mounted {
			t.Error("held too late")
		}
		must(t, p, "Mount", "v", "2")
		p.Release()
		if err := <-answered; err != nil {
			t.Error(err)
		}
		p.Add(Rule{Method: "Unmount", At: After, Do: DoHold})
		go func() {
			_, _, err := call(t, p, "Unmount", "v", "1")
			answered <- err
		}()
		p.AwaitHeld(1)
		if ids := p.States()["v"].IDs; !slices.Equal(ids, []string{"2"}) {
			t.Errorf("held too early: %v", ids)
		}
		p.Kill()
		if err := <-answered; err == nil {
			t.Error("a killed plugin answered")
		}
	})
}

func TestExitAndFreeze(t *testing.T) {
	p := StartProcess(t, Config{})
	must(t, p, "Create", "v", "")
	p.Freeze()
	answered := make(chan error, 1)
	go func() {
		_, _, err := call(t, p, "Mount", "v", "1")
		answered <- err
	}()
	p.Thaw()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	p.Add(Rule{Method: "Unmount", At: After, Do: DoExit})
	fails(t, p, "Unmount", "v", "1")
	fails(t, p, "Get", "v", "") // refused, reset or cut off: the process may be about to end still
	p.Restart()
	if p.States()["v"].Mounted {
		t.Error("the effect before the exit is lost")
	}
}

func TestLackingMethod(t *testing.T) {
	p := Start(t, Config{Lacks: []string{"Get"}})
	if _, _, err := call(t, p, "Get", "v", ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}
