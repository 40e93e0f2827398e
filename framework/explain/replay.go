package explain

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// ErrDiffers means that decisions were other ones when they were made again, or
// could not be read; which has been printed.
var ErrDiffers = errors.New("not all decisions are the same when made again")

// replayed is what is told of one decision.
type replayed struct {
	Line     int       `json:"line"`
	At       time.Time `json:"at,omitzero"`
	Same     bool      `json:"same"`
	Error    string    `json:"error,omitempty"`
	Offers   int       `json:"offers"`
	Pending  int       `json:"pending"`
	Launched int       `json:"launched"`
	Kills    int       `json:"kills"`
	Waiting  int       `json:"waiting"`
	// On is where an instance that was asked for is launched, and Why; Waits
	// what it waits for.
	On    string             `json:"on,omitempty"`
	Why   string             `json:"why,omitempty"`
	Waits *scheduler.Waiting `json:"waits,omitempty"`
	// Recorded and Now are the plans where they differ.
	Recorded *scheduler.Plan `json:"recorded,omitempty"`
	Now      *scheduler.Plan `json:"now,omitempty"`
}

func replay(c *cli.Context) error {
	name, err := argument(c)
	if err != nil {
		return err
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	in := c.App.Reader
	if name != "-" {
		f, err := inputfile.Open(name)
		if err != nil {
			return usage("replay: %v", err)
		}
		defer f.Close()
		in = f
	} else if in == nil {
		in = os.Stdin
	}
	return replayAll(c, in, asJSON)
}

// replayAll makes every decision of a log again and prints what came of it. A log
// without any is a mistake in the arguments: that all of none are the same would
// have a wrong file pass for a good one.
func replayAll(c *cli.Context, in io.Reader, asJSON bool) error {
	reader := bufio.NewReader(in) // lines have no bound: a Scanner would have one
	out := bufio.NewWriter(c.App.Writer)
	same, total := 0, 0
	for n := 1; ; n++ {
		if err := c.Context.Err(); err != nil {
			return err
		}
		line, err := reader.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			r := replayLine(n, line, c.String("instance"))
			total++
			if r.Same {
				same++
			}
			if err := r.print(out, asJSON); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read decisions: %w", err)
		}
	}
	if total == 0 {
		return usage("replay: there are no decisions in it; name a file that a framework with --decision_log FILE has written")
	}
	if !asJSON {
		if err := printf(out, "%d of %d decisions are the same\n", same, total); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if same != total {
		return ErrDiffers
	}
	return nil
}

func replayLine(n int, line []byte, instance string) replayed {
	out := replayed{Line: n}
	r, err := scheduler.DecodeRecord(line)
	if err != nil && !errors.Is(err, scheduler.ErrNoPlan) {
		out.Error = err.Error()
		return out
	}
	s := &r.Snapshot
	out.At, out.Offers, out.Pending = s.Now, len(s.Offers), len(s.Pending)
	plan, same, replayErr := r.Replay()
	if replayErr != nil {
		out.Error = replayErr.Error()
		return out
	}
	// A snapshot alone has no plan that could differ.
	out.Same = same || errors.Is(err, scheduler.ErrNoPlan)
	if !out.Same {
		out.Recorded, out.Now = &r.Plan, &plan
	}
	out.summarise(&plan, instance)
	return out
}

func (r *replayed) summarise(p *scheduler.Plan, instance string) {
	r.Kills, r.Waiting = len(p.Kills), len(p.Waiting)
	for _, a := range p.Accepts {
		for _, op := range a.Operations {
			if op.Kind != scheduler.OpLaunch {
				continue
			}
			r.Launched++
			if op.InstanceID == instance {
				r.On, r.Why = a.Hostname, op.Launch.Why
			}
		}
	}
	for i := range p.Waiting {
		if p.Waiting[i].InstanceID == instance {
			r.Waits = &p.Waiting[i]
		}
	}
}

func (r *replayed) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	if r.Error != "" {
		return printf(w, "line %d: %s\n", r.Line, r.Error)
	}
	verdict := "same"
	if !r.Same {
		verdict = "DIFFERS"
	}
	errs := []error{printf(w, "line %d: %s: %s, %d offers, %d pending: %d launched, %d killed, %d waiting\n",
		r.Line, r.At.Format(time.RFC3339), verdict, r.Offers, r.Pending, r.Launched, r.Kills, r.Waiting)}
	if r.On != "" {
		errs = append(errs, printf(w, "  on %s: %s\n", r.On, r.Why))
	}
	if r.Waits != nil {
		errs = append(errs, printf(w, "  waits: %s\n", r.Waits.Text))
	}
	if r.Now != nil {
		errs = append(errs, printPlan(w, "recorded", r.Recorded), printPlan(w, "now", r.Now))
	}
	return errors.Join(errs...)
}

func printPlan(w io.Writer, what string, p *scheduler.Plan) error {
	b, err := scheduler.EncodePlan(*p)
	if err != nil {
		return err
	}
	return printf(w, "  %s: %s\n", what, b)
}
