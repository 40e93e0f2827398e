package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/election"
	"github.com/mesos-dvdi/dvdi/framework/mesos"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// confirmFlag has a command do what it otherwise only shows.
const confirmFlag = "yes"

// maintenanceCommands are the subcommands for the framework as a whole. Those
// that work on the state itself, all but backup, need the framework to be stopped.
func maintenanceCommands() []*cli.Command {
	return []*cli.Command{
		{Name: "backup", Usage: "write the framework's state to a file (\"-\": standard output)", ArgsUsage: "FILE",
			Description: "With --url a framework that runs is asked for it. With --zk the frameworks may run; with a state in\n" +
				"--data-dir, and no --url, the framework must be stopped. A file appears only when the backup is whole.",
			Flags: append(config.StateFlags(),
				&cli.StringFlag{Name: "url", Usage: "`URL` of the API of a framework that runs (http://user:pass@host:8080)"},
				&cli.StringFlag{Name: "ca", Usage: "with --url: `FILE` with the certificates to trust instead of the system's"}),
			Action: backupState},
		{Name: "restore", Usage: "replace the framework's state by a backup", ArgsUsage: "FILE",
			Description: "The frameworks must be stopped. Without --yes it says what it would do, and fails where it would then.\n" +
				"What is known of volumes that the backup does not know is kept, and\n" +
				"after the start nothing is launched on volumes before unknown tasks have had time to show up.",
			Flags: config.StateFlags(), Action: restoreState},
		{Name: "teardown", Usage: "remove the framework from Mesos, which kills all its tasks; apps and volumes are kept",
			Description: "The frameworks must be stopped. The apps start again with the next start of the framework.",
			Flags: append(config.Flags(), &cli.BoolFlag{Name: "delete-state",
				Usage: "also forget all apps and who has which volume; what is in the volumes stays"}),
			Action: teardown},
		importCommand(),
	}
}

// stateConfig reads the flags that say where the state is, and opens the log.
func stateConfig(c *cli.Context) (*config.Config, *zap.Logger, error) {
	cfg, err := config.StateFromCLI(c)
	if err != nil {
		return nil, nil, err
	}
	log, err := newLogger(cfg, c.App.ErrWriter)
	return cfg, log, err
}

// withState opens the state for this process alone, and closes it after do.
func withState(ctx context.Context, cfg *config.Config, log *zap.Logger, do func(st store.Store) error) (err error) {
	if cfg.ZooKeeper == "" {
		st, err := store.OpenBolt(cfg.DataDir)
		if err != nil {
			return err
		}
		return errors.Join(do(st), st.Close())
	}
	return withSession(ctx, cfg, log, func(session *zookeeper.Session, sessions zookeeper.Config, root string) error {
		if err := noneRuns(session, root); err != nil {
			return err
		}
		return withStateOf(session, sessions, root, do)
	})
}

// withStateIfAny is withState, but where there is no state none is made, and do is
// not called.
func withStateIfAny(ctx context.Context, cfg *config.Config, log *zap.Logger, do func(st store.Store) error) error {
	if cfg.ZooKeeper == "" {
		if !store.HasBolt(cfg.DataDir) {
			return nil
		}
		return withState(ctx, cfg, log, do)
	}
	return withSession(ctx, cfg, log, func(session *zookeeper.Session, sessions zookeeper.Config, root string) error {
		if err := noneRuns(session, root); err != nil {
			return err
		}
		found, err := store.HasZooKeeper(session, sessions.Ensemble, statePath(root))
		if err != nil || !found {
			return err
		}
		return withStateOf(session, sessions, root, do)
	})
}

// noneRuns fails while a framework runs that shares the state.
func noneRuns(session *zookeeper.Session, root string) error {
	members, err := election.Members(session, path.Join(root, "election"))
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return fmt.Errorf("a framework runs at %s and may lead; stop all frameworks first "+
			"(one that was killed is gone after its session's time-out)", members[0].URL)
	}
	return nil
}

func withStateOf(session *zookeeper.Session, sessions zookeeper.Config, root string, do func(st store.Store) error) error {
	st, err := openZooKeeper(session, sessions.Ensemble, root, "maintenance")
	if err != nil {
		return err
	}
	return errors.Join(do(st), st.Close())
}

func withSession(ctx context.Context, cfg *config.Config, log *zap.Logger, do func(*zookeeper.Session, zookeeper.Config, string) error) error {
	sessions, root, err := zkConfig(cfg)
	if err != nil {
		return err
	}
	session, err := zookeeper.Connect(ctx, sessions, log.Named("zookeeper"))
	if err != nil {
		return err
	}
	defer session.Close()
	return do(session, sessions, root)
}

// oneFile returns the only argument of a command.
func oneFile(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", &config.Error{Err: fmt.Errorf("usage: dvdi-framework %s [flags] FILE", c.Command.Name)}
	}
	return c.Args().First(), nil
}

