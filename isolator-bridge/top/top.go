// Package top shows on a terminal what a bridge knows: volumes, who holds them,
// and the calls that are under way.
package top

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// Config is what the view works with.
type Config struct {
	API      client.IsolatorClient
	Interval time.Duration
	// Once prints one view; so does output that is no terminal.
	Once    bool
	Out, In *os.File
}

// patience bounds one question to the bridge.
const patience = 10 * time.Second

// The control sequences of ECMA-48 that the view needs.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// Run shows the view until ctx ends or the user presses q or Ctrl-C. A bridge
// that does not answer is shown, not an error; with Once it is.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Once || !term.IsTerminal(int(cfg.Out.Fd())) {
		list, err := ask(ctx, cfg.API)
		if err != nil {
			return err
		}
		_, err = cfg.Out.WriteString(Render(list, nil, 0, 0))
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if term.IsTerminal(int(cfg.In.Fd())) {
		state, rawErr := term.MakeRaw(int(cfg.In.Fd()))
		if rawErr != nil {
			return fmt.Errorf("terminal: %w", rawErr)
		}
		defer func() { _ = term.Restore(int(cfg.In.Fd()), state) }()
		// The reader ends with the process: a read of a terminal cannot be ended.
		go keys(cfg.In, cancel)
	}
	if _, err := cfg.Out.WriteString(enterScreen); err != nil {
		return err
	}
	defer func() { _, _ = cfg.Out.WriteString(leaveScreen) }()
	return live(ctx, cfg)
}

func live(ctx context.Context, cfg Config) error {
	ticker := time.NewTicker(max(cfg.Interval, 100*time.Millisecond))
	defer ticker.Stop()
	var last *client.ListVolumesResponse
	for {
		list, err := ask(ctx, cfg.API)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			last = list
		}
		width, height, sizeErr := term.GetSize(int(cfg.Out.Fd()))
		if sizeErr != nil {
			width, height = 80, 24
		}
		if err := draw(cfg.Out, Render(last, err, width, height)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func ask(ctx context.Context, api client.IsolatorClient) (*client.ListVolumesResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return api.ListVolumes(ctx, &client.ListVolumesRequest{})
}

// keys ends the view on q, Escape and Ctrl-C.
func keys(in io.Reader, end func()) {
	one := make([]byte, 1)
	for {
		if n, err := in.Read(one); err != nil || n == 1 && bytes.Contains([]byte{'q', 3, 27}, one) {
			end()
			return
		}
	}
}

// draw paints over the last view, without flicker. In raw mode a line feed does
// not return.
func draw(w io.Writer, text string) error {
	lines := strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", clearLine+"\r\n")
	_, err := io.WriteString(w, home+lines+clearLine+clearRest)
	return err
}

// Render writes a view as text, in lines of at most width and at most height
// lines; 0 means no bound. problem is why it is old, if it is.
func Render(list *client.ListVolumesResponse, problem error, width, height int) string {
	var rows []string
	rows = append(rows, summary(list)...)
	if problem != nil {
		rows = append(rows, "THE BRIDGE DOES NOT ANSWER: "+problem.Error())
	}
	rows = append(rows, "", fmt.Sprintf("%-12s %-28s %-10s %-18s %-24s %s", "DRIVER", "VOLUME", "STATE", "IN FLIGHT", "HOLDERS", "CONTAINERS"))
	volumes := slices.Clone(list.GetVolumes())
	slices.SortStableFunc(volumes, func(a, b *client.VolumeStatus) int {
		if c := urgency(b) - urgency(a); c != 0 {
			return c
		}
		return strings.Compare(a.GetName().GetDriver()+"\x00"+a.GetName().GetName(), b.GetName().GetDriver()+"\x00"+b.GetName().GetName())
	})
	for _, v := range volumes {
		rows = append(rows, row(v)...)
	}
	if height > 0 && len(rows) > height {
		left := len(rows) - height + 1
		rows = append(rows[:height-1], fmt.Sprintf("... %d more lines", left))
	}
	for i, r := range rows {
		rows[i] = fit(r, width)
	}
	return strings.Join(rows, "\n") + "\n"
}

func summary(list *client.ListVolumesResponse) []string {
	count := map[string]int{}
	inFlight, leaked := 0, 0
	for _, v := range list.GetVolumes() {
		count[v.GetPhase()]++
		if v.GetCall() != "" {
			inFlight++
		}
		if v.GetLeakedSince() != nil {
			leaked++
		}
	}
	at := ""
	if t := list.GetTime(); t != nil {
		at = t.AsTime().Local().Format(time.TimeOnly)
	}
	return []string{
		fmt.Sprintf("isolator-bridge %s  %d volumes: %d mounted, %d unmounts owed, %d watched, %d leaked, %d calls in flight", at,
			len(list.GetVolumes()), count["mounted"], count["pending-unmount"], count["watched"], leaked, inFlight),
		"agent: " + list.GetAgent(),
	}
}

// urgency sorts what needs attention to the top.
func urgency(v *client.VolumeStatus) int {
	switch {
	case v.GetProblem() != "":
		return 3
	case v.GetLeakedSince() != nil:
		return 2
	case v.GetCall() != "":
		return 1
	}
	return 0
}

func row(v *client.VolumeStatus) []string {
	state := strings.TrimSuffix(v.GetPhase(), "-unmount")
	if v.GetLeakedSince() != nil {
		state = "leaked"
	}
	call := ""
	if v.GetCall() != "" {
		call = fmt.Sprintf("%s %s", v.GetCall(), v.GetCallAge().AsDuration().Round(time.Second))
	} else if v.GetAttempts() > 0 {
		call = fmt.Sprintf("tried %d times", v.GetAttempts())
	}
	var containers []string
	for _, c := range v.GetContainers() {
		name := c.GetTaskId()
		if name == "" {
			name = c.GetId()
		}
		if !c.GetLive() {
			name += " (gone)"
		}
		containers = append(containers, name)
	}
	out := []string{fmt.Sprintf("%-12s %-28s %-10s %-18s %-24s %s", printable(v.GetName().GetDriver()), printable(v.GetName().GetName()),
		state, call, printable(strings.Join(v.GetHolders(), ",")), printable(strings.Join(containers, ",")))}
	if p := v.GetProblem(); p != "" {
		out = append(out, "    "+printable(p))
	}
	return out
}

// printable keeps names that hold control characters from writing on the
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// fit cuts a line to a width in characters.
func fit(s string, width int) string {
	if r := []rune(s); width > 0 && len(r) > width {
		return string(r[:width])
	}
	return s
}
