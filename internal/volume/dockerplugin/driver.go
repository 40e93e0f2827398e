package dockerplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// The methods of the protocol.
const (
	methodActivate     = "Plugin.Activate"
	methodCreate       = "VolumeDriver.Create"
	methodRemove       = "VolumeDriver.Remove"
	methodMount        = "VolumeDriver.Mount"
	methodUnmount      = "VolumeDriver.Unmount"
	methodPath         = "VolumeDriver.Path"
	methodGet          = "VolumeDriver.Get"
	methodList         = "VolumeDriver.List"
	methodCapabilities = "VolumeDriver.Capabilities"
)

// driver is one plugin under one name. It implements volume.Driver.
type driver struct {
	name   string
	found  found
	client *client
	config Config
}

var (
	_ volume.Driver = (*driver)(nil)
	_ volume.Served = (*driver)(nil)
)

// Name implements volume.Driver.
func (d *driver) Name() string { return d.name }

// Traits implements volume.Driver: the plugin chooses where it mounts.
func (d *driver) Traits() volume.Traits { return volume.Traits{Kind: Kind} }

// ServerPID implements volume.Served.
func (d *driver) ServerPID() int {
	d.client.mu.Lock()
	defer d.client.mu.Unlock()
	return d.client.pid
}

// errNoVolumeDriver says that a plugin is one of another sort.
var errNoVolumeDriver = errors.New("the plugin is no volume driver")

// activate makes the handshake, once per endpoint. A handshake that fails
// leaves the call itself unsent.
func (d *driver) activate(ctx context.Context, c call, start time.Time) error {
	d.client.mu.Lock()
	done := d.client.activated
	d.client.mu.Unlock()
	if done {
		return nil
	}
	a := d.exchange(ctx, c, methodActivate, nil, start)
	if a.err != nil {
		return d.unreachable(c, start, fmt.Errorf("%s: %w", methodActivate, a.err))
	}
	if a.status != http.StatusOK {
		return d.unreachable(c, start, fmt.Errorf("%s: status %d: %s", methodActivate, a.status, shown(failureText(a.body))))
	}
	var manifest struct{ Implements []string }
	failure, err := decodeAnswer(a.body, &manifest)
	if err != nil {
		return d.unreachable(c, start, fmt.Errorf("%s: %w", methodActivate, err))
	}
	if failure != "" {
		return d.unreachable(c, start, fmt.Errorf("%s: %s", methodActivate, shown(failure)))
	}
	if !slices.Contains(manifest.Implements, "VolumeDriver") {
		return d.fail(c, start, volume.Unsupported, 0,
			fmt.Sprintf("%s implements %q", d.found.endpoint.address(), manifest.Implements), errNoVolumeDriver)
	}
	d.client.mu.Lock()
	d.client.activated = true
	d.client.mu.Unlock()
	return nil
}

// Capabilities implements volume.Driver. A plugin that is there and answers
// anything but a known scope, or nothing, is local, as in Docker.
func (d *driver) Capabilities(ctx context.Context) (volume.Capabilities, error) {
	var answer struct{ Capabilities struct{ Scope string } }
	_, err := d.do(ctx, call{method: methodCapabilities, request: struct{}{}, result: &answer, optional: true})
	switch {
	case err != nil && ctx.Err() != nil, errors.Is(err, volume.DriverUnreachable), errors.Is(err, errNoVolumeDriver):
		return volume.Capabilities{}, err
	}
	scope := volume.Scope(strings.ToLower(answer.Capabilities.Scope))
	if err != nil || scope != volume.ScopeGlobal {
		scope = volume.ScopeLocal
	}
	return volume.Capabilities{Scope: scope}, nil
}

type nameRequest struct{ Name string }

type mountRequest struct{ Name, ID string }

// Create implements volume.Driver. The protocol knows one kind of options, so
// secrets travel among them.
func (d *driver) Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error) {
	options := map[string]string{}
	maps.Copy(options, req.Options)
	maps.Copy(options, req.Secrets)
	_, err := d.do(ctx, call{
		method: methodCreate, volume: req.Name, secrets: req.Secrets, mutating: true,
		request: struct {
			Name string
			Opts map[string]string
		}{req.Name, options},
	})
	if err != nil {
		return volume.Volume{}, reclassify(err, volume.AlreadyExists, saysAlreadyExists)
	}
	return volume.Volume{Ref: volume.Ref{Name: req.Name}}, nil
}

// Remove implements volume.Driver.
func (d *driver) Remove(ctx context.Context, ref volume.Ref) error {
	_, err := d.do(ctx, call{method: methodRemove, volume: ref.Name, mutating: true, request: nameRequest{ref.Name}})
	return reclassify(err, volume.NotFound, saysNotFound)
}

// Path implements volume.Driver.
func (d *driver) Path(ctx context.Context, ref volume.Ref) (string, error) {
	var answer struct{ Mountpoint string }
	_, err := d.do(ctx, call{method: methodPath, volume: ref.Name, request: nameRequest{ref.Name}, result: &answer})
	if err != nil {
		return "", reclassify(err, volume.NotFound, saysNotFound)
	}
	return d.found.managed.rescope(answer.Mountpoint), nil
}

// Mount implements volume.Driver.
func (d *driver) Mount(ctx context.Context, req volume.MountRequest) (volume.Mounted, error) {
	var answer struct{ Mountpoint string }
	pid, err := d.do(ctx, call{
		method: methodMount, volume: req.Volume.Name, secrets: req.Secrets, mutating: true,
		request: mountRequest{req.Volume.Name, req.ID}, result: &answer,
	})
	if err != nil {
		return volume.Mounted{}, err
	}
	return volume.Mounted{Path: d.found.managed.rescope(answer.Mountpoint), ServerPID: pid}, nil
}

// Unmount implements volume.Driver.
func (d *driver) Unmount(ctx context.Context, req volume.UnmountRequest) error {
	_, err := d.do(ctx, call{
		method: methodUnmount, volume: req.Volume.Name, secrets: req.Secrets, mutating: true,
		request: mountRequest{req.Volume.Name, req.ID},
	})
	return err
}
