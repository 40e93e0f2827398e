package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/dvdcli/doctor"
	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// adminCommands are for people.
func adminCommands() []definition {
	const short = 10 * time.Second
	return []definition{
		{name: "drivers", usage: "list drivers: where found, reachable, scope, version", action: drivers,
			flags: func() []cli.Flag { return flagsForCalls(short) }},
		{name: "status", usage: "list mounted volumes: since when, for whom, what is owed and unsettled", action: status, flags: flagsEverywhere},
		{name: "doctor", usage: "look for what could keep volumes from being mounted or seen", action: examine,
			flags: func() []cli.Flag { return flagsForCalls(short) }},
		{name: "ledger", usage: "look into the records of what is mounted, and repair them", below: ledgerCommands()},
	}
}

func ledgerCommands() []definition {
	return []definition{
		{name: "list", usage: "list the records", action: ledgerList, flags: flagsEverywhere},
		{name: "show", usage: "print a volume's record", action: ledgerShow,
			flags: func() []cli.Flag { return flagsForVolume(otherDeadline) }},
		{name: "verify", usage: "compare the records with what is mounted; exit 9 if they differ", action: ledgerVerify,
			flags: func() []cli.Flag { return flagsForCalls(otherDeadline) }},
		{name: "repair", usage: "settle calls without an answer and do owed unmounts", action: ledgerRepair, flags: func() []cli.Flag {
			return flagsForVolume(unmountDeadline, boolFlag(flagYes, "do not ask"),
				boolFlag(flagNow, "do not wait for times, as after a restart of the driver"))
		}},
		{name: "forget", usage: "delete a volume's record; what is mounted stays mounted", action: ledgerForget,
			flags: func() []cli.Flag { return flagsForVolume(otherDeadline, boolFlag(flagYes, "do not ask")) }},
	}
}

// table lays lines of tab-separated cells out in columns.
func table(lines []string) ([]string, error) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, l := range lines {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return nil, err
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n"), nil
}

func (s *session) resultTable(v any, lines []string) error {
	laid, err := table(lines)
	if err != nil {
		return err
	}
	return s.result(v, laid...)
}

// driverResult is a driver as found and as it answers.
type driverResult struct {
	volume.DriverInfo
	Reachable bool   `json:"reachable"`
	Scope     string `json:"scope,omitempty"`
	Version   string `json:"version,omitempty"`
}

func drivers(s *session) error {
	ctx, cancel := s.context()
	defer cancel()
	found := s.drivers(s.log())
	defer found.Close()
	results, err := probe(ctx, found)
	if err != nil {
		return err
	}
	forbid(results, found, s.String(flagPolicy))
	lines := []string{"DRIVER\tKIND\tREACHABLE\tSCOPE\tVERSION\tSOURCE\tPROBLEM"}
	for _, r := range results {
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", plain(r.Name), r.Kind, yesNo(r.Reachable), dash(r.Scope), dash(r.Version), plain(r.Source), plain(r.Problem)))
	}
	return s.resultTable(results, lines)
}

// forbid says of drivers that work why the policy keeps their volumes from being
// mounted.
func forbid(results []driverResult, found volume.Drivers, file string) {
	policy, unreadable := engine.LoadPolicy(file)
	for i := range results {
		r := &results[i]
		err := unreadable
		if err == nil {
			err = policy.AllowsDriver(found, r.Name)
		}
		if err != nil && r.Problem == "" {
			r.Problem = err.Error()
		}
	}
}

// probe asks every driver for its capabilities, all at once.
func probe(ctx context.Context, found volume.Drivers) ([]driverResult, error) {
	infos, err := found.List(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]driverResult, len(infos))
	var wg sync.WaitGroup
	for i, info := range infos {
		results[i].DriverInfo = info
		if info.Problem != "" {
			continue
		}
		wg.Go(func() {
			d, err := found.Open(ctx, info.Name)
			if err == nil {
				var caps volume.Capabilities
				if caps, err = d.Capabilities(ctx); err == nil {
					results[i].Reachable, results[i].Scope, results[i].Version = true, string(caps.Scope), caps.Version
				}
			}
			if err != nil {
				results[i].Problem = err.Error()
			}
		})
	}
	wg.Wait()
	return results, nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}