func backupState(c *cli.Context) error {
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	records, err := recordsToBackUp(c)
	if err != nil {
		return err
	}
	write := func(w io.Writer) error { return store.WriteBackup(w, records, time.Now()) }
	if file == "-" {
		return write(c.App.Writer)
	}
	if err := writeWhole(file, write); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%d records written to %s\n", len(records), file)
	return err
}

// recordsToBackUp gets all records from where the flags say.
func recordsToBackUp(c *cli.Context) ([]store.Write, error) {
	if url := c.String("url"); url != "" {
		return askForState(c.Context, url, c.String("ca"))
	}
	cfg, log, err := stateConfig(c)
	if err != nil {
		return nil, err
	}
	return readState(c.Context, cfg, log)
}

// askForState gets all records from a framework that runs.
func askForState(ctx context.Context, url, ca string) ([]store.Write, error) {
	api, err := client.New(client.Config{URL: url, CA: ca})
	if err != nil {
		return nil, &config.Error{Err: fmt.Errorf("--url, --ca: %w", err)}
	}
	defer api.Close()
	var backup bytes.Buffer
	if err := api.Backup(ctx, &backup); err != nil {
		return nil, err
	}
	records, _, err := store.ReadBackup(&backup)
	if err != nil {
		err = &store.Error{Op: "read", Path: api.URL(), Err: err, Remedy: "try again"}
	}
	return records, err
}

// readState reads all records; with ZooKeeper it leaves those who lead alone.
func readState(ctx context.Context, cfg *config.Config, log *zap.Logger) (records []store.Write, err error) {
	if cfg.ZooKeeper == "" {
		err = withState(ctx, cfg, log, func(st store.Store) error {
			records, err = store.Records(st)
			return err
		})
		return records, err
	}
	err = withSession(ctx, cfg, log, func(session *zookeeper.Session, sessions zookeeper.Config, root string) error {
		records, err = store.SnapshotZooKeeper(session, sessions.Ensemble, statePath(root))
		return err
	})
	return records, err
}

// writeWhole writes a file that is there wholly or not at all.
func writeWhole(file string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func restoreState(c *cli.Context) error {
	cfg, log, err := stateConfig(c)
	if err != nil {
		return err
	}
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	records, made, err := readBackupFile(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: %d records of %s\n", file, len(records), made.Format(time.RFC3339))
	if !c.Bool(confirmFlag) {
		if err := checkRestore(c.Context, cfg, log, records); err != nil {
			return fmt.Errorf("they cannot replace the state in %s as it is: %w", cfg.StatePlace(), err)
		}
		_, err := fmt.Fprintf(c.App.Writer, "They would replace the state in %s. Repeat with --%s to do it.\n", cfg.StatePlace(), confirmFlag)
		return err
	}
	return withState(c.Context, cfg, log, func(st store.Store) error {
		report, err := core.Restore(st, records, time.Now())
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "restored %d apps with %d instances\n", report.Apps, report.Instances)
		for _, v := range report.Kept {
			fmt.Fprintf(c.App.Writer, "kept what is known of volume %s of driver %s, which the backup does not know\n", v.Name, v.Driver)
		}
		if report.Left != "" {
			fmt.Fprintf(c.App.Writer, "goes on as framework %s; framework %s, which was begun without its state and has no task, "+
				"leaves Mesos when its failover timeout is over, or at once by TEARDOWN\n", report.FrameworkID, report.Left)
		}
		return nil
	})
}

// checkRestore fails where restoring the records would.
func checkRestore(ctx context.Context, cfg *config.Config, log *zap.Logger, records []store.Write) error {
	var before []store.Write
	err := withStateIfAny(ctx, cfg, log, func(st store.Store) (err error) {
		before, err = store.Records(st)
		return err
	})
	if err != nil {
		return err
	}
	return core.CheckRestore(before, records)
}

// readBackupFile reads the backup to restore. Whatever is wrong with that file is a
// wrong argument: the framework's own state is as it was.
func readBackupFile(file string) ([]store.Write, time.Time, error) {
	data, err := inputfile.Read(file)
	if err != nil {
		return nil, time.Time{}, &config.Error{Err: fmt.Errorf("the backup: %w", err)}
	}
	records, made, err := store.ReadBackup(bytes.NewReader(data))
	if err != nil {
		err = &config.Error{Err: fmt.Errorf("restore %s: %w; nothing was changed; use another backup", file, err)}
	}
	return records, made, err
}

// showFates prints what becomes of the instances when the framework's id ends.
func showFates(out io.Writer, st store.Store) (frameworkID string, err error) {
	id, fates, err := core.Fates(st)
	if err != nil {
		return "", err
	}
	if id == "" {
		_, err = fmt.Fprintln(out, "The framework has no id in Mesos.")
		return "", err
	}
	fmt.Fprintf(out, "Framework %s has %d instances:\n", id, len(fates))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range fates {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", f.App, f.Instance, f.Text)
	}
	return id, w.Flush()
}

// newFrameworkID has the framework register anew at its next start, after the
// master has removed it.
func newFrameworkID(ctx context.Context, cfg *config.Config, confirmed bool, out, logs io.Writer) error {
	log, err := newLogger(cfg, logs)
	if err != nil {
		return err
	}
	return withState(ctx, cfg, log, func(st store.Store) error {
		id, err := showFates(out, st)
		if err != nil || id == "" {
			return err
		}
		if !confirmed {
			_, err := fmt.Fprintf(out, "Use this when the master says \"Framework has been removed\". Repeat with --%s to do it.\n", confirmFlag)
			return err
		}
		if err := requireRemoved(ctx, cfg, id, log); err != nil {
			return err
		}
		if err := core.Abandon(st, time.Now()); err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, "Done: the framework registers anew at its next start.")
		return err
	})
}

