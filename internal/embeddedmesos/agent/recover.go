package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/dockervolume"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
)

// recoverInfo finds the agent's id. Like --reconfiguration_policy=equal it
// refuses a configuration that differs from that of the agent on disk.
func (p *process) recoverInfo() error {
	id, err := os.Readlink(p.layout.latest())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var old mesos.AgentInfo
	if err == nil {
		err = checkpoint.ReadMessage(p.layout.slaveInfo(id), &old)
	}
	if err != nil {
		return fmt.Errorf("recover the agent: %w", err)
	}
	if what := difference(&old, &p.info); what != "" {
		return fmt.Errorf("the %s of the agent differ from those of agent %s in %s: "+
			"start it as before, or remove that directory (and everything on the agent)", what, id, p.cfg.Dir)
	}
	p.info.ID, p.info.Port = old.ID, old.Port
	return nil
}

// difference names what two configurations differ in, if anything.
func difference(a, b *mesos.AgentInfo) string {
	equalAttributes := slices.EqualFunc(a.Attributes, b.Attributes,
		func(x, y mesos.Attribute) bool { return x.Equal(&y) })
	switch {
	case a.Hostname != b.Hostname:
		return "host names"
	case !resources.Equivalent(a.Resources, b.Resources):
		return "resources"
	case !equalAttributes:
		return "attributes"
	case !a.Domain.Equal(b.Domain):
		return "fault domains"
	}
	return ""
}

// forgetInfo makes the next process a new agent.
func (p *process) forgetInfo() error {
	err := os.Remove(p.layout.latest())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// recoverState reads resources, runs and volumes.
func (p *process) recoverState() error {
	if err := p.recoverResources(); err != nil {
		return err
	}
	if p.info.ID != nil {
		if err := p.recoverRuns(); err != nil {
			return err
		}
	}
	return p.recoverVolumes()
}

func (p *process) recoverRuns() error {
	dirs, err := filepath.Glob(p.layout.meta(runPath{
		slave: p.info.ID.Value, framework: "*", executor: "*", container: "*",
	}))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := p.recoverRun(dir); err != nil {
			return fmt.Errorf("recover the run in %s: %w", dir, err)
		}
	}
	return nil
}

// recoverRun reads one run, unless it is over.
func (p *process) recoverRun(dir string) error {
	runs := filepath.Dir(dir)
	executorDir := filepath.Dir(runs)
	frameworkDir := filepath.Dir(filepath.Dir(executorDir))
	path := runPath{
		slave:     p.info.ID.Value,
		framework: filepath.Base(frameworkDir),
		executor:  filepath.Base(executorDir),
		container: filepath.Base(dir),
	}
	if _, err := os.Stat(p.layout.sentinel(path)); err == nil {
		return nil
	}
	var task mesos.TaskInfo
	err := checkpoint.ReadMessage(p.layout.taskInfo(path), &task)
	if errors.Is(err, os.ErrNotExist) {
		return nil // killed before the task was written, hence before anything was done for it
	}
	if err != nil {
		return err
	}
	framework, err := p.recoverFramework(path.framework)
	if err != nil {
		return err
	}
	r := p.newRun(framework, task, path.container)
	if err := os.MkdirAll(r.sandbox, 0o755); err != nil {
		return err
	}
	if r.stream, err = openStream(p.layout.taskUpdates(path)); err != nil {
		return err
	}
	p.runs[path.container] = r
	r.statuses = slices.Clone(r.stream.all)
	if n := len(r.statuses); n > 0 {
		r.state = r.statuses[n-1].GetState()
	}
	if !framework.GetCheckpoint() {
		// Mesos has nothing on disk of such a framework's tasks: the master
		// has given them up, and their containers are orphans.
		r.orphan = true
		r.stream.silence()
	}
	r.executor, _, err = executor.Find(r.runtime)
	return err
}

func (p *process) recoverFramework(id string) (*mesos.FrameworkInfo, error) {
	if f := p.frameworks[id]; f != nil {
		return f, nil
	}
	f := new(mesos.FrameworkInfo)
	if err := checkpoint.ReadMessage(p.layout.frameworkInfo(p.info.ID.Value, id), f); err != nil {
		return nil, err
	}
	p.frameworks[id] = f
	return f, nil
}

// recoverVolumes reads the isolator's checkpoints. One that cannot be read
// keeps the agent from starting, as on Mesos: a mount would be forgotten.
func (p *process) recoverVolumes() error {
	var known []string
	for id := range p.runs {
		known = append(known, id)
	}
	var err error
	p.orphans, err = p.isolator.Recover(known)
	if err != nil {
		return fmt.Errorf("recover docker volumes: %w", err)
	}
	return nil
}

