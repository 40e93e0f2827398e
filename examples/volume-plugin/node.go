package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// releaseTimeout bounds the wait for a loop device after an unmount.
const releaseTimeout = 5 * time.Second

// node mounts the store's volumes on one machine. All its calls may run at
// the same time; those for one volume take turns under the volume's lock.
type node struct {
	store  *store
	name   string
	mounts string // where volumes appear, by key
	link   bool   // link to the directories instead of mounting
	bootID string
	log    *zap.Logger

	locks []*fileLock // held as long as the process serves this node
}

// openNode makes this process the one that serves the node name, with mounts
// under dir. It fails if another process does.
func openNode(ctx context.Context, s *store, name, dir string, link bool, log *zap.Logger) (*node, error) {
	mounts, err := resolveDir(dir)
	if err != nil {
		return nil, fmt.Errorf("mounts directory: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	n := &node{store: s, name: name, mounts: mounts, link: link, bootID: boot, log: log}
	for _, path := range []string{s.nodeLock(name), filepath.Join(mounts, ".lock")} {
		// Who lists the volumes holds the lock for an instant.
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		held, err := lock(ctx, path)
		cancel()
		if err != nil {
			n.close()
			return nil, fmt.Errorf("node %q with mounts in %s is already served (%w); stop the other plugin or choose another --node and --mounts",
				name, mounts, err)
		}
		n.locks = append(n.locks, held)
	}
	return n, nil
}

// close lets another process serve the node. What is mounted stays.
func (n *node) close() {
	for _, held := range n.locks {
		held.unlock()
	}
}

func (s *store) nodeLock(node string) string { return filepath.Join(s.root, "nodes", keyOf(node)) }

// mount attaches the volume to this node, if it is not attached yet, mounts
// it and returns where. A repeated mount with the same id changes nothing.
func (n *node) mount(ctx context.Context, volume, id string) (mountpoint string, err error) {
	err = n.store.update(ctx, volume, func(r *record) error {
		if err := n.mayAttach(r); err != nil {
			return err
		}
		a := r.on(n.name)
		if a == nil {
			mountpoint, err = n.attach(ctx, r, id)
			return err
		}
		mountpoint = a.Mountpoint
		present, err := n.present(r, a)
		if err != nil {
			return err
		}
		if !present { // unmounted behind our back
			if err := n.show(r, a); err != nil {
				return err
			}
		}
		if slices.Contains(a.IDs, id) && present {
			return nil
		}
		if !slices.Contains(a.IDs, id) {
			a.IDs = append(a.IDs, id)
		}
		return n.store.save(r)
	})
	return mountpoint, err
}

// mayAttach refuses a volume that another node has to itself.
func (n *node) mayAttach(r *record) error {
	if !r.exclusive(n.store.singleAttach) {
		return nil
	}
	for _, a := range r.Attachments {
		if a.Node != n.name {
			return fmt.Errorf("volume %q is attached to node %q since %s and can be on one node only; unmount it there, or once that node is certainly lost: volume-plugin --root %s detach --force %s",
				r.Name, a.Node, a.Since.Format(time.RFC3339), n.store.root, shellQuote(r.Name))
		}
	}
	return nil
}

// attach records the attachment first and then mounts, so that no crash
// leaves a mounted volume that the store believes to be free.
func (n *node) attach(ctx context.Context, r *record, id string) (string, error) {
	r.Epoch++
	r.Attachments = append(r.Attachments, attachment{
		Node: n.name, Epoch: r.Epoch, BootID: n.bootID, Since: time.Now().UTC(),
		Mountpoint: filepath.Join(n.mounts, keyOf(r.Name)), IDs: []string{id},
	})
	if err := n.record(ctx, eventAttach, r, r.Epoch, ""); err != nil {
		return "", err
	}
	if err := n.store.save(r); err != nil {
		return "", err
	}
	a := r.on(n.name)
	if err := n.show(r, a); err != nil {
		return "", errors.Join(fmt.Errorf("volume %q: %w", r.Name, err), n.release(ctx, r, "mount failed"))
	}
	n.log.Info("volume attached", zap.String("volume", r.Name), zap.String("mountpoint", a.Mountpoint), zap.Uint64("epoch", r.Epoch))
	if a.Device == "" {
		return a.Mountpoint, nil
	}
	return a.Mountpoint, n.store.save(r)
}

// show makes the volume appear at the attachment's mount point.
func (n *node) show(r *record, a *attachment) error {
	switch {
	case r.Kind == kindImage:
		return n.showImage(r, a)
	case n.link:
		if err := clearTarget(a.Mountpoint, 0); err != nil {
			return err
		}
		return os.Symlink(n.store.dataDir(r.Name), a.Mountpoint)
	default:
		if err := ensureEmptyDir(a.Mountpoint); err != nil {
			return err
		}
		return bindMount(n.store.dataDir(r.Name), a.Mountpoint)
	}
}

// showImage refuses an image that some loop device of this machine still has:
// mounting it twice would destroy the file system.
func (n *node) showImage(r *record, a *attachment) error {
	image := n.store.image(r.Name)
	devices, err := loopsOf(image)
	if err != nil {
		return err
	}
	r.Fenced = slices.DeleteFunc(r.Fenced, func(d string) bool { return !slices.Contains(devices, d) })
	for _, device := range devices {
		if !slices.Contains(r.Fenced, device) {
			return fmt.Errorf("%s is in use through %s, outside this plugin or by a mount in another mount namespace; stop who has it",
				image, device)
		}
	}
	if err := ensureEmptyDir(a.Mountpoint); err != nil {
		return err
	}
	a.Device, err = mountImage(image, a.Mountpoint)
	return err
}

// present says whether the volume, and not something else, is at the
// attachment's mount point.
func (n *node) present(r *record, a *attachment) (bool, error) {
	if target, err := os.Readlink(a.Mountpoint); err == nil {
		return target == n.store.dataDir(r.Name), nil
	}
	mounted, err := isMounted(a.Mountpoint)
	if err != nil || !mounted {
		return false, err
	}
	if r.Kind == kindImage {
		present, err := mountedFrom(a.Mountpoint, n.store.image(r.Name))
		return present, unlessGone(err)
	}
	here, err := os.Stat(a.Mountpoint)
	if err != nil {
		return false, unlessGone(err)
	}
	there, err := os.Stat(n.store.dataDir(r.Name))
	if err != nil {
		return false, unlessGone(err)
	}
	return os.SameFile(here, there), nil
}

// unlessGone drops the error that a volume being unmounted or removed at this
// moment causes for those who only look.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// unmount takes back one mount. With the last one the volume leaves the node.
// What is not mounted, or not by this id, is left as it is: that is success.
func (n *node) unmount(ctx context.Context, volume, id string) error {
	return n.store.update(ctx, volume, func(r *record) error {
		a := r.on(n.name)
		if a == nil {
			return n.clearFenced(r)
		}
		rest := slices.DeleteFunc(slices.Clone(a.IDs), func(other string) bool { return other == id })
		if len(rest) == len(a.IDs) && len(rest) > 0 {
			n.log.Info("unmount with an id that has no mount, nothing to do", zap.String("volume", volume))
			return nil
		}
		if len(rest) > 0 {
			a.IDs = rest
			return n.store.save(r)
		}
		return n.detach(ctx, r, "last unmount")
	})
}

// detach unmounts the volume and then gives it up.
func (n *node) detach(ctx context.Context, r *record, reason string) error {
	a := r.on(n.name)
	if err := clearTarget(a.Mountpoint, 0); err != nil {
		return fmt.Errorf("volume %q: %w", r.Name, err)
	}
	if a.Device != "" {
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		if err := awaitRelease(ctx, n.store.image(r.Name), a.Device); err != nil {
			return fmt.Errorf("volume %q: %w", r.Name, err)
		}
	}
	epoch := a.Epoch
	if err := n.release(ctx, r, reason); err != nil {
		return err
	}
	n.log.Info("volume detached", zap.String("volume", r.Name), zap.Uint64("epoch", epoch), zap.String("reason", reason))
	return nil
}

// release gives up an attachment that has no mount.
func (n *node) release(ctx context.Context, r *record, reason string) error {
	a := r.on(n.name)
	if err := n.record(ctx, eventDetach, r, a.Epoch, reason); err != nil {
		return err
	}
	r.drop(n.name)
	return n.store.save(r)
}

func (n *node) record(ctx context.Context, event string, r *record, epoch uint64, reason string) error {
	return n.store.log.append(ctx, attachEvent{Event: event, Volume: r.Name, Node: n.name, Epoch: epoch, Reason: reason})
}

// clearFenced removes what is left of a mount after the volume was taken from
// this node by force.
func (n *node) clearFenced(r *record) error {
	if err := clearTarget(filepath.Join(n.mounts, keyOf(r.Name)), 0); err != nil {
		return fmt.Errorf("volume %q, which was taken from this node by force: %w", r.Name, err)
	}
	return nil
}

// mountpoint returns where the volume is mounted on this node, or "".
func (n *node) mountpoint(r *record) (string, error) {
	a := r.on(n.name)
	if a == nil {
		return "", nil
	}
	present, err := n.present(r, a)
	if err != nil || !present {
		return "", err
	}
	return a.Mountpoint, nil
}

// recover brings the store's records of this node and the mount table
// together after a restart: what is still mounted is adopted, what is not is
// given up, and what was taken by force meanwhile is unmounted. Trouble with
// one volume is logged and stops no other.
func (n *node) recover(ctx context.Context) error {
	records, err := n.store.list()
	if err != nil {
		n.log.Error("volumes set aside", zap.Error(err))
	}
	ours := map[string]bool{}
	for _, r := range records {
		if r.on(n.name) == nil {
			continue
		}
		ours[keyOf(r.Name)] = true
		if err := n.store.update(ctx, r.Name, func(r *record) error { return n.adopt(ctx, r) }); err != nil {
			n.log.Error("volume not recovered", zap.String("volume", r.Name), zap.Error(err))
		}
	}
	return n.clearStrays(ours)
}

func (n *node) adopt(ctx context.Context, r *record) error {
	a := r.on(n.name)
	if a == nil {
		return nil // taken by force since the listing
	}
	present, err := n.present(r, a)
	if err != nil {
		return err
	}
	if present && a.BootID == n.bootID {
		n.log.Info("volume adopted", zap.String("volume", r.Name), zap.String("mountpoint", a.Mountpoint))
		return nil
	}
	return n.detach(ctx, r, "not mounted at start")
}

// clearStrays unmounts what is in the mounts directory but not ours by the
// store. A record that cannot be read makes its mount a stray only in
// appearance, so a volume whose directory still holds one is left alone.
func (n *node) clearStrays(ours map[string]bool) error {
	entries, err := os.ReadDir(n.mounts)
	if err != nil {
		return fmt.Errorf("mounts directory: %w", err)
	}
	for _, entry := range entries {
		key := entry.Name()
		isVolume := strings.HasPrefix(key, "v-") || strings.HasPrefix(key, "h-")
		if !isVolume || ours[key] {
			continue
		}
		dir := filepath.Join(n.store.root, "volumes", key)
		if _, err := readRecord(dir, key); err != nil && !errors.As(err, new(unknownVolume)) {
			continue
		}
		if err := clearTarget(filepath.Join(n.mounts, key), 0); err != nil {
			n.log.Error("stray mount left", zap.String("key", key), zap.Error(err))
			continue
		}
		n.log.Warn("unmounted what this node no longer holds", zap.String("key", key))
	}
	return nil
}

// detachAll unmounts everything on this node.
func (n *node) detachAll(ctx context.Context) error {
	records, err := n.store.list()
	failures := []error{err}
	for _, r := range records {
		if r.on(n.name) == nil {
			continue
		}
		failures = append(failures, n.store.update(ctx, r.Name, func(r *record) error {
			if r.on(n.name) == nil {
				return nil
			}
			return n.detach(ctx, r, "plugin stopped")
		}))
	}
	return errors.Join(failures...)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
