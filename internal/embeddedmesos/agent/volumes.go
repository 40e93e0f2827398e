package agent

import (
	"os"
	"path/filepath"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/dockervolume"
)

// localVolumes returns where the volumes of the agent's own disks are to be
// bound: persistent volumes, and directories of the host.
func (p *process) localVolumes(r *run) ([]dockervolume.Mount, error) {
	var mounts []dockervolume.Mount
	for _, resource := range r.task.Resources {
		if !resource.IsPersistentVolume() {
			continue
		}
		volume := resource.Disk.GetVolume()
		target, err := dockervolume.Target(r.sandbox, volume.GetContainerPath())
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, dockervolume.Mount{
			Source:   p.layout.volume(&resource),
			Target:   target,
			ReadOnly: volume.GetMode() == mesos.RO,
		})
	}
	for _, v := range r.task.GetContainer().GetVolumes() {
		mount, err := hostVolume(r.sandbox, v)
		if err != nil {
			return nil, err
		}
		if mount != nil {
			mounts = append(mounts, *mount)
		}
	}
	return mounts, nil
}

// hostVolume returns nil for docker volumes, which are not its business.
func hostVolume(sandbox string, v mesos.Volume) (*dockervolume.Mount, error) {
	path := v.GetHostPath()
	switch {
	case v.GetSource() == nil:
	case v.Source.Type == mesos.Volume_Source_DOCKER_VOLUME:
		return nil, nil
	case v.Source.Type == mesos.Volume_Source_HOST_PATH:
		path = v.Source.GetHostPath().GetPath()
	default:
		return nil, failuref("embedded Mesos has no volumes with a source of type %v", v.Source.Type)
	}
	if path == "" {
		return nil, failuref("The volume at '%s' has no source", v.ContainerPath)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(sandbox, path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, failuref("Failed to create the directory of the volume at '%s': %v", v.ContainerPath, err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		return nil, failuref("The host path of the volume at '%s' cannot be used: %v", v.ContainerPath, err)
	}
	target, err := dockervolume.Target(sandbox, v.ContainerPath)
	if err != nil {
		return nil, err
	}
	return &dockervolume.Mount{Source: path, Target: target, ReadOnly: v.GetMode() == mesos.RO}, nil
}

// volume returns the directory of a persistent volume
// (src/slave/paths.cpp, getPersistentVolumePath).
func (l layout) volume(r *mesos.Resource) string {
	root := l.root
	switch source := r.Disk.GetSource(); {
	case r.IsDisk(mesos.Resource_DiskInfo_Source_PATH):
		root = source.GetPath().GetRoot()
	case r.IsDisk(mesos.Resource_DiskInfo_Source_MOUNT):
		return source.GetMount().GetRoot()
	}
	return persistentVolume(root, r.ReservationRole(), r.Disk.GetPersistence().GetID())
}

// createVolume makes the directory of a persistent volume.
func (l layout) createVolume(r *mesos.Resource) error {
	return os.MkdirAll(l.volume(r), 0o755)
}

// destroyVolume deletes a persistent volume; of one that is a disk of its own
// only the content, since the directory is a mount point.
func (l layout) destroyVolume(r *mesos.Resource) error {
	dir := l.volume(r)
	if !r.IsDisk(mesos.Resource_DiskInfo_Source_MOUNT) {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
