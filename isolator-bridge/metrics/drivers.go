package metrics

import (
	"context"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Drivers returns drivers whose calls are measured.
func (m *Metrics) Drivers(inner volume.Drivers) volume.Drivers { return measuredDrivers{inner, m} }

type measuredDrivers struct {
	volume.Drivers
	metrics *Metrics
}

// Open implements volume.Drivers.
func (d measuredDrivers) Open(ctx context.Context, name string) (volume.Driver, error) {
	driver, err := d.Drivers.Open(ctx, name)
	if err != nil {
		// A name that no driver has may be anybody's mistake: no label of its own.
		if volume.KindOf(err) != volume.DriverUnknown {
			d.metrics.operations.WithLabelValues(name, "open", outcome(err)).Inc()
		}
		return nil, err
	}
	return measuredDriver{driver, d.metrics}, nil
}

type measuredDriver struct {
	volume.Driver
	metrics *Metrics
}

// begin returns what notes the end of a call.
func (d measuredDriver) begin(kind string) func(error) {
	start := time.Now()
	return func(err error) {
		name := d.Name()
		d.metrics.operations.WithLabelValues(name, kind, outcome(err)).Inc()
		d.metrics.durations.WithLabelValues(name, kind).Observe(time.Since(start).Seconds())
	}
}

// outcome makes a label value of an error.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	switch volume.KindOf(err) {
	case volume.NotFound:
		return "not_found"
	case volume.AlreadyExists:
		return "already_exists"
	case volume.Refused:
		return "refused"
	case volume.Unsupported:
		return "unsupported"
	case volume.DriverUnreachable:
		return "unreachable"
	case volume.Unsettled:
		return "unsettled"
	}
	return "failed"
}

// Capabilities implements volume.Driver.
func (d measuredDriver) Capabilities(ctx context.Context) (c volume.Capabilities, err error) {
	end := d.begin("capabilities")
	c, err = d.Driver.Capabilities(ctx)
	end(err)
	return c, err
}

// Create implements volume.Driver.
func (d measuredDriver) Create(ctx context.Context, req volume.CreateRequest) (v volume.Volume, err error) {
	end := d.begin("create")
	v, err = d.Driver.Create(ctx, req)
	end(err)
	return v, err
}

// Remove implements volume.Driver.
func (d measuredDriver) Remove(ctx context.Context, ref volume.Ref) error {
	end := d.begin("remove")
	err := d.Driver.Remove(ctx, ref)
	end(err)
	return err
}

// Get implements volume.Driver.
func (d measuredDriver) Get(ctx context.Context, ref volume.Ref) (v volume.Volume, err error) {
	end := d.begin("get")
	v, err = d.Driver.Get(ctx, ref)
	end(err)
	return v, err
}

// List implements volume.Driver.
func (d measuredDriver) List(ctx context.Context) (v []volume.Volume, err error) {
	end := d.begin("list")
	v, err = d.Driver.List(ctx)
	end(err)
	return v, err
}

// Path implements volume.Driver.
func (d measuredDriver) Path(ctx context.Context, ref volume.Ref) (path string, err error) {
	end := d.begin("path")
	path, err = d.Driver.Path(ctx, ref)
	end(err)
	return path, err
}

// Mount implements volume.Driver.
func (d measuredDriver) Mount(ctx context.Context, req volume.MountRequest) (v volume.Mounted, err error) {
	end := d.begin("mount")
	v, err = d.Driver.Mount(ctx, req)
	end(err)
	return v, err
}

// Unmount implements volume.Driver.
func (d measuredDriver) Unmount(ctx context.Context, req volume.UnmountRequest) error {
	end := d.begin("unmount")
	err := d.Driver.Unmount(ctx, req)
	end(err)
	return err
}
