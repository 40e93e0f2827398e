package fence

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// User says which process uses what a record tells of, in words; empty if none
// does: it has a file or a directory of it open, or has it mounted in a mount
// namespace of its own, at a place at which this one has not. The driver's own
// process is no user. A program that is not root sees its user's processes only.
func (h *Host) User(ctx context.Context, rec *ledger.Record) (string, error) {
	s, err := h.subjectOf(ctx, rec)
	if err != nil || s == nil {
		return "", err
	}
	users, err := h.look(s, h.server(ctx, rec.Driver), true).all(ctx)
	switch {
	case len(users) > 0:
		return "process " + strconv.Itoa(users[0].pid) + " (" + users[0].how + ")", nil
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return "", nil
	}
	return "", err
}

// UserAt is User for what a driver has mounted without a record of this boot.
func (h *Host) UserAt(ctx context.Context, driver, path string) (string, error) {
	facts, err := h.cfg.Mounts.Stat(ctx, path)
	if err != nil {
		return "", err
	}
	table, err := h.cfg.Mounts.Own(ctx)
	if err != nil {
		return "", err
	}
	rec := &ledger.Record{Driver: driver, Path: path, Resolved: facts.Resolved, Device: facts.Device, Kind: ledger.KindDirectory, Namespace: table.Namespace}
	if _, stacked := table.At(facts.Resolved); stacked > 0 {
		rec.Kind = ledger.KindMountPoint
	}
	return h.User(ctx, rec)
}

// serverPatience bounds the question which process a driver is.
const serverPatience = time.Second

// server is the process that serves a driver, 0 if that is not known.
func (h *Host) server(ctx context.Context, driver string) int {
	if h.cfg.Drivers == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	d, err := h.cfg.Drivers.Open(ctx, driver)
	if err != nil {
		return 0
	}
	served, ok := d.(volume.Served)
	if !ok {
		return 0
	}
	// What it answered last may have been another process.
	if _, err := d.Capabilities(ctx); err != nil {
		return 0
	}
	return served.ServerPID()
}
