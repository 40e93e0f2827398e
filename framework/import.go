package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/takeover"
)

func importCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "take apps over from a Marathon, one by one, without a volume ever mounted twice",
		ArgsUsage: "[APP...]",
		Description: "Without --yes it only reports what differs here. With --yes each app is suspended at Marathon, and once its\n" +
			"tasks have ended it starts here, its volumes on the agent that had them. An interrupted take-over goes on where it\n" +
			"was when the same command is given again; --revert gives apps back. Apps default to all.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "`URL` of the Marathon (http://user:pass@host:8080), or a FILE with the answer of its /v2/apps or /v2/groups"},
			&cli.StringFlag{Name: "url", Value: "http://127.0.0.1:8080", Usage: "`URL` of this framework's API", EnvVars: []string{"DVDI_URL"}},
			&cli.StringFlag{Name: "ca", Usage: "`FILE` with the certificates to trust instead of the system's, for both", EnvVars: []string{"DVDI_CA"}},
			&cli.StringFlag{Name: "journal", Value: "dvdi-import.json", Usage: "`FILE` that remembers how far each app is"},
			&cli.BoolFlag{Name: "revert", Usage: "give the apps back to Marathon"},
			&cli.BoolFlag{Name: "adopt", Usage: "take over apps with Mesos persistent volumes, too, with their reservations"},
			&cli.BoolFlag{Name: "stopped", Usage: "with a FILE: the exported apps run nowhere any more"},
			&cli.BoolFlag{Name: "unmounted", Usage: "the exclusive volumes of apps that have no task at the moment are mounted nowhere"},
			&cli.DurationFlag{Name: "timeout", Value: 10 * time.Minute, Usage: "longest `TIME` to wait for an app's tasks to end or to run"},
			&cli.DurationFlag{Name: "unmount-wait", Value: time.Minute, Usage: "with --revert: longest `TIME` to wait for volumes to be seen unmounted"},
			&cli.BoolFlag{Name: confirmFlag, Usage: "do it; without this flag it is only reported"},
		},
		Action: importApps,
	}
}

func importApps(c *cli.Context) error {
	cfg, err := takeoverConfig(c)
	if err != nil {
		return &config.Error{Err: err}
	}
	defer cfg.To.Close()
	if cfg.From != nil {
		defer cfg.From.Close()
	}
	if cfg.Adopt && cfg.From != nil {
		if err := takeover.CheckAdoption(c.Context, cfg.From, cfg.To); err != nil {
			return err
		}
	}
	if cfg.Options, err = targetOptions(c.Context, c.String("url"), c.String("ca")); err != nil {
		return err
	}
	t := takeover.New(cfg)
	reports, others, err := t.Report(c.Context)
	if err != nil {
		return err
	}
	reports, err = chosen(reports, c.Args().Slice())
	if err != nil {
		return &config.Error{Err: err}
	}
	if !c.Bool(confirmFlag) {
		return printReport(c.App.Writer, reports, others)
	}
	return eachApp(c, t, reports)
}

// eachApp takes over or gives back app by app. One that fails does not stop the
// others.
func eachApp(c *cli.Context, t *takeover.Takeover, reports []takeover.AppReport) error {
	var errs []error
	for _, r := range reports {
		if c.Context.Err() != nil {
			errs = append(errs, fmt.Errorf("interrupted before %s; the same command goes on", r.ID))
			break
		}
		switch {
		case c.Bool("revert"):
			if r.Phase != "planned" {
				errs = append(errs, t.Return(c.Context, r.ID))
			}
		case r.Refused():
			fmt.Fprintf(c.App.Writer, "%s: left out: %s\n", r.ID, r.Findings[slices.IndexFunc(r.Findings, func(f takeover.Finding) bool { return f.Refused })].Text)
		default:
			errs = append(errs, t.Take(c.Context, r.ID))
		}
	}
	return errors.Join(errs...)
}

