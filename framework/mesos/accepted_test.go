package mesos

import (
	"fmt"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	placement "github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// definitions are apps of which the master must accept a task, whatever becomes
// of it on an agent.
var definitions = []string{
	`{"id":"/args","args":["sleep","0"],"fetch":[{"uri":"file:///etc/hostname","extract":false,"destPath":"name"}]}`,
	`{"id":"/gpu","cmd":"true","gpus":0,"labels":{"":"x","a":""},"env":{"EMPTY":"","S":{"secret":"s"}},"secrets":{"s":{"source":"/x"}}}`,
	`{"id":"/limits","cmd":"true","resourceLimits":{"cpus":"unlimited","mem":"unlimited"},"taskKillGracePeriodSeconds":0}`,
	`{"id":"/lower-limits","cmd":"true","cpus":0.1,"mem":32,"resourceLimits":{"cpus":0.1,"mem":32}}`,
	`{"id":"/ports","cmd":"true","portDefinitions":[{"port":0,"protocol":"udp,tcp","name":"a"},{"port":0,"labels":{"k":"v"}}]}`,
	`{"id":"/mesos-http","cmd":"true","portDefinitions":[{"port":0}],"healthChecks":[{"protocol":"MESOS_HTTP","path":"up","maxConsecutiveFailures":0}]}`,
	`{"id":"/mesos-https","cmd":"true","portDefinitions":[{"port":0}],"healthChecks":[{"protocol":"MESOS_HTTPS"}],"check":{"http":{"portIndex":0,"path":"up"}}}`,
	`{"id":"/mesos-tcp","cmd":"true","portDefinitions":[{"port":0}],"healthChecks":[{"protocol":"MESOS_TCP","delaySeconds":0,"gracePeriodSeconds":0,"intervalSeconds":0,"timeoutSeconds":0}],"check":{"tcp":{"portIndex":0}}}`,
	`{"id":"/command","cmd":"true","healthChecks":[{"protocol":"COMMAND","command":{"value":"true"}}],"check":{"exec":{"command":{"argv":["true","x"]}}}}`,
	`{"id":"/check-shell","cmd":"true","check":{"exec":{"command":{"shell":"true"}}}}`,
	`{"id":"/image","container":{"type":"MESOS","docker":{"image":"busybox","forcePullImage":true}}}`,
	`{"id":"/image-args","args":["x"],"container":{"type":"MESOS","docker":{"image":"busybox","pullConfig":{"secret":"s"}}},"secrets":{"s":{"source":"/x"}}}`,
	`{"id":"/volumes","cmd":"true","secrets":{"s":{"source":"/x"}},"container":{"type":"MESOS","volumes":[
		{"containerPath":"h","hostPath":"/tmp","mode":"RO"},{"containerPath":"s","secret":"s"},
		{"containerPath":"e","mode":"RW","external":{"provider":"dvdi","name":"v","size":1,"options":{"dvdi/driver":"d","dvdi/k":"v"}}},
		{"containerPath":"/x","mode":"RW","external":{"provider":"dvdi","name":"w","options":{"dvdi/driver":"d"}}}]}}`,
	`{"id":"/bridge","cmd":"true","networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"containerPort":80,"hostPort":0},{"containerPort":81}]}}`,
	`{"id":"/network","cmd":"true","networks":[{"mode":"container","name":"n","labels":{"k":"v"}}],"container":{"type":"MESOS","portMappings":[{"containerPort":0}]}}`,
	`{"id":"/tty","cmd":"true","tty":true,"user":"nobody","container":{"type":"MESOS","linuxInfo":{"ipcInfo":{"mode":"PRIVATE","shmSize":16},"seccomp":{"unconfined":true}}}}`,
	`{"id":"/docker","container":{"type":"DOCKER","docker":{"image":"i","privileged":true,"parameters":[{"key":"k","value":""}]},"volumes":[{"containerPath":"/h","hostPath":"/tmp","mode":"RW"}]}}`,
	`{"id":"/docker-bridge","args":["x"],"networks":[{"mode":"container/bridge"}],"container":{"type":"DOCKER","docker":{"image":"i"},"portMappings":[{"containerPort":80,"hostPort":0,"protocol":"udp"}]},"healthChecks":[{"protocol":"MESOS_HTTP","ipProtocol":"IPv6"}]}`,
	`{"id":"/docker-user","cmd":"x","networks":[{"mode":"container","name":"n"}],"container":{"type":"DOCKER","docker":{"image":"i"},"portMappings":[{"containerPort":80,"hostPort":0}]}}`,
}

// No task that the API lets in is one that the master calls invalid: it would be
// launched and refused for ever.
func TestMasterAcceptsEveryKindOfTask(t *testing.T) {
	c := clusterConn(t, startCluster(t), "")
	expect[core.Subscribed](c)
	for n, d := range definitions {
		a, err := app.Parse([]byte(d), app.Options{Role: "dvdi", Secrets: true, GPUs: true})
		if err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		a.CPUs, a.Mem, a.Version = 0.1, 32, testVersion
		id := a.ID.SafePath() + fmt.Sprintf(".instance-00000000-0000-1000-8000-%012d._app.1", n)
		offer := c.anyOffer()
		task := &core.Task{
			ID: id, AgentID: offer.AgentID, Hostname: offer.Hostname, App: a, SecretValues: map[string]string{"s": "x"},
			Resources: []resource.Resource{take(t, offer, "cpus", 100), take(t, offer, "mem", 32_000)},
		}
		takePorts(t, task, offer)
		if err := c.Accept(testContext(t), core.Accept{
			OfferIDs: []string{offer.ID}, AgentID: offer.AgentID, Operations: []core.Operation{{Kind: placement.OpLaunch, Task: task}},
		}); err != nil {
			t.Fatalf("%s: %v", a.ID, err)
		}
		s := c.firstStatus(id)
		if s.State == "TASK_ERROR" {
			t.Errorf("%s: %s", a.ID, s.Message)
		}
	}
}

// takePorts gives a task its first host ports of the offer.
func takePorts(t *testing.T, task *core.Task, offer placement.Offer) {
	t.Helper()
	n := len(task.App.Ports)
	if !task.App.HostNetworked() {
		n = 0
		for _, m := range task.App.Container.PortMappings {
			if m.HostPort != nil {
				n++
			}
		}
	}
	if n == 0 {
		return
	}
	for _, r := range offer.Resources {
		if r.Name != "ports" {
			continue
		}
		var chosen []resource.Range
		for _, free := range r.Ranges {
			for port := free.Begin; port <= free.End && len(task.Ports) < n; port++ {
				task.Ports = append(task.Ports, uint32(port))
				chosen = append(chosen, resource.Range{Begin: port, End: port})
			}
		}
		task.Resources = append(task.Resources, r.WithRanges(resource.NormalizeRanges(chosen)))
		return
	}
	t.Fatalf("no ports in the offer %+v", offer.Resources)
}

// anyOffer waits for an offer, whatever else arrives.
func (c *testConn) anyOffer() placement.Offer {
	c.t.Helper()
	for end := time.Now().Add(3 * deadline); ; {
		if time.Now().After(end) {
			c.t.Fatal("no offer")
		}
		e := c.next()
		c.acknowledge(e)
		offers, ok := e.(core.Offers)
		if !ok || len(offers.Offers) == 0 {
			continue
		}
		for _, o := range offers.Offers[1:] {
			c.decline(o)
		}
		return offers.Offers[0]
	}
}

// firstStatus acknowledges what comes until the task's first status.
func (c *testConn) firstStatus(id string) core.Status {
	c.t.Helper()
	for end := time.Now().Add(3 * deadline); ; {
		if time.Now().After(end) {
			c.t.Fatalf("no status of task %s", id)
		}
		e := c.next()
		c.acknowledge(e)
		switch e := e.(type) {
		case core.Subscribed: // what the master said meanwhile is lost
			c.tolerate(c.Reconcile(testContext(c.t), []core.TaskRef{{TaskID: id}}))
		case core.Status:
			if e.TaskID == id {
				return e
			}
		case core.Offers:
			for _, o := range e.Offers {
				c.decline(o)
			}
		}
	}
}
