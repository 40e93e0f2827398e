package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
	"go.uber.org/zap"
)

// callTimeout is below the two minutes after which Docker gives up on a Mount
// or Create, so that the caller gets our reason instead of its own time-out.
const callTimeout = 100 * time.Second

// driver answers Docker's volume plugin calls. What it returns as an error
// reaches the user as it is, so each says what to do.
type driver struct {
	node  *node
	scope string // "local" or "global"
	zone  string // where the volumes can be attached; empty: nothing is said of it
	kinds kindChooser
	log   *zap.Logger
}

var _ volume.Driver = (*driver)(nil)

// kindChooser decides what a new volume is.
type kindChooser struct {
	kind        string // kindDirectory, kindImage, or "auto": an image if it has a size
	images      bool   // whether images are possible here
	defaultSize int64  // of images created without a size, in bytes
}

func (k kindChooser) choose(options map[string]string) (kind string, size int64, err error) {
	for _, option := range slices.Sorted(maps.Keys(options)) {
		if option != "size" {
			return "", 0, fmt.Errorf("unknown option %q; the only option is size, as in size=64M (a bare number is GiB)", option)
		}
	}
	if text := options["size"]; text != "" {
		if size, err = parseSize(text); err != nil {
			return "", 0, err
		}
	}
	if k.kind == kindDirectory || !k.images || (k.kind != kindImage && size == 0) {
		return kindDirectory, size, nil
	}
	if size == 0 {
		size = k.defaultSize
	}
	if size < smallestImage {
		return "", 0, fmt.Errorf("size %s is too small for ext4; the smallest is %s", formatSize(size), formatSize(smallestImage))
	}
	return kindImage, size, nil
}

// callContext bounds a call. The plugin library hands none on, and a call goes
// on when its caller is gone: what it did must be recorded all the same.
func callContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), callTimeout)
}

// failed logs the error that a call is about to return.
func (d *driver) failed(call, name string, err error) error {
	if err != nil {
		d.log.Warn("call failed", zap.String("call", call), zap.String("volume", name), zap.Error(err))
	}
	return err
}

// Create makes a volume. Docker sends it again at times: an equal volume that
// exists is success.
func (d *driver) Create(req *volume.CreateRequest) error {
	ctx, done := callContext()
	defer done()
	return d.failed("Create", req.Name, d.create(ctx, req))
}

func (d *driver) create(ctx context.Context, req *volume.CreateRequest) error {
	if req.Name == "" {
		return errors.New("create: the volume's name is empty")
	}
	kind, size, err := d.kinds.choose(req.Options)
	if err != nil {
		return fmt.Errorf("create volume %q: %w", req.Name, err)
	}
	return d.node.store.create(ctx, req.Name, kind, size)
}

// Remove deletes a volume that no node has.
func (d *driver) Remove(req *volume.RemoveRequest) error {
	ctx, done := callContext()
	defer done()
	return d.failed("Remove", req.Name, d.node.store.remove(ctx, req.Name))
}

// Mount shows the volume to the container that the ID stands for.
func (d *driver) Mount(req *volume.MountRequest) (*volume.MountResponse, error) {
	ctx, done := callContext()
	defer done()
	mountpoint, err := d.node.mount(ctx, req.Name, req.ID)
	if err != nil {
		return nil, d.failed("Mount", req.Name, err)
	}
	return &volume.MountResponse{Mountpoint: mountpoint}, nil
}

// Unmount ends the Mount with the same ID.
func (d *driver) Unmount(req *volume.UnmountRequest) error {
	ctx, done := callContext()
	defer done()
	return d.failed("Unmount", req.Name, d.node.unmount(ctx, req.Name, req.ID))
}

// Path returns where the volume is mounted here, or nothing.
func (d *driver) Path(req *volume.PathRequest) (*volume.PathResponse, error) {
	v, err := d.volume(req.Name)
	if err != nil {
		return nil, d.failed("Path", req.Name, err)
	}
	return &volume.PathResponse{Mountpoint: v.Mountpoint}, nil
}

// Get describes one volume.
func (d *driver) Get(req *volume.GetRequest) (*volume.GetResponse, error) {
	v, err := d.volume(req.Name)
	if err != nil {
		if !errors.As(err, new(unknownVolume)) { // callers ask in order to find out
			err = d.failed("Get", req.Name, err)
		}
		return nil, err
	}
	return &volume.GetResponse{Volume: v}, nil
}

// List describes all volumes whose records can be read.
func (d *driver) List() (*volume.ListResponse, error) {
	records, err := d.node.store.list()
	if err != nil && len(records) == 0 {
		return nil, d.failed("List", "", err)
	}
	_ = d.failed("List", "", err) // one damaged record must not hide the others
	response := &volume.ListResponse{Volumes: []*volume.Volume{}}
	for _, r := range records {
		v, err := d.describe(r)
		if err != nil {
			return nil, d.failed("List", r.Name, err)
		}
		response.Volumes = append(response.Volumes, v)
	}
	return response, nil
}

// Capabilities says whether the volumes are the same on all nodes.
func (d *driver) Capabilities() *volume.CapabilitiesResponse {
	return &volume.CapabilitiesResponse{Capabilities: volume.Capability{Scope: d.scope}}
}

func (d *driver) volume(name string) (*volume.Volume, error) {
	r, err := d.node.store.get(name)
	if err != nil {
		return nil, err
	}
	return d.describe(r)
}

func (d *driver) describe(r *record) (*volume.Volume, error) {
	mountpoint, err := d.node.mountpoint(r)
	if err != nil {
		return nil, err
	}
	status := map[string]any{"kind": r.Kind}
	if r.Size > 0 {
		status["size"] = formatSize(r.Size)
		status["sizeEnforced"] = r.Kind == kindImage
	}
	if d.zone != "" {
		status["zone"] = d.zone
	}
	var nodes []string
	for _, a := range r.Attachments {
		nodes = append(nodes, a.Node)
	}
	if len(nodes) > 0 {
		status["attachedTo"] = strings.Join(nodes, ",")
	}
	return &volume.Volume{
		Name:       r.Name,
		Mountpoint: mountpoint,
		CreatedAt:  r.Created.Format(time.RFC3339),
		Status:     status,
	}, nil
}
