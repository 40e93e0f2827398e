package mesos

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// startListedRoles starts a master that lists the roles "dvdi" and "good".
func startListedRoles(t *testing.T) *embeddedmesos.Cluster {
	t.Helper()
	cluster, err := embeddedmesos.Start(testContext(t), embeddedmesos.Config{
		Dir: t.TempDir(), Timing: embeddedmesos.FastTiming(), Roles: []string{"dvdi", "good"},
		Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
		Agents: []embeddedmesos.AgentConfig{{Hostname: "agent1.test"}},
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

// offeredTo declines offers until one is for the role.
func (c *testConn) offeredTo(role string) {
	c.t.Helper()
	until(c, "an offer for "+role, func(offers core.Offers) bool {
		for _, o := range offers.Offers {
			if o.Resources[0].AllocatedRole == role {
				return true
			}
			c.tolerate(c.Decline(testContext(c.t), []string{o.ID}, time.Minute))
		}
		return false
	})
}

// One role that the master does not list costs no other its offers, neither
// when roles are added nor at the next subscription.
func TestRoleThatTheMasterDoesNotAllow(t *testing.T) {
	cluster := startListedRoles(t)
	config := testConfig(t, cluster.Addr())
	all := []string{"bad", "dvdi", "good", "worse"}

	c := run(t, config, "")
	first := expect[core.Subscribed](c)
	if !slices.Equal(first.Roles, []string{"dvdi"}) {
		t.Errorf("subscribed with %q", first.Roles)
	}
	var refused *core.RolesRefusedError
	if err := c.UpdateRoles(testContext(t), all); !errors.As(err, &refused) || !slices.Equal(refused.Roles, []string{"bad", "worse"}) {
		t.Fatalf("UpdateRoles: %v", err)
	}
	c.offeredTo("good")
	if err := c.UpdateRoles(testContext(t), []string{"bad", "dvdi"}); !errors.As(err, &refused) || !slices.Equal(refused.Roles, []string{"bad"}) {
		t.Fatalf("UpdateRoles: %v", err)
	}
	if err := c.Revive(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	c.offeredTo("dvdi")
	c.stop()

	// As after a restart, with the roles of the apps that are stored.
	conn, err := New(config, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.UpdateRoles(testContext(t), all); err != nil {
		t.Fatal(err)
	}
	again := runConn(t, conn, first.FrameworkID)
	expect[core.MasterError](again)
	if s := expect[core.Subscribed](again); s.FrameworkID != first.FrameworkID || !slices.Equal(s.Roles, []string{"dvdi"}) {
		t.Errorf("subscribed as %s with %q", s.FrameworkID, s.Roles)
	}
	if err := again.UpdateRoles(testContext(t), all); !errors.As(err, &refused) || !slices.Equal(refused.Roles, []string{"bad", "worse"}) {
		t.Fatalf("UpdateRoles: %v", err)
	}
	again.offeredTo("good")
}

// A framework that is refused with the roles of its configuration alone gives up,
// as before.
func TestConfiguredRoleThatTheMasterDoesNotAllow(t *testing.T) {
	config := testConfig(t, startListedRoles(t).Addr())
	config.Roles = []string{"bad"}
	var fromMaster masterError
	if err := run(t, config, "").wait(); !errors.As(err, &fromMaster) {
		t.Errorf("Run returned %v", err)
	}
}

// An old master has one way to change roles, a new subscription. A role that it
// does not allow interrupts once, not for ever.
func TestRoleThatAnOldMasterDoesNotAllow(t *testing.T) {
	m := newScriptedMaster(t, func(n int, s *stream) {
		if n == 2 { // the one with the bad role
			s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{
				Message: "Roles { bad } are not present in the master's --roles"}})
			return
		}
		s.accept()
		s.hold()
	})
	m.answer = func(w http.ResponseWriter, _ *http.Request, _ *scheduler.Call) {
		http.Error(w, "Failed to validate scheduler::Call: Expecting 'type' to be present", http.StatusBadRequest)
	}
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	if err := c.UpdateRoles(testContext(t), []string{"bad", "dvdi"}); err != nil {
		t.Fatal(err)
	}
	expect[core.Disconnected](c)
	expect[core.MasterError](c)
	if s := expect[core.Subscribed](c); !slices.Equal(s.Roles, []string{"dvdi"}) {
		t.Errorf("subscribed with %q", s.Roles)
	}
	var refused *core.RolesRefusedError
	if err := c.UpdateRoles(testContext(t), []string{"bad", "dvdi"}); !errors.As(err, &refused) || !slices.Equal(refused.Roles, []string{"bad"}) {
		t.Errorf("UpdateRoles: %v", err)
	}
	var roles []string
	for _, s := range m.subscriptions() {
		roles = append(roles, strings.Join(s.call.Subscribe.FrameworkInfo.Roles, " "))
	}
	if !slices.Equal(roles, []string{"dvdi", "bad dvdi", "dvdi"}) {
		t.Errorf("subscriptions with %q", roles)
	}
}

// The master knows the framework with the user of an earlier configuration, which
// only a subscription may differ from.
func TestRolesAfterTheUserHasChanged(t *testing.T) {
	cluster := startListedRoles(t)
	config := testConfig(t, cluster.Addr())
	config.User = ""
	first := run(t, config, "")
	id := expect[core.Subscribed](first).FrameworkID
	first.stop()
	first.wait()

	config.User = "somebody"
	c := run(t, config, id)
	expect[core.Subscribed](c)
	if err := c.UpdateRoles(testContext(t), []string{"dvdi", "good"}); err != nil {
		t.Fatal(err)
	}
	c.offeredTo("good")
}

// A subscription that ends while roles are added says nothing of the roles.
func TestRolesWhenTheSubscriptionEnds(t *testing.T) {
	for _, answer := range []struct {
		status int
		text   string
	}{{http.StatusForbidden, "Framework is not subscribed"}, {http.StatusBadRequest, "Framework cannot be found"}} {
		c, m := subscribedConn(t)
		m.answer = func(w http.ResponseWriter, _ *http.Request, _ *scheduler.Call) {
			http.Error(w, answer.text, answer.status)
		}
		err := c.UpdateRoles(testContext(t), []string{"dvdi", "new"})
		var refused *core.RolesRefusedError
		if err == nil || errors.As(err, &refused) {
			t.Errorf("%s: UpdateRoles returned %v", answer.text, err)
		}
	}
}

// The master's refusal of another principal has nothing to do with roles: it ends
// the run at once, with what to do.
func TestAnotherPrincipalIsNotTakenForRoles(t *testing.T) {
	var subscriptions atomic.Int32
	m := newScriptedMaster(t, func(_ int, s *stream) {
		subscriptions.Add(1)
		s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{
			Message: "Changing framework's principal is not allowed."}})
	})
	conn, err := New(testConfig(t, m.URL), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.UpdateRoles(testContext(t), []string{"dvdi", "web"}); err != nil {
		t.Fatal(err)
	}
	c := runConn(t, conn, "former")
	expect[core.MasterError](c)
	if err := c.wait(); err == nil || !strings.Contains(err.Error(), "start with the principal that the framework registered with") {
		t.Errorf("Run returned %v", err)
	}
	if n := subscriptions.Load(); n != 1 {
		t.Errorf("%d subscriptions, want one", n)
	}
}