// plain keeps control characters in names from reaching a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}

// recordResult is a record as status and ledger show it.
type recordResult struct {
	File   string         `json:"file"`
	State  string         `json:"state"`
	Record *ledger.Record `json:"record,omitempty"`
}

func recordsOf(led *ledger.Ledger) ([]recordResult, error) {
	items, err := led.List()
	if err != nil {
		return nil, err
	}
	out := []recordResult{}
	for _, i := range items {
		out = append(out, recordResult{File: i.File, State: stateOf(i, led.BootID()), Record: shownRecord(i.Record)})
	}
	return out, nil
}

// shownRecord is a record without secrets: those of other programs' versions, and
// of drivers that put some into their contexts.
func shownRecord(r *ledger.Record) *ledger.Record {
	if r == nil {
		return nil
	}
	out := r.Clone()
	out.LastError = volume.Secrets(nil).Redact(r.LastError)
	out.Options, out.Context, out.PublishContext = volume.RedactOptions(r.Options), volume.RedactOptions(r.Context), volume.RedactOptions(r.PublishContext)
	return out
}

func stateOf(i ledger.Listed, boot string) string {
	switch {
	case i.Record == nil:
		return "unreadable: " + i.Err.Error()
	case i.Hint && i.Record.BootID == boot:
		return "copy only" // the run directory lost it; the next mount writes it anew
	case i.Hint:
		return "earlier boot"
	case i.Record.Call != nil:
		return "unsettled " + string(i.Record.Call.Op)
	}
	return string(i.Record.Phase)
}

func status(s *session) error {
	led, err := s.openLedger()
	if err != nil {
		return err
	}
	records, err := recordsOf(led)
	if err != nil {
		return err
	}
	lines := []string{"DRIVER\tVOLUME\tSTATE\tSINCE\tHELD BY\tPATH\tLAST ERROR"}
	for _, r := range records {
		if r.Record == nil {
			lines = append(lines, fmt.Sprintf("-\t-\t%s\t-\t-\t%s\t", plain(r.State), plain(r.File)))
			continue
		}
		var by []string
		for _, h := range r.Record.Holders {
			by = append(by, h.Name)
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", plain(r.Record.Driver), plain(r.Record.Volume), r.State,
			since(r.Record), dash(strings.Join(by, ",")), dash(r.Record.Path), plain(r.Record.LastError)))
	}
	return s.resultTable(records, lines)
}

func since(r *ledger.Record) string {
	at := r.Since
	if r.Call != nil {
		at = r.Call.Started
	}
	if at.IsZero() {
		return "-"
	}
	return at.Local().Format(time.DateTime)
}

func ledgerList(s *session) error {
	led, err := s.openLedger()
	if err != nil {
		return err
	}
	records, err := recordsOf(led)
	if err != nil {
		return err
	}
	kept, err := led.Kept()
	if err != nil {
		return err
	}
	lines := []string{"DRIVER\tVOLUME\tSTATE\tMOUNT ID\tFILE"}
	for _, r := range records {
		driver, vol, id := "-", "-", "-"
		if r.Record != nil {
			driver, vol, id = r.Record.Driver, r.Record.Volume, dash(r.Record.MountID)
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%.12s\t%s", plain(driver), plain(vol), plain(r.State), id, plain(r.File)))
	}
	for _, k := range kept {
		lines = append(lines, "-\t-\tset aside\t-\t"+plain(k))
	}
	return s.resultTable(map[string]any{"records": records, "setAside": kept}, lines)
}

func ledgerShow(s *session) error {
	led, err := s.openLedger()
	if err != nil {
		return err
	}
	found := s.drivers(s.log())
	defer found.Close()
	key := ledger.Key{Driver: found.Canonical(s.String(flagDriver)), Volume: s.String(flagName)}
	records, err := recordsOf(led)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Record != nil && r.Record.Key() == key {
			s.json = true // a record is shown as it stands, in both formats
			return s.result(r)
		}
	}
	return &volume.Error{Kind: volume.NotMounted, Op: "ledger show", Driver: key.Driver, Volume: key.Volume,
		Message: "the ledger in " + led.RunDir() + " has no record of it"}
}

