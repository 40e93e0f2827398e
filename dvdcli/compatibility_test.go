package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// compatibility is one row of testdata/compatibility.json: a command line as
// Mesos's isolator or the README of dvdcli 0.2 has it, and what it does here.
// In stdout and requests, PATH stands for the plugin's directory of mounts and
// ID for a mount id.
type compatibility struct {
	About    string   `json:"about"`
	Args     []string `json:"args"`
	Stdout   string   `json:"stdout"`
	Stderr   string   `json:"stderr"`
	Exit     int      `json:"exit"`
	Requests []string `json:"requests"`
}

func TestCompatibilityTable(t *testing.T) {
	data, err := os.ReadFile("testdata/compatibility.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []compatibility
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	root := strings.TrimSuffix(p.Mountpoint("v1"), "/v1")
	seen := 0
	for _, row := range rows {
		out := b.run(row.Args...)
		requests := spell(t, p.Requests()[seen:])
		seen = len(p.Requests())
		stdout := strings.ReplaceAll(out.stdout, root+"/", "PATH/")
		for _, name := range []string{"v1", "new"} {
			stdout = strings.ReplaceAll(stdout, p.Mountpoint(name), "PATH/"+name)
		}
		if stdout != row.Stdout || out.code != row.Exit || stderrClass(out.stderr) != row.Stderr || !slices.Equal(requests, row.Requests) {
			t.Errorf("%s:\n got stdout %q, exit %d, stderr %s %q, requests %q\nwant %+v", row.About, stdout, out.code, stderrClass(out.stderr), out.stderr, requests, row)
		}
	}
}

func stderrClass(text string) string {
	switch {
	case text == "":
		return "silent"
	case strings.HasPrefix(text, "dvdcli: note: "):
		return "note"
	}
	return "error"
}

// spell writes requests as the table does.
func spell(t *testing.T, requests []volumetest.Request) []string {
	t.Helper()
	out := []string{}
	for _, r := range requests {
		if r.Method == "Activate" {
			continue
		}
		s := strings.TrimSpace(r.Method + " " + r.Name)
		if r.ID != "" {
			s += " ID"
		}
		if r.Method == "Create" {
			opts, err := json.Marshal(r.Opts)
			if err != nil {
				t.Fatal(err)
			}
			s += " " + string(opts)
		}
		out = append(out, s)
	}
	return out
}

// Each call reaches the plugin with the same mount ID, also for other processes.
func TestMountIDIsStable(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	for range 2 {
		b.must(mountArgs(p, "v")...)
		b.must(unmountArgs(p, "v")...)
	}
	ids := map[string]bool{}
	for _, r := range slices.Concat(p.Calls("Mount"), p.Calls("Unmount")) {
		ids[r.ID] = true
	}
	if len(ids) != 1 || ids[""] {
		t.Errorf("ids %v", ids)
	}
	other := newBox(t, p.PluginDir())
	other.must(mountArgs(p, "v")...)
	if r := p.Calls("Mount"); ids[r[len(r)-1].ID] {
		t.Error("two agents on one host use one id")
	}
}

const crowd = 64

// 64 processes on one volume: one mount, one unmount, and the same path for all.
func TestManyProcessesOneVolume(t *testing.T) {
	for _, counting := range []volumetest.Counting{volumetest.CountCalls, volumetest.CountRefusing} {
		p := volumetest.Start(t, volumetest.Config{Counting: counting})
		b := newBox(t, p.PluginDir())
		outs := b.crowd(func(int) []string { return mountArgs(p, "v") })
		for _, out := range outs {
			if out.code != 0 || out.stdout != p.Mountpoint("v")+"\n" {
				t.Errorf("%+v", out)
			}
		}
		expect(t, p, "v", 1, 0)
		for _, out := range b.crowd(func(int) []string { return unmountArgs(p, "v") }) {
			if out.code != 0 {
				t.Errorf("%+v", out)
			}
		}
		expect(t, p, "v", 1, 1)
		b.noRecords()
	}
}

// crowd runs many processes at once.
func (b *box) crowd(args func(i int) []string) []outcome {
	outs := make([]outcome, crowd)
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() { outs[i] = b.run(args(i)...) })
	}
	wg.Wait()
	return outs
}

// 64 processes mounting and unmounting one volume in no order: never a second
// mount, and every path that is printed is that of the volume.
func TestManyProcessesMixed(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountCalls})
	b := newBox(t, p.PluginDir())
	for i, out := range b.crowd(func(i int) []string {
		if i%2 == 0 {
			return mountArgs(p, "v")
		}
		return unmountArgs(p, "v")
	}) {
		if out.code != 0 || i%2 == 0 && out.stdout != p.Mountpoint("v")+"\n" {
			t.Errorf("%d: %+v", i, out)
		}
	}
	b.must(unmountArgs(p, "v")...)
	s := p.States()["v"]
	if s.Mounted || s.Count != 0 || calls(p, "Mount", "v") != calls(p, "Unmount", "v") {
		t.Errorf("%+v, %d mounts, %d unmounts", s, calls(p, "Mount", "v"), calls(p, "Unmount", "v"))
	}
	b.noRecords()
}

// 64 different volumes do not wait for each other: all their calls are in the
// plugin at the same time.
func TestManyProcessesManyVolumes(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	p.Add(volumetest.Rule{Method: "Mount", Do: volumetest.DoHold})
	var release sync.WaitGroup
	release.Go(func() {
		p.AwaitHeld(crowd)
		p.Clear()
		p.Release()
	})
	defer release.Wait()
	for i, out := range b.crowd(func(i int) []string { return mountArgs(p, fmt.Sprint("v", i)) }) {
		if out.code != 0 || out.stdout != p.Mountpoint(fmt.Sprint("v", i))+"\n" {
			t.Errorf("%d: %+v", i, out)
		}
	}
	if n := len(b.records()); n != crowd {
		t.Errorf("%d records", n)
	}
}

// Two volumes of which one fails: both are unmounted by the isolator, and both
// calls succeed, so that the container's termination does not fail.
func TestIsolatorCleanupAfterFailedMount(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
		{Method: "Mount", Volume: "bad", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"no"}`}}})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "good")...)
	b.fails(exitFailure, mountArgs(p, "bad")...)
	b.must(unmountArgs(p, "good")...)
	b.must(unmountArgs(p, "bad")...)
	expect(t, p, "good", 1, 1)
	expect(t, p, "bad", 1, 0)
	b.noRecords()
}

// The agent's own time-out is 120 s; ours must be over before.
func TestDeadlinesAreBelowMesos(t *testing.T) {
	if mountDeadline >= 120*time.Second || unmountDeadline >= 10*time.Minute {
		t.Error(mountDeadline, unmountDeadline)
	}
}