// superviseRecovered takes up every run again, and unmounts the volumes of
// containers that nobody knows.
func (p *process) superviseRecovered() {
	for _, r := range p.runs {
		conn := p.reconnect(r)
		p.goroutines.Go(func() {
			p.supervise(r, func(*run) (*executor.Conn, error) { return conn, nil })
		})
	}
	for _, id := range p.orphans {
		p.log.Info("Cleaning up volumes of an unknown orphaned container", zap.String("container", id))
		p.goroutines.Go(func() { p.cleanOrphan(id) })
	}
}

// cleanOrphan unmounts; what fails is left to the next recovery, like Mesos.
func (p *process) cleanOrphan(container string) {
	err := p.isolator.Cleanup(p.ctx, container)
	if err == nil {
		err = executor.Remove(p.layout.runtime(container))
	}
	if err != nil && p.ctx.Err() == nil {
		p.log.Error("Volumes of an unknown orphaned container cannot be unmounted",
			zap.String("container", container), zap.Error(err))
	}
}

// reconnect finds a recovered run's executor before anything of the master can
// ask for it. Without one, what supervise does next is to clean up.
func (p *process) reconnect(r *run) *executor.Conn {
	r.delivered = r.executor.PID != 0
	if r.orphan || !r.executor.Alive() || r.endedByAgent() {
		return nil
	}
	conn, err := executor.Connect(r.runtime)
	if err != nil {
		r.log(p).Warn("Executor runs but does not answer", zap.Error(err))
		return nil
	}
	// The last process may have been killed before it gave the order.
	if err := conn.Launch(); err != nil {
		r.log(p).Warn("Executor ended before it got its task", zap.Error(err))
	}
	r.conn = conn
	return conn
}

// endedByAgent tells whether the agent has reported the task's end without
// the executor, which is not to run the task then.
func (r *run) endedByAgent() bool {
	n := len(r.statuses)
	return n > 0 && terminal(r.state) && r.statuses[n-1].GetSource() == mesos.SOURCE_AGENT
}

// loseTimeout bounds the wait for an executor that was told to vanish.
const loseTimeout = 5 * time.Second

// loseExecutors ends every executor and task below the directory at once.
// Executors are asked to, since only they can reap what they have started;
// those that do not answer are killed.
func loseExecutors(l layout) error {
	entries, err := os.ReadDir(l.containers())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	errs := make([]error, len(entries))
	var all sync.WaitGroup
	for n, e := range entries {
		all.Go(func() { errs[n] = loseExecutor(l.runtime(e.Name())) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func loseExecutor(runtime string) error {
	process, sandbox, err := executor.Find(runtime)
	if err != nil || sandbox == "" {
		return err
	}
	if process.Alive() {
		askToVanish(runtime)
	}
	return killContainer(sandbox, process)
}

// askToVanish has an executor kill what it has started and itself: only the
// executor can reap its children. What that does not achieve, SIGKILL does.
func askToVanish(runtime string) {
	conn, err := executor.Connect(runtime)
	if err != nil {
		return
	}
	defer conn.Close()
	timeout := time.AfterFunc(loseTimeout, func() { _ = conn.Close() })
	defer timeout.Stop()
	if conn.Lose() != nil {
		return
	}
	for {
		if _, err := conn.Next(); err != nil {
			return
		}
	}
}

// destroyAll ends every run and waits until they are cleaned up, as far as that
// works; the process ends with the last one.
func (p *process) destroyAll(ctx context.Context) error {
	if err := p.do(ctx, func() {
		p.ending = true
		for _, r := range p.runs {
			r.orphan = true
			r.stream.silence()
			r.cancel(errShutdown)
			p.finish(r)
		}
		p.endIfIdle()
	}); err != nil && !errors.Is(err, errShutdown) {
		return err
	}
	// The process ends when no run is left.
	select {
	case <-p.ctx.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if cause := context.Cause(p.ctx); !errors.Is(cause, errShutdown) {
		return cause
	}
	return nil
}

// unmountLeftovers cleans up each container whose checkpoint is still there.
// No agent process may run.
func (a *Agent) unmountLeftovers(ctx context.Context) error {
	isolator := dockervolume.New(a.DockerVolumeDir(), a.cfg.client(a.gate), a.cfg.Logger)
	left, err := isolator.Recover(nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range left {
		if err := isolator.Cleanup(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("unmount the volumes of container %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
