package executor_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
)

func TestMain(m *testing.M) {
	executor.Main()
	// The race detector has every process sleep for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// next returns the next status that the executor reports.
func next(t *testing.T, c *executor.Conn) mesos.TaskState {
	t.Helper()
	watchdog := time.AfterFunc(2*time.Minute, func() { _ = c.Close() })
	defer watchdog.Stop()
	r, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Acknowledge(r.Status.UUID); err != nil {
		t.Error(err)
	}
	return r.Status.GetState()
}

// An executor waits for the order to start its task, however often the agent
// comes and goes before that, and carries it out once.
func TestTaskIsStartedOnceAndOnOrder(t *testing.T) {
	sandbox := t.TempDir()
	// Longer than a Unix socket's address can be.
	runtime := filepath.Join(t.TempDir(), "a-directory-with-a-name-that-is-much-longer-than-it-would-have-to-be-for-its-purpose")
	shell, command := true, "echo ran"
	task, err := (&mesos.TaskInfo{
		Name: "t", TaskID: mesos.TaskID{Value: "t"},
		Command: &mesos.CommandInfo{Shell: &shell, Value: &command},
	}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	process, err := executor.Start(runtime, executor.Launch{
		Task: task, Sandbox: sandbox, Env: os.Environ(), Link: true, RecoveryTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := executor.Connect(runtime)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := executor.Connect(runtime)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if statuses, err := executor.Statuses(runtime); err != nil || len(statuses) != 0 {
		t.Errorf("before the order: %v, %v", statuses, err)
	}
	for range 2 {
		if err := second.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING, mesos.TASK_FINISHED} {
		if got := next(t, second); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	executor.Reap(process)
	if process.Alive() {
		t.Error("the executor lives on")
	}
	if data, err := os.ReadFile(filepath.Join(sandbox, "stdout")); err != nil || string(data) != "ran\n" {
		t.Errorf("output %q, %v", data, err)
	}
	if found, dir, err := executor.Find(runtime); err != nil || found != process || dir != sandbox {
		t.Errorf("found %v in %s, %v", found, dir, err)
	}
	if _, err := executor.Connect(runtime); err == nil {
		t.Error("an executor that has ended accepts connections")
	}
}
