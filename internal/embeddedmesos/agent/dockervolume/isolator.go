// Package dockervolume does what the docker/volume isolator of Apache Mesos
// does (src/slave/containerizer/mesos/isolators/docker/volume/isolator.cpp):
// it mounts once per container, unmounts once when a volume's last container
// is gone, and knows nothing that is not in its checkpoints.
package dockervolume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
)

// Volume names a volume of a driver, as in the checkpoint.
type Volume struct {
	Driver string `json:"driver"`
	Name   string `json:"name"`
}

// Mount is a directory of the host that a container sees at Target.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only"`
}

// Isolator keeps track of the containers' volumes. It is safe for concurrent
// use. Calls for one volume are executed one after the other in the order in
// which they came, for different volumes at the same time.
type Isolator struct {
	root   string
	client *Client
	log    *zap.Logger

	mu    sync.Mutex                     // guards all below
	infos map[string]map[Volume]struct{} // by container id
	last  map[Volume]chan struct{}       // closed when the volume's last call has ended
}

// New returns an isolator that checkpoints below root.
func New(root string, client *Client, log *zap.Logger) *Isolator {
	return &Isolator{
		root:   root,
		client: client,
		log:    log,
		infos:  make(map[string]map[Volume]struct{}),
		last:   make(map[Volume]chan struct{}),
	}
}

// request is one volume of a container about to be launched.
type request struct {
	volume  Volume
	options map[string]string
	mount   Mount // without the source, which dvdcli tells
}