func ledgerVerify(s *session) error {
	findings, err := s.reconcile(engine.ReconcileRequest{DryRun: true})
	if err != nil {
		return err
	}
	if err := s.showFindings(findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Problem != "" || f.Action != "" {
			return errFindings
		}
	}
	return nil
}

func (s *session) reconcile(req engine.ReconcileRequest) ([]engine.Finding, error) {
	var findings []engine.Finding
	err := s.changing(func(ctx context.Context, e *engine.Engine) (err error) {
		findings, err = e.Reconcile(ctx, req)
		return err
	})
	return findings, err
}

func (s *session) showFindings(findings []engine.Finding) error {
	lines := []string{"DRIVER\tVOLUME\tFOUND\tACTION\tPROBLEM"}
	for _, f := range findings {
		vol := f.Volume
		if f.File != "" {
			vol = f.File
		}
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", dash(f.Driver), dash(vol), plain(f.State), dash(f.Action), plain(f.Problem)))
	}
	if findings == nil {
		findings = []engine.Finding{}
	}
	return s.resultTable(findings, lines)
}

func ledgerRepair(s *session) error {
	req := engine.ReconcileRequest{Now: s.Bool(flagNow)}
	if s.String(flagName) != "" || s.String(flagDriver) != "" {
		req.Only = &ledger.Key{Driver: s.String(flagDriver), Volume: s.String(flagName)}
	}
	if !s.Bool(flagYes) {
		dry := req
		dry.DryRun = true
		findings, err := s.reconcile(dry)
		if err != nil {
			return err
		}
		if err := s.showFindings(findings); err != nil {
			return err
		}
		if err := s.confirm("do this?"); err != nil {
			return err
		}
	}
	findings, err := s.reconcile(req)
	if err != nil {
		return err
	}
	if err := s.showFindings(findings); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Problem != "" {
			return errFindings
		}
	}
	return nil
}

func ledgerForget(s *session) error {
	key := ledger.Key{Driver: s.String(flagDriver), Volume: s.String(flagName)}
	if !s.Bool(flagYes) {
		if err := s.confirm(fmt.Sprintf("forget what is known about volume %q of driver %q? What is mounted stays mounted.", key.Volume, key.Driver)); err != nil {
			return err
		}
	}
	err := s.changing(func(ctx context.Context, e *engine.Engine) error { return e.Forget(ctx, key) })
	if err != nil {
		return err
	}
	return s.result(map[string]string{"driver": key.Driver, "volume": key.Volume})
}

// confirm asks on stderr and reads the answer from stdin.
func (s *session) confirm(question string) error {
	if _, err := fmt.Fprintf(s.stderr, "dvdcli: %s [y/N] ", question); err != nil {
		return err
	}
	line, err := bufio.NewReader(s.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("not confirmed, nothing was done; give --%s in scripts", flagYes)
}

// leftovers are what crashes and damages left in the ledger's directories.
func (s *session) leftovers() (aside, temporary []string, err error) {
	led, err := s.openLedger()
	if err != nil {
		return nil, nil, err
	}
	if aside, err = led.Kept(); err != nil {
		return nil, nil, err
	}
	temporary, err = led.Leftovers()
	return aside, temporary, err
}

func examine(s *session) error {
	ctx, cancel := s.context()
	defer cancel()
	dirs := s.dirs()
	found := s.drivers(s.log())
	defer found.Close()
	in := doctor.Input{
		RunDir: dirs.Run, StateDir: dirs.State, HostDir: dirs.Host, PluginDirs: found.Places(),
		Mounts: hostmount.New(), Drivers: found, Root: "/", Leftovers: s.leftovers,
		Policy:    func() (*engine.Policy, error) { return engine.LoadPolicy(s.String(flagPolicy)) },
		Reconcile: func() ([]engine.Finding, error) { return s.reconcile(engine.ReconcileRequest{DryRun: true}) },
	}
	findings := doctor.Examine(ctx, in)
	lines := []string{"LEVEL\tWHAT\tFINDING\tREMEDY"}
	bad := false
	for _, f := range findings {
		bad = bad || f.Level == doctor.Problem
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\t%s", f.Level, f.What, plain(f.Finding), plain(f.Remedy)))
	}
	if err := s.resultTable(findings, lines); err != nil {
		return err
	}
	if bad {
		return errFindings
	}
	return nil
}