func takeoverConfig(c *cli.Context) (takeover.Config, error) {
	out := c.App.Writer
	cfg := takeover.Config{
		Stopped: c.Bool("stopped"), Unmounted: c.Bool("unmounted"), Adopt: c.Bool("adopt"), Timeout: c.Duration("timeout"), UnmountWait: c.Duration("unmount-wait"),
		Say: func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) },
	}
	var err error
	if cfg.To, err = takeover.NewAPI(c.String("url"), c.String("ca")); err != nil {
		return cfg, fmt.Errorf("--url, --ca: %w", err)
	}
	from := c.String("from")
	if from == "" {
		return cfg, errors.New("--from: say which Marathon, or which file, to take over")
	}
	if strings.Contains(from, "://") {
		if cfg.From, err = takeover.NewAPI(from, c.String("ca")); err != nil {
			return cfg, fmt.Errorf("--from, --ca: %w", err)
		}
		from = cfg.From.URL()
	} else {
		// What is no file may be a URL that lacks its scheme, password and all.
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) && strings.Contains(from, "@") {
			return cfg, errors.New("--from: it is neither a URL of the form http://user:pass@host:port nor a file that exists")
		}
		if cfg.Export, err = takeover.ReadExport(from); err != nil {
			return cfg, fmt.Errorf("--from: %w", err)
		}
		if from, err = filepath.Abs(from); err != nil {
			return cfg, err
		}
	}
	cfg.Journal, err = takeover.OpenJournal(c.String("journal"), from, cfg.To.URL())
	return cfg, err
}

// targetOptions asks the framework how it reads definitions.
func targetOptions(ctx context.Context, target, ca string) (app.Options, error) {
	api, err := client.New(client.Config{URL: target, CA: ca})
	if err != nil {
		return app.Options{}, &config.Error{Err: err}
	}
	defer api.Close()
	info, err := api.Info(ctx)
	if err != nil {
		return app.Options{}, err
	}
	features := info.Features()
	return app.Options{
		Role: info.Setting("mesos_role"), GroupRole: info.Setting("new_group_enforce_role") == "top",
		DefaultNetwork:    info.Setting("default_network_name"),
		NoExternalVolumes: !slices.Contains(features, "external_volumes"),
		Secrets:           slices.Contains(features, "secrets"), GPUs: slices.Contains(features, "gpu_resources"),
	}, nil
}

// chosen are the reports of the named apps, all if none is named.
func chosen(reports []takeover.AppReport, ids []string) ([]takeover.AppReport, error) {
	if len(ids) == 0 {
		return reports, nil
	}
	var out []takeover.AppReport
	for _, id := range ids {
		if strings.HasPrefix(id, "-") {
			return nil, fmt.Errorf("%s stands after an app: flags come first", id)
		}
		id = "/" + strings.TrimPrefix(id, "/")
		i := slices.IndexFunc(reports, func(r takeover.AppReport) bool { return r.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("there is no app %s to take over", id)
		}
		out = append(out, reports[i])
	}
	return out, nil
}

func printReport(out io.Writer, reports []takeover.AppReport, others []takeover.Finding) error {
	for _, r := range reports {
		verdict := "can be taken over"
		switch {
		case r.Phase != "planned":
			verdict = "is " + r.Phase
		case r.Refused():
			verdict = "cannot be taken over as it is"
		}
		fmt.Fprintf(out, "%s (%d instances): %s\n", r.ID, r.Instances, verdict)
		for _, v := range r.Volumes {
			fmt.Fprintf(out, "  exclusive volume %s of driver %s\n", v.Name, v.Driver)
		}
		for _, f := range r.Findings {
			fmt.Fprintf(out, "  %s\n", f.Text)
		}
	}
	for _, f := range others {
		fmt.Fprintf(out, "%s: %s\n", f.App, f.Text)
	}
	_, err := fmt.Fprintf(out, "Repeat with --%s to take over what can be.\n", confirmFlag)
	return err
}
