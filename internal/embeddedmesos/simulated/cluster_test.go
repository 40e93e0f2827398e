package simulated

import (
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a test on a cluster of two registered agents of one CPU each.
func inBubble(t *testing.T, cfg Config, test func(t *testing.T, c *Cluster)) {
	t.Helper()
	cfg.Dir = t.TempDir()
	cfg.Agents = []AgentConfig{{Hostname: "a.test", CPUs: 1}, {Hostname: "b.test", CPUs: 1}}
	bubbletest.Test(t, func(t *testing.T) {
		c, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		bubbletest.Wait()
		for _, a := range c.Agents() {
			if a.ID() == "" {
				t.Fatalf("%s has not registered", a.Hostname())
			}
		}
		test(t, c)
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// run launches a task as the master would.
func (a *Agent) runTest(id string, cpus float64, volumes ...Volume) {
	info := mesos.TaskInfo{Name: id, TaskID: mesos.TaskID{Value: id}, Resources: []mesos.Resource{resources.NewCPUs(cpus).Resource},
		Container: &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}}
	for _, v := range volumes {
		info.Container.Volumes = append(info.Container.Volumes, mesos.Volume{Source: &mesos.Volume_Source{
			Type: mesos.Volume_Source_DOCKER_VOLUME, DockerVolume: &mesos.Volume_Source_DockerVolume{Driver: &v.Driver, Name: v.Name},
		}})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.receive(link.Run{Framework: mesos.FrameworkInfo{ID: &mesos.FrameworkID{Value: "f"}}, Task: info})
}

func violation(t *testing.T, c *Cluster, part string) {
	t.Helper()
	if v := c.Violations(); len(v) != 1 || !strings.Contains(v[0], part) {
		t.Errorf("violations %q, want one that says %q", v, part)
	}
}

func TestTwoMountsAreNoticed(t *testing.T) {
	slow := Config{UnmountDelay: func(string) time.Duration { return 10 * time.Second }}
	v := Volume{"disk", "v"}
	inBubble(t, slow, func(t *testing.T, c *Cluster) {
		a, b := c.Agents()[0], c.Agents()[1]
		a.runTest("one", 0.1, v)
		a.runTest("two", 0.1, v) // on the same host: no violation
		a.End("one", true)
		time.Sleep(11 * time.Second)
		if users := a.Mounts()[v]; len(users) != 1 || users[0] != "two" {
			t.Errorf("mounted for %v, want the task that still runs", users)
		}
		a.End("two", true)
		time.Sleep(9 * time.Second)
		if len(c.Violations()) > 0 {
			t.Errorf("violations %q", c.Violations())
		}
		b.runTest("three", 0.1, v) // a second before it is unmounted
		violation(t, c, "disk is mounted on b.test for three while it is mounted on a.test")
	})
}

func TestAMountEndsWithItsHost(t *testing.T) {
	v := Volume{"disk", "v"}
	inBubble(t, Config{}, func(t *testing.T, c *Cluster) {
		a, b := c.Agents()[0], c.Agents()[1]
		a.runTest("one", 0.1, v)
		a.Partition() // which alone changes nothing
		a.LoseHost()
		b.runTest("two", 0.1, v)
		if len(c.Violations()) > 0 || len(a.Mounts()) > 0 || len(b.Mounts()) != 1 {
			t.Errorf("violations %q, mounts %v and %v", c.Violations(), a.Mounts(), b.Mounts())
		}
		a.Heal()
		a.StartHost()
		bubbletest.Wait()
		if tasks := a.Tasks(); len(tasks) != 0 {
			t.Errorf("a new start has tasks %v", tasks)
		}
	})
}

func TestABackendThatRefuses(t *testing.T) {
	v := Volume{"cloud", "v"}
	inBubble(t, Config{Refuses: func(driver string) bool { return driver == "cloud" }}, func(t *testing.T, c *Cluster) {
		a, b := c.Agents()[0], c.Agents()[1]
		a.runTest("one", 0.1, v)
		b.runTest("two", 0.1, v)
		if len(c.Violations()) > 0 || len(b.Tasks()) != 0 || len(b.Mounts()) != 0 || len(a.Tasks()) != 1 {
			t.Errorf("violations %q, tasks %v", c.Violations(), b.Tasks())
		}
	})
}

func TestOverCommitmentIsNoticed(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, c *Cluster) {
		a := c.Agents()[0]
		a.runTest("one", 0.6)
		a.runTest("two", 0.4)
		if len(c.Violations()) > 0 {
			t.Fatalf("violations %q", c.Violations())
		}
		a.runTest("three", 0.1)
		violation(t, c, "a.test is over-committed by the launch of three: 1.1")
	})
}

func TestUpdatesAreRepeatedUntilAcknowledged(t *testing.T) {
	inBubble(t, Config{StatusRetry: time.Second}, func(t *testing.T, c *Cluster) {
		a := c.Agents()[0]
		a.runTest("one", 0.1)
		time.Sleep(time.Minute) // nobody acknowledges: the master knows no such framework
		a.mu.Lock()
		defer a.mu.Unlock()
		one := a.tasks["one"]
		if len(one.pending) != 2 || one.retry == nil {
			t.Fatalf("%d updates wait, want TASK_STARTING and TASK_RUNNING", len(one.pending))
		}
		for range 2 {
			a.receive(link.Acknowledge{TaskID: one.info.TaskID, UUID: []byte("another")})
			a.receive(link.Acknowledge{TaskID: one.info.TaskID, UUID: one.pending[0].UUID})
		}
		if len(one.pending) != 0 || a.tasks["one"] == nil {
			t.Errorf("%d updates wait for a task that runs: %v", len(one.pending), a.tasks["one"])
		}
	})
}
