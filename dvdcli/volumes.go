package main

import (
	"errors"
	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// volumeCommands are those of dvdcli 0.2.
func volumeCommands() []spec {
	return []spec{
		{name: "create", usage: "create a volume", action: create,
			options: func() []option { return flagsForVolume(otherDeadline, optsFlag()) }},
		{name: "remove", usage: "destroy a volume and its data", action: remove,
			options: func() []option {
				return flagsForVolume(otherDeadline, boolFlag(flagForce, "destroy it although somebody else on this host seems to use it"))
			}},
		{name: "mount", usage: "mount a volume, creating it if need be, and print where", action: mount,
			options: func() []option {
				return flagsForVolume(mountDeadline, optsFlag(),
					option{name: flagExplicit, alias: "explicitCreate", value: false, usage: "do not create a volume that does not exist"},
					boolFlag(flagForce, "allow options that endanger the data of an existing volume"))
			}},
		{name: "unmount", usage: "unmount a volume; what is not mounted is no error", action: unmount,
			options: func() []option {
				return flagsForVolume(unmountDeadline,
					boolFlag(flagStrict, "fail if it is not mounted or the driver is unknown"),
					boolFlag(flagForce, "unmount it for all who hold it"))
			}},
		{name: "path", usage: "print where a volume is mounted", action: path,
			options: func() []option { return flagsForVolume(otherDeadline) }},
		{name: "get", usage: "print the name of a volume if it exists", action: get,
			options: func() []option { return flagsForVolume(otherDeadline) }},
		{name: "list", usage: "print the names of a driver's volumes", action: list,
			options: func() []option { return flagsForCalls(otherDeadline) }},
	}
}

func mount(s *session) error {
	options, optionsErr := engine.ParseOptions(s.List(flagOpts))
	e, done, err := s.engine()
	if err != nil {
		return errors.Join(optionsErr, err)
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	defer s.spin("mounting " + s.String(flagName))()
	res, err := e.Mount(ctx, engine.MountRequest{
		Driver: s.String(flagDriver), Volume: s.String(flagName), Options: options, OptionsErr: optionsErr,
		Explicit: s.Bool(flagExplicit), Force: s.Bool(flagForce), Holder: s.holder(),
	})
	s.notes(res.Notes)
	if err != nil {
		return err
	}
	return s.result(res, res.Path)
}

func unmount(s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	if s.policyErr != nil {
		s.say("note: %s", s.policyErr)
	}
	defer s.spin("unmounting " + s.String(flagName))()
	res, err := e.Unmount(ctx, engine.UnmountRequest{
		Driver: s.String(flagDriver), Volume: s.String(flagName), Holder: s.holder(),
		Strict: s.Bool(flagStrict), Force: s.Bool(flagForce),
	})
	s.notes(res.Notes)
	if err != nil {
		return err
	}
	return s.result(res)
}

func create(s *session) error {
	options, err := engine.ParseOptions(s.List(flagOpts))
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
	req := engine.CreateRequest{Driver: s.String(flagDriver), Volume: s.String(flagName), Options: options}
	if err := e.Create(ctx, req); err != nil {
		return err
	}
	return s.result(map[string]string{"name": req.Volume})
}

func remove(s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	req := engine.RemoveRequest{Driver: s.String(flagDriver), Volume: s.String(flagName), Force: s.Bool(flagForce)}
	if err := e.Remove(ctx, req); err != nil {
		return err
	}
	return s.result(map[string]string{"name": req.Volume})
}

func path(s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	p, err := e.Path(ctx, s.String(flagDriver), s.String(flagName))
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

func get(s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
	v, err := e.Get(ctx, s.String(flagDriver), s.String(flagName))
	if err != nil {
		return err
	}
	return s.result(shown(v), v.Name)
}

func list(s *session) error {
	e, done, err := s.engine()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := s.context()
	defer cancel()
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
}
