package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// volumeCommands are those of dvdcli 0.2.
func volumeCommands() []definition {
	return []definition{
		{name: "create", usage: "create a volume", action: create,
			flags: func() []cli.Flag { return flagsForVolume(otherDeadline, optsFlag()) }},
		{name: "remove", usage: "destroy a volume and its data", action: remove, flags: func() []cli.Flag {
			return flagsForVolume(otherDeadline, boolFlag(flagForce, "destroy it although somebody else on this host seems to use it"))
		}},
		{name: "mount", usage: "mount a volume, creating it if need be, and print where", action: mount, flags: func() []cli.Flag {
			return flagsForVolume(mountDeadline, optsFlag(),
				boolFlag(flagExplicit, "do not create a volume that does not exist", "explicitCreate"),
				boolFlag(flagForce, "allow options that endanger the data of an existing volume"))
		}},
		{name: "unmount", usage: "unmount a volume; what is not mounted is no error", action: unmount, flags: func() []cli.Flag {
			return flagsForVolume(unmountDeadline,
				boolFlag(flagStrict, "fail if it is not mounted or the driver is unknown"),
				boolFlag(flagForce, "unmount it for all who hold it"))
		}},
		{name: "path", usage: "print where a volume is mounted; nothing if it is not", action: path, flags: func() []cli.Flag {
			return flagsForVolume(otherDeadline, boolFlag(flagStrict, "fail if it is not mounted"))
		}},
		{name: "get", usage: "print the name of a volume if it exists", action: get,
			flags: func() []cli.Flag { return flagsForVolume(otherDeadline) }},
		{name: "list", usage: "print the names of a driver's volumes", action: list,
			flags: func() []cli.Flag { return flagsForCalls(otherDeadline) }},
	}
}

func mount(s *session) error {
	options, optionsErr := engine.ParseOptions(s.StringSlice(flagOpts))
	var res engine.MountResult
	err := s.changing(func(ctx context.Context, e *engine.Engine) (err error) {
		defer s.spin("mounting " + s.String(flagName))()
		res, err = e.Mount(ctx, engine.MountRequest{
			Driver: s.String(flagDriver), Volume: s.String(flagName), Options: options, OptionsErr: optionsErr,
			Explicit: s.Bool(flagExplicit), Force: s.Bool(flagForce), Holder: s.holder(),
		})
		return err
	})
	s.notes(res.Notes)
	switch {
	case err == nil:
		return s.result(res, res.Path)
	case optionsErr != nil && !errors.Is(err, optionsErr):
		return errors.Join(optionsErr, err)
	}
	return err
}

func unmount(s *session) error {
	var res engine.UnmountResult
	err := s.changing(func(ctx context.Context, e *engine.Engine) (err error) {
		defer s.spin("unmounting " + s.String(flagName))()
		res, err = e.Unmount(ctx, engine.UnmountRequest{
			Driver: s.String(flagDriver), Volume: s.String(flagName), Holder: s.holder(),
			Strict: s.Bool(flagStrict), Force: s.Bool(flagForce),
		})
		return err
	})
	if s.policyErr != nil {
		s.say("note: %s", s.policyErr)
	}
	s.notes(res.Notes)
	if err != nil {
		return err
	}
	return s.result(res)
}

func create(s *session) error {
	options, err := engine.ParseOptions(s.StringSlice(flagOpts))
	if err != nil {
		return err
	}
	return s.changeVolume(func(ctx context.Context, e *engine.Engine, driver, name string) error {
		return e.Create(ctx, engine.CreateRequest{Driver: driver, Volume: name, Options: options})
	})
}

func remove(s *session) error {
	return s.changeVolume(func(ctx context.Context, e *engine.Engine, driver, name string) error {
		return e.Remove(ctx, engine.RemoveRequest{Driver: driver, Volume: name, Force: s.Bool(flagForce)})
	})
}

// changeVolume does something of which there is nothing to tell but that it was
// done.
func (s *session) changeVolume(do func(ctx context.Context, e *engine.Engine, driver, name string) error) error {
	name := s.String(flagName)
	err := s.changing(func(ctx context.Context, e *engine.Engine) error { return do(ctx, e, s.String(flagDriver), name) })
	if err != nil {
		return err
	}
	return s.result(map[string]string{"name": name})
}

// path prints nothing for a volume that exists and is not mounted, which is no
// error unless the caller is strict, as with dvdcli 0.2.
func path(s *session) error {
	return s.withEngine(func(ctx context.Context, e *engine.Engine) error {
		p, err := e.Path(ctx, s.String(flagDriver), s.String(flagName))
		if errors.Is(err, volume.NotMounted) && !s.Bool(flagStrict) {
			s.notes([]string{"it is not mounted"})
			return s.result(map[string]string{"path": ""})
		}
		if err != nil {
			return err
		}
		return s.result(map[string]string{"path": p}, p)
	})
}

// volumeResult is a volume as --output json shows it.
type volumeResult struct {
	Name       string         `json:"name"`
	Mountpoint string         `json:"mountpoint,omitempty"`
	CreatedAt  string         `json:"createdAt,omitempty"`
	Status     map[string]any `json:"status,omitempty"`
}

func shown(v volume.Volume) volumeResult {
	status, _ := volume.Secrets(nil).RedactJSON(v.Status).(map[string]any) // plugins show the options here
	return volumeResult{Name: v.Name, Mountpoint: v.Mountpoint, CreatedAt: v.CreatedAt, Status: status}
}

func get(s *session) error {
	return s.withEngine(func(ctx context.Context, e *engine.Engine) error {
		v, err := e.Get(ctx, s.String(flagDriver), s.String(flagName))
		if err != nil {
			return err
		}
		return s.result(shown(v), v.Name)
	})
}

func list(s *session) error {
	return s.withEngine(func(ctx context.Context, e *engine.Engine) error {
		vols, err := e.List(ctx, s.String(flagDriver))
		if err != nil {
			return err
		}
		all, names := []volumeResult{}, []string{}
		for _, v := range vols {
			all = append(all, shown(v))
			names = append(names, v.Name)
		}
		return s.result(all, names...)
	})
}