func teardown(c *cli.Context) error {
	cfg, err := config.FromCLI(c)
	if err != nil {
		return err
	}
	log, err := newLogger(cfg, c.App.ErrWriter)
	if err != nil {
		return err
	}
	return withState(c.Context, cfg, log, func(st store.Store) error {
		id, err := showFates(c.App.Writer, st)
		if err != nil {
			return err
		}
		if !c.Bool(confirmFlag) {
			_, err := fmt.Fprintf(c.App.Writer, "Repeat with --%s to do it.\n", confirmFlag)
			return err
		}
		if id != "" {
			if err := removeFramework(c.Context, cfg, id, log); err != nil {
				return err
			}
		}
		if c.Bool("delete-state") {
			err = core.Clear(st)
		} else {
			err = core.Abandon(st, time.Now())
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, "Done: Mesos has removed the framework.")
		return err
	})
}

// teardownTimeout bounds the wait for a subscription to tear down.
const teardownTimeout = time.Minute

// removeFramework subscribes with the framework's id and tears it down. A master
// that has removed it before is fine.
func removeFramework(ctx context.Context, cfg *config.Config, id string, log *zap.Logger) error {
	if cfg.Master == config.EmbeddedMaster {
		return &config.Error{Err: errors.New("--master: the built-in Mesos ends with its framework; there is nothing to tear down")}
	}
	err := onceSubscribed(ctx, cfg, id, log, (*mesos.Conn).Teardown)
	if err == nil || errors.Is(err, core.ErrFrameworkRemoved) {
		return nil
	}
	return &marked{errMesos, fmt.Errorf("tear down framework %s: %w", id, err)}
}

// requireRemoved asks the master whether it has removed the framework: while it
// has not, the tasks of the old id run on beside those of a new one, on the same
// volumes. The built-in Mesos ends with its framework.
func requireRemoved(ctx context.Context, cfg *config.Config, id string, log *zap.Logger) error {
	if cfg.Master == config.EmbeddedMaster {
		return nil
	}
	err := onceSubscribed(ctx, cfg, id, log, func(*mesos.Conn, context.Context) error { return nil })
	if errors.Is(err, core.ErrFrameworkRemoved) {
		return nil
	}
	if err != nil {
		return &marked{errMesos, fmt.Errorf("ask the Mesos master whether it has removed framework %s: %w; nothing was changed", id, err)}
	}
	return &marked{errMesos, fmt.Errorf("the Mesos master has not removed framework %s, whose tasks would run on beside the new ones; "+
		"nothing was changed. Start the framework as it is, or remove it first: dvdi-framework teardown", id)}
}

// onceSubscribed subscribes with a framework's id, does something, and ends the
// subscription. The error wraps core.ErrFrameworkRemoved where the master says so.
func onceSubscribed(ctx context.Context, cfg *config.Config, id string, log *zap.Logger, do func(*mesos.Conn, context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, teardownTimeout)
	defer cancel()
	found, err := detector(cfg.Master, log)
	if err != nil {
		return &config.Error{Err: fmt.Errorf("--master: %w", err)}
	}
	defer func() { err = errors.Join(err, found.Close()) }()
	settings, err := mesosConfig(cfg, found, nil)
	if err != nil {
		return &config.Error{Err: err}
	}
	settings.AsRegistered = true // it may live on under the name and with the roles that it has
	conn, err := mesos.New(settings, log.Named("mesos"))
	if err != nil {
		return &config.Error{Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- conn.Run(ctx, id) }()
	err = whenSubscribed(ctx, conn, do)
	cancel()
	for range conn.Events() { // closed at the end of Run
	}
	runErr := <-ended
	if err == nil {
		return nil
	}
	return errors.Join(err, runErr)
}

func whenSubscribed(ctx context.Context, conn *mesos.Conn, do func(*mesos.Conn, context.Context) error) error {
	for ev := range conn.Events() {
		if _, ok := ev.(core.Subscribed); ok {
			return do(conn, ctx)
		}
	}
	return errors.New("no subscription; is --master right?")
}
