package mesos

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	placement "github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

const secret = "s3cret"

func startCluster(t *testing.T) *embeddedmesos.Cluster {
	t.Helper()
	cluster, err := embeddedmesos.Start(testContext(t), embeddedmesos.Config{
		Dir:         t.TempDir(),
		Credentials: map[string]string{"dvdi-principal": secret},
		Timing:      embeddedmesos.FastTiming(),
		Logger:      zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
		Agents: []embeddedmesos.AgentConfig{
			{Hostname: "agent1.test", Attributes: map[string]string{"rack": "r1"}, Region: "eu", Zone: "a"},
			{Hostname: "agent2.test", Attributes: map[string]string{"rack": "r2"}, Region: "eu", Zone: "b"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := cluster.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

func clusterConn(t *testing.T, cluster *embeddedmesos.Cluster, frameworkID string) *testConn {
	t.Helper()
	config := testConfig(t, cluster.Addr())
	config.User = ""
	config.Secret = secret
	config.MaxBackoff = 100 * time.Millisecond
	return run(t, config, frameworkID)
}

// until reads events up to the first of type E that is wanted. All others are
// dealt with as the core would: statuses are acknowledged, offers declined.
func until[E core.Event](c *testConn, what string, wanted func(E) bool) E {
	c.t.Helper()
	for end := time.Now().Add(3 * deadline); ; {
		if time.Now().After(end) {
			c.t.Fatalf("waited in vain for %s", what)
		}
		e := c.next()
		c.acknowledge(e)
		if candidate, ok := e.(E); ok {
			if wanted(candidate) {
				return candidate
			}
		} else if offers, ok := e.(core.Offers); ok {
			for _, o := range offers.Offers {
				c.decline(o)
			}
		}
		if s, ok := e.(core.Status); ok && (s.State == "TASK_ERROR" || s.State == "TASK_FAILED" || s.State == "TASK_DROPPED") {
			c.t.Fatalf("waiting for %s: %s: %s", what, s.State, s.Message)
		}
	}
}

// reconciled asks for the state of a task until it is told as wanted. A master says
// nothing of a task whose agent may come back, and what it says while the connection
// breaks is lost: it is asked again.
func (c *testConn) reconciled(task core.TaskRef, state string) {
	c.t.Helper()
	again, end := time.NewTicker(time.Second), time.After(deadline)
	defer again.Stop()
	c.tolerate(c.Reconcile(testContext(c.t), []core.TaskRef{task}))
	for {
		select {
		case <-again.C:
			c.tolerate(c.Reconcile(testContext(c.t), []core.TaskRef{task}))
		case <-end:
			c.t.Fatalf("the master does not say that task %s is %s", task.TaskID, state)
		case e, open := <-c.Events():
			if !open {
				<-c.done
				c.t.Fatalf("no more events, Run returned: %v", c.err)
			}
			c.acknowledge(e)
			switch e := e.(type) {
			case core.Offers:
				for _, o := range e.Offers {
					c.decline(o)
				}
			case core.Status:
				if e.TaskID == task.TaskID && e.State == state && e.Reason == "REASON_RECONCILIATION" && len(e.UUID) == 0 {
					return
				}
			}
		}
	}
}

func (c *testConn) acknowledge(e core.Event) {
	c.t.Helper()
	var err error
	switch e := e.(type) {
	case core.Status:
		err = c.Acknowledge(testContext(c.t), e)
	case core.OperationStatus:
		err = c.AcknowledgeOperation(testContext(c.t), e)
	}
	c.tolerate(err)
}

// tolerate fails the test for a call that the master refused. While the master
// is away no call can be made: it will ask or offer again.
func (c *testConn) tolerate(err error) {
	c.t.Helper()
	var refusal *core.CallError
	if errors.As(err, &refusal) && !refusal.Temporary() {
		c.t.Fatal(err)
	}
}

// decline gives an offer back, to be offered again at once.
func (c *testConn) decline(o placement.Offer) {
	c.t.Helper()
	c.tolerate(c.Decline(testContext(c.t), []string{o.ID}, 0))
}

// offerOf waits for an offer of an agent that has what is wanted, and lets
// others go.
func (c *testConn) offerOf(hostname string, wanted func(placement.Offer) bool) placement.Offer {
	c.t.Helper()
	var found placement.Offer
	until(c, "offer of "+hostname, func(offers core.Offers) bool {
		for _, o := range offers.Offers {
			if found.ID == "" && o.Hostname == hostname && wanted(o) {
				found = o
			} else {
				c.decline(o)
			}
		}
		return found.ID != ""
	})
	return found
}

// take cuts an amount from the offered resource of that name.
func take(t *testing.T, o placement.Offer, name string, amount resource.Milli) resource.Resource {
	t.Helper()
	i := slices.IndexFunc(o.Resources, func(r resource.Resource) bool {
		return r.Name == name && r.Scalar >= amount && r.Disk == nil && len(r.Reservations) == 0
	})
	if i < 0 {
		t.Fatalf("no %s in the offer %+v", name, o.Resources)
	}
	return o.Resources[i].WithScalar(amount)
}

const sandboxTask = "prod_db.instance-1._app.1"

// TestLifeOnTheEmbeddedMesos goes through what a framework does with a master:
// reservations, a volume, a task with a health check, reconciliation, failover
// of the master and of the framework, kill, and the end of it all.
func TestLifeOnTheEmbeddedMesos(t *testing.T) {
	cluster := startCluster(t)
	c := clusterConn(t, cluster, "")
	id := expect[core.Subscribed](c).FrameworkID

	offer := c.offerOf("agent1.test", func(placement.Offer) bool { return true })
	if offer.Region != "eu" || offer.Zone != "a" || offer.Attributes["rack"] != "r1" {
		t.Errorf("offer %+v", offer)
	}
	operations, volume := launchWithVolume(t, offer)
	if err := c.Accept(testContext(t), core.Accept{
		OfferIDs: []string{offer.ID}, AgentID: offer.AgentID, Operations: operations, Refuse: time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]string{}
	var healthy core.Status
	for len(outcomes) < 2 || healthy.TaskID == "" {
		e := c.next()
		c.acknowledge(e)
		switch e := e.(type) {
		case core.OperationStatus:
			outcomes[e.OperationID] = e.State
		case core.Status:
			if e.State != "TASK_STARTING" && e.State != "TASK_RUNNING" && e.State != "TASK_STAGING" {
				t.Fatalf("status %+v", e)
			}
			if e.Healthy != nil && *e.Healthy {
				healthy = e
			}
		}
	}
	if outcomes["reserve-1"] != "OPERATION_FINISHED" || outcomes["create-1"] != "OPERATION_FINISHED" {
		t.Errorf("operations %v", outcomes)
	}
	checkSandbox(t, cluster.Agents()[0])

	task := core.TaskRef{TaskID: sandboxTask, AgentID: offer.AgentID}
	c.reconciled(task, "TASK_RUNNING")
	c.reconciled(core.TaskRef{TaskID: "nobody"}, "TASK_UNKNOWN")
	for agent, want := range map[string]bool{offer.AgentID: false, "nowhere": true} {
		if removed, err := c.AgentRemoved(testContext(t), agent); err != nil || removed != want {
			t.Errorf("agent %s: removed %v, error %v", agent, removed, err)
		}
	}

	cluster.KillMaster()
	until(c, "end of the subscription", func(core.Disconnected) bool { return true })
	if err := cluster.StartMaster(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if again := until(c, "the new master", func(core.Subscribed) bool { return true }); again.FrameworkID != id {
		t.Errorf("framework id %s, had been %s", again.FrameworkID, id)
	}
	c.reconciled(task, "TASK_RUNNING")

	// Another process takes over: the first must notice and stop.
	next := clusterConn(t, cluster, id)
	expect[core.Subscribed](next)
	if err := c.wait(); !errors.Is(err, core.ErrFailedOver) {
		t.Errorf("the replaced framework's Run returned %v", err)
	}

	if err := next.Kill(testContext(t), sandboxTask, offer.AgentID, pointer(time.Second)); err != nil {
		t.Fatal(err)
	}
	until(next, "end of the task", func(s core.Status) bool { return s.TaskID == sandboxTask && s.State == "TASK_KILLED" })
	release(t, next, volume)

	if err := next.Teardown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := next.wait(); !errors.Is(err, core.ErrFrameworkRemoved) {
		t.Errorf("after the teardown Run returned %v", err)
	}
	if err := clusterConn(t, cluster, id).wait(); !errors.Is(err, core.ErrFrameworkRemoved) {
		t.Errorf("with the id of a removed framework Run returned %v", err)
	}
}

// launchWithVolume reserves, creates a volume and launches a task on it, all in
// one round.
func launchWithVolume(t *testing.T, offer placement.Offer) (operations []core.Operation, volume resource.Resource) {
	t.Helper()
	reservation := resource.Reservation{
		Role: "dvdi", Principal: "dvdi-principal", Dynamic: true, Labels: []resource.Label{{Key: "dvdi_instance", Value: "db.1"}},
	}
	var reserved []resource.Resource
	for name, amount := range map[string]resource.Milli{"cpus": 100, "mem": 32_000, "disk": 64_000} {
		reserved = append(reserved, take(t, offer, name, amount).Reserve(reservation))
	}
	slices.SortFunc(reserved, func(a, b resource.Resource) int { return strings.Compare(a.Name, b.Name) })
	volume = reserved[1].Persist("db#data#1", "dvdi-principal", "data")
	task := &core.Task{
		ID: sandboxTask, InstanceID: "prod_db.instance-1", AgentID: offer.AgentID, Hostname: offer.Hostname,
		Resources: []resource.Resource{reserved[0], volume, reserved[2]},
		App: &app.App{
			ID: "/prod/db", CPUs: 0.1, Mem: 32, Version: testVersion,
			Cmd:       `env > env.txt && echo hello > data/x && touch ready && sleep 1000`,
			Env:       map[string]app.EnvVar{"GREETING": {Value: "hello world"}},
			Labels:    map[string]string{"tier": "db"},
			Container: &app.Container{Type: app.Mesos, Volumes: []app.Volume{{ContainerPath: "data", Mode: "RW", Persistent: &app.Persistent{Size: 64}}}},
			Health: []app.HealthCheck{{Protocol: "COMMAND", Command: &app.Command{Value: "test -e ready"},
				GracePeriodSeconds: 60, IntervalSeconds: 1, TimeoutSeconds: 10, MaxConsecutiveFailures: 3}},
		},
	}
	return []core.Operation{
		{Kind: placement.OpReserve, ID: "reserve-1", Resources: reserved},
		{Kind: placement.OpCreate, ID: "create-1", Resources: []resource.Resource{volume}},
		{Kind: placement.OpLaunch, Task: task},
	}, volume
}

// checkSandbox looks at what the task saw.
func checkSandbox(t *testing.T, agent *embeddedmesos.Agent) {
	t.Helper()
	sandbox, err := agent.Sandbox(sandboxTask)
	if err != nil {
		t.Fatal(err)
	}
	env, err := os.ReadFile(filepath.Join(sandbox, "env.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(env), "\n")
	for _, want := range []string{
		"MESOS_TASK_ID=" + sandboxTask, "MARATHON_APP_ID=/prod/db", "MARATHON_APP_RESOURCE_MEM=32.0",
		"HOST=agent1.test", "MARATHON_APP_LABEL_TIER=db", "GREETING=hello world",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the task's environment lacks %s", want)
		}
	}
}

// release destroys the volume and gives the reservation back when they are
// offered again.
func release(t *testing.T, c *testConn, volume resource.Resource) {
	t.Helper()
	if err := c.Revive(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	offer := c.offerOf("agent1.test", func(o placement.Offer) bool {
		return slices.ContainsFunc(o.Resources, func(r resource.Resource) bool { return r.Disk.Equal(volume.Disk) })
	})
	var ours []resource.Resource
	for _, r := range offer.Resources {
		if len(r.Reservations) > 0 {
			ours = append(ours, r.WithoutPersistence())
		}
	}
	if err := c.Accept(testContext(t), core.Accept{
		OfferIDs: []string{offer.ID}, AgentID: offer.AgentID, Operations: []core.Operation{
			{Kind: placement.OpDestroy, ID: "destroy-1", Resources: []resource.Resource{volume}},
			{Kind: placement.OpUnreserve, ID: "unreserve-1", Resources: ours},
		},
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"destroy-1", "unreserve-1"} {
		s := until(c, id, func(s core.OperationStatus) bool { return s.OperationID == id })
		if s.State != "OPERATION_FINISHED" {
			t.Errorf("%s: %s %s", id, s.State, s.Message)
		}
	}
	c.offerOf("agent1.test", func(o placement.Offer) bool {
		return !slices.ContainsFunc(o.Resources, func(r resource.Resource) bool { return len(r.Reservations) > 0 })
	})
}

func TestRolesAreUpdatedOnTheEmbeddedMesos(t *testing.T) {
	c := clusterConn(t, startCluster(t), "")
	expect[core.Subscribed](c)
	if err := c.UpdateRoles(testContext(t), []string{"dvdi", "other"}); err != nil {
		t.Fatal(err)
	}
	until(c, "an offer for the new role", func(offers core.Offers) bool {
		for _, o := range offers.Offers {
			if slices.ContainsFunc(o.Resources, func(r resource.Resource) bool { return r.AllocatedRole == "other" }) {
				return true
			}
			// Kept from the first role for long enough to reach the second.
			c.tolerate(c.Decline(testContext(t), []string{o.ID}, time.Minute))
		}
		return false
	})
}

func TestEmbeddedMesosRefusesAWrongSecret(t *testing.T) {
	cluster := startCluster(t)
	config := testConfig(t, cluster.Addr())
	config.Secret = "wrong"
	var refusal *core.CallError
	if err := run(t, config, "").wait(); !errors.As(err, &refusal) || refusal.Status != 401 {
		t.Errorf("Run returned %v", err)
	}
}
