package scheduler_test

import (
	"fmt"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// A database whose volume is still being unmounted on agent a1 waits for that
// agent, though a2 has room; another starts where its volume was last.
func ExampleDecide() {
	w := schedtest.New()
	w.Agents("a2", "a3")
	w.Claim("orders", "a1", scheduler.Releasing)
	w.Volume("users").Last("a3")
	w.Pending("orders-db").Mounts("orders", scheduler.OneTask)
	w.Pending("users-db").Mounts("users", scheduler.OneTask)

	plan := scheduler.Decide(w.Build())
	for _, a := range plan.Accepts {
		for _, o := range a.Operations {
			fmt.Printf("%s on %s: %s\n", o.Launch.InstanceID, a.Hostname, o.Launch.Why)
		}
	}
	for _, wait := range plan.Waiting {
		fmt.Printf("%s waits: %s\n", wait.InstanceID, wait.Text)
	}
	// Output:
	// users-db on a3.test: its volumes were last on a3.test
	// orders-db waits: volume orders (driver drv) is being unmounted on agent a1.test; it starts there with the agent's next offer, or elsewhere when the agent's bridge confirms the unmount or an operator releases the claim by force
}