// Prepare mounts the docker volumes among the container's volumes and returns
// what is to be bound where. The volumes are checkpointed before the first
// mount. After an error the caller calls Cleanup, which unmounts everything,
// also what was not mounted.
func (i *Isolator) Prepare(ctx context.Context, containerID, sandbox string, volumes []mesos.Volume) ([]Mount, error) {
	requests, err := parse(containerID, sandbox, volumes)
	if err != nil || len(requests) == 0 {
		return nil, err
	}
	if err := i.register(containerID, requests); err != nil {
		return nil, err
	}
	sources := make([]string, len(requests))
	errs := make([]error, len(requests))
	var all sync.WaitGroup
	for n, r := range requests {
		done := i.enqueue(r.volume)
		all.Go(func() {
			defer done.end()
			if errs[n] = done.wait(ctx); errs[n] == nil {
				sources[n], errs[n] = i.client.Mount(ctx, r.volume, r.options)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	mounts := make([]Mount, len(requests))
	for n, r := range requests {
		mounts[n] = r.mount
		mounts[n].Source = sources[n]
	}
	return mounts, nil
}

// register checkpoints the container's volumes, then counts them.
func (i *Isolator) register(containerID string, requests []request) error {
	set := make(map[Volume]struct{}, len(requests))
	state := checkpointed{}
	for _, r := range requests {
		set[r.volume] = struct{}{}
		state.Volumes = append(state.Volumes, r.volume)
	}
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("checkpoint docker volumes of container %s: %w", containerID, err)
	}
	path := i.path(containerID)
	if err := checkpoint.Write(path, data); err != nil {
		return failuref("Failed to checkpoint docker volumes at '%s': %w", path, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.infos[containerID] = set
	return nil
}

// Cleanup unmounts the container's volumes that no other container uses and
// removes the checkpoint. When an unmount fails the checkpoint stays, and
// nothing but the recovery of the next agent process tries again.
func (i *Isolator) Cleanup(ctx context.Context, containerID string) error {
	turns, known := i.release(containerID)
	if !known {
		return nil
	}
	var all sync.WaitGroup
	errs := make([]error, len(turns))
	for n, turn := range turns {
		all.Go(func() {
			defer turn.end()
			if errs[n] = turn.wait(ctx); errs[n] == nil {
				i.log.Info("Unmounting docker volume", zap.String("driver", turn.volume.Driver),
					zap.String("volume", turn.volume.Name), zap.String("container", containerID))
				errs[n] = i.client.Unmount(ctx, turn.volume)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(i.path(containerID))); err != nil {
		return failuref("Failed to remove the checkpoint directory at '%s': %w",
			filepath.Dir(i.path(containerID)), err)
	}
	return nil
}

// release forgets the container, before anything is unmounted, so that a
// failed unmount does not count as a use, and queues up for its volumes.
func (i *Isolator) release(containerID string) (turns []*turn, known bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	volumes, known := i.infos[containerID]
	delete(i.infos, containerID)
	for v := range volumes {
		if !i.usedLocked(v) {
			turns = append(turns, i.enqueueLocked(v))
		}
	}
	return turns, known
}

// usedLocked needs mu.
func (i *Isolator) usedLocked(v Volume) bool {
	for _, volumes := range i.infos {
		if _, ok := volumes[v]; ok {
			return true
		}
	}
	return false
}

// Recover reads the checkpoints. It returns the containers that are not among
// the known ones: unknown orphans, on which the caller calls Cleanup.
func (i *Isolator) Recover(known []string) (orphans []string, err error) {
	entries, err := os.ReadDir(i.root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failuref("Unable to list docker volume checkpoint directory '%s': %w", i.root, err)
	}
	isKnown := make(map[string]bool)
	for _, id := range known {
		isKnown[id] = true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range entries {
		if _, ok := i.infos[e.Name()]; ok {
			continue
		}
		volumes, err := i.load(e.Name())
		if err != nil {
			return nil, failuref("Failed to recover docker volumes for container %s: %w", e.Name(), err)
		}
		i.infos[e.Name()] = volumes
		if !isKnown[e.Name()] {
			orphans = append(orphans, e.Name())
		}
	}
	return orphans, nil
}

// load returns no volumes for a checkpoint that is missing or empty: the agent
// died before it wrote it, hence before the first mount.
func (i *Isolator) load(containerID string) (map[Volume]struct{}, error) {
	volumes := make(map[Volume]struct{})
	data, err := os.ReadFile(i.path(containerID))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(data) == 0 {
		return volumes, nil
	}
	if err != nil {
		return nil, err
	}
	var state checkpointed
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, failuref("JSON parse of %s failed: %w", i.path(containerID), err)
	}
	for _, v := range state.Volumes {
		volumes[v] = struct{}{}
	}
	return volumes, nil
}

// checkpointed is the content of a checkpoint.
type checkpointed struct {
	Volumes []Volume `json:"volumes"`
}

func (i *Isolator) path(containerID string) string {
	return filepath.Join(i.root, containerID, "volumes")
}

// turn is a place in a volume's queue of calls.
type turn struct {
	volume Volume
	before chan struct{} // nil for the first
	done   chan struct{}
}

func (i *Isolator) enqueue(v Volume) *turn {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.enqueueLocked(v)
}

// enqueueLocked needs mu.
func (i *Isolator) enqueueLocked(v Volume) *turn {
	t := &turn{volume: v, before: i.last[v], done: make(chan struct{})}
	i.last[v] = t.done
	return t
}

// wait waits for the calls before.
func (t *turn) wait(ctx context.Context) error {
	if t.before == nil {
		return nil
	}
	select {
	case <-t.before:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end lets the next call go.
func (t *turn) end() { close(t.done) }

// parse picks the docker volumes and prepares their mount points.
func parse(containerID, sandbox string, volumes []mesos.Volume) ([]request, error) {
	var requests []request
	seen := make(map[Volume]bool)
	for _, v := range volumes {
		if v.GetSource().GetType() != mesos.Volume_Source_DOCKER_VOLUME {
			continue
		}
		docker := v.GetSource().GetDockerVolume()
		if docker.GetDriver() == "" {
			return nil, failuref("The volume driver is not specified for volume '%s' with container %s",
				docker.GetName(), containerID)
		}
		volume := Volume{Driver: docker.GetDriver(), Name: docker.GetName()}
		if seen[volume] {
			return nil, failuref("Found duplicate docker volume with driver '%s' and name '%s'",
				volume.Driver, volume.Name)
		}
		seen[volume] = true
		target, err := Target(sandbox, v.ContainerPath)
		if err != nil {
			return nil, err
		}
		options := make(map[string]string)
		for _, p := range docker.GetDriverOptions().GetParameter() {
			options[p.Key] = p.Value
		}
		requests = append(requests, request{
			volume:  volume,
			options: options,
			mount:   Mount{Target: target, ReadOnly: v.GetMode() == mesos.RO},
		})
	}
	return requests, nil
}

// Target returns where a container without an image of its own sees a volume:
// a relative path becomes a directory in the sandbox, an absolute one must
// exist on the host.
func Target(sandbox, containerPath string) (string, error) {
	if filepath.IsAbs(containerPath) {
		if _, err := os.Stat(containerPath); err != nil {
			return "", failuref("Absolute container path '%s' does not exist", containerPath)
		}
		return containerPath, nil
	}
	target := filepath.Join(sandbox, containerPath)
	if rel, err := filepath.Rel(sandbox, target); err != nil || !filepath.IsLocal(rel) {
		return "", failuref("Container path '%s' leads out of the sandbox", containerPath)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return "", failuref("Failed to create the target of the mount at '%s': %w", target, err)
	}
	return target, nil
}
