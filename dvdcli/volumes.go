package main

import (
	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// volumeCommands are those of dvdcli 0.2.
func volumeCommands(t *terminal) []*cli.Command {
	commands := []*cli.Command{
		{
			Name: "create", Usage: "create a volume",
			Flags: flagsForVolume(otherDeadline, optsFlag()), Action: command(t, create),
		}, {
			Name: "remove", Usage: "destroy a volume and its data",
			Flags: flagsForVolume(otherDeadline), Action: command(t, remove),
		}, {
			Name: "mount", Usage: "mount a volume, creating it if need be, and print where",
			Flags: flagsForVolume(mountDeadline, optsFlag(),
				boolFlag(flagExplicit, "do not create a volume that does not exist", "explicitCreate"),
				boolFlag(flagForce, "allow options that endanger the data of an existing volume")),
			Action: command(t, mount),
		}, {
			Name: "unmount", Usage: "unmount a volume; what is not mounted is no error",
			Flags: flagsForVolume(unmountDeadline,
				boolFlag(flagStrict, "fail if it is not mounted or the driver is unknown"),
				boolFlag(flagForce, "unmount it for all who hold it")),
			Action: command(t, unmount),
		}, {
			Name: "path", Usage: "print where a volume is mounted",
			Flags: flagsForVolume(otherDeadline), Action: command(t, path),
		}, {
			Name: "get", Usage: "print the name of a volume if it exists",
			Flags: flagsForVolume(otherDeadline), Action: command(t, get),
		}, {
			Name: "list", Usage: "print the names of a driver's volumes",
			Flags: flagsForCalls(otherDeadline), Action: command(t, list),
		},
	}
	for _, c := range commands {
		c.OnUsageError = usageError
	}
	return commands
}

func mount(c *cli.Context, s *session) error {
	options, err := engine.ParseOptions(c.StringSlice(flagOpts))
	if err != nil {
		return err
	}
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	defer s.spin("mounting " + c.String(flagName))()
	res, err := e.Mount(ctx, engine.MountRequest{
		Driver: c.String(flagDriver), Volume: c.String(flagName), Options: options,
		Explicit: c.Bool(flagExplicit), Force: c.Bool(flagForce), Holder: s.holder(),
	})
	s.notes(res.Notes)
	if err != nil {
		return err
	}
	return s.result(res, res.Path)
}

func unmount(c *cli.Context, s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	defer s.spin("unmounting " + c.String(flagName))()
	res, err := e.Unmount(ctx, engine.UnmountRequest{
		Driver: c.String(flagDriver), Volume: c.String(flagName), Holder: s.holder(),
		Strict: c.Bool(flagStrict), Force: c.Bool(flagForce),
	})
	s.notes(res.Notes)
	if err != nil {
		return err
	}
	return s.result(res)
}

func create(c *cli.Context, s *session) error {
	options, err := engine.ParseOptions(c.StringSlice(flagOpts))
	if err != nil {
		return err
	}
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	req := engine.CreateRequest{Driver: c.String(flagDriver), Volume: c.String(flagName), Options: options}
	if err := e.Create(ctx, req); err != nil {
		return err
	}
	return s.result(map[string]string{"name": req.Volume})
}

func remove(c *cli.Context, s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	req := engine.RemoveRequest{Driver: c.String(flagDriver), Volume: c.String(flagName)}
	if err := e.Remove(ctx, req); err != nil {
		return err
	}
	return s.result(map[string]string{"name": req.Volume})
}

func path(c *cli.Context, s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	p, err := e.Path(ctx, c.String(flagDriver), c.String(flagName))
	if err != nil {
		return err
	}
	return s.result(map[string]string{"path": p}, p)
}

// volumeResult is a volume as --output json shows it.
type volumeResult struct {
	Name       string         `json:"name"`
	Mountpoint string         `json:"mountpoint,omitempty"`
	CreatedAt  string         `json:"createdAt,omitempty"`
	Status     map[string]any `json:"status,omitempty"`
}

func shown(v volume.Volume) volumeResult {
	return volumeResult{Name: v.Name, Mountpoint: v.Mountpoint, CreatedAt: v.CreatedAt, Status: v.Status}
}

func get(c *cli.Context, s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	v, err := e.Get(ctx, c.String(flagDriver), c.String(flagName))
	if err != nil {
		return err
	}
	return s.result(shown(v), v.Name)
}

func list(c *cli.Context, s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	vols, err := e.List(ctx, c.String(flagDriver))
	if err != nil {
		return err
	}
	all, names := []volumeResult{}, []string{}
	for _, v := range vols {
		all = append(all, shown(v))
		names = append(names, v.Name)
	}
	return s.result(all, names...)
}
