package api

import (
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

const shop = `{"id":"shop","dependencies":["/base"],"groups":[{"id":"data","apps":[{"id":"db","cmd":"x","dependencies":["../log"]}]}],"apps":[{"id":"web","cmd":"y"},{"id":"/shop/log","cmd":"z"}]}`

func TestGroups(t *testing.T) {
	w := start(t, everything())
	a := w.ok(200, "GET", "/v2/groups", "")
	a.wants("/", "id")
	a.wants([]any{}, "apps")
	a.wants([]any{}, "groups")
	w.ok(404, "GET", "/v2/groups/shop", "").wants("Group '/shop' does not exist", "message")
	if a := w.ok(201, "POST", "/v2/groups", shop); a.header.Get("Marathon-Deployment-Id") != "deployment-1" {
		t.Errorf("headers %v", a.header)
	}
	w.ok(409, "POST", "/v2/groups", shop).wants("Group /shop is already created. Use PUT to change this group.", "message")
	w.ok(409, "POST", "/v2/groups/shop/web", `{}`).wants("An app with the path /shop/web already exists.", "message")
	a = w.ok(200, "GET", "/v2/groups", "")
	a.wants("/shop", "groups", 0, "id")
	a.wants("/shop/log", "groups", 0, "apps", 0, "id")
	a.wants("/shop/data/db", "groups", 0, "groups", 0, "apps", 0, "id")
	a.wants([]any{"/shop/log", "/base"}, "groups", 0, "groups", 0, "apps", 0, "dependencies")
	a.wants("2026-01-02T03:04:06.000Z", "version")
	a = w.ok(200, "GET", "/v2/groups/shop?embed=group.groups", "")
	a.wants(nil, "apps")
	w.ok(200, "GET", "/v2/groups/shop?embed=group.groups&embed=group.apps.counts", "").wants(0.0, "apps", 0, "tasksRunning")
	if n := w.ok(200, "GET", "/v2/groups/shop/apps", "").length(); n != 3 {
		t.Errorf("%d apps", n)
	}
	if n := w.ok(200, "GET", "/v2/groups/versions", "").length(); n != 1 {
		t.Errorf("%d versions", n)
	}
}

func TestGroupChanges(t *testing.T) {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/groups", shop)
	w.ok(200, "PUT", "/v2/groups/shop", `{"scaleBy":2.5}`)
	w.ok(200, "GET", "/v2/apps/shop/web", "").wants(3.0, "app", "instances")

	// There is nothing to scale in a group without apps, nor in one that does not
	// exist, which Marathon would make (RootGroup.updateTransitiveApps).
	w.ok(200, "PUT", "/v2/groups/none", `{"scaleBy":2}`)
	w.ok(404, "PUT", "/v2/groups/none", `{"version":"2026-01-02T03:04:06.000Z"}`).wants("Group '/none' does not exist", "message")

	a := w.ok(200, "PUT", "/v2/groups/shop?dryRun=true", `{"apps":[{"id":"web","cmd":"new"}]}`)
	a.wants([]any{map[string]any{"action": "StopApplication", "app": "/shop/log"}}, "steps", 0, "actions")
	a.wants([]any{map[string]any{"action": "RestartApplication", "app": "/shop/web"}}, "steps", 1, "actions")
	w.ok(422, "PUT", "/v2/groups/shop?dryRun=true", `{"apps":[{"id":"web","cmd":"x","dependencies":["web"]}]}`)
	w.ok(200, "PUT", "/v2/groups/shop", `{"apps":[{"id":"web","cmd":"new"}]}`)
	w.ok(404, "GET", "/v2/apps/shop/log", "")
	w.ok(200, "GET", "/v2/apps/shop/data/db", "") // groups were not listed, so they stay
	w.ok(200, "GET", "/v2/apps/shop/web", "").wants("new", "app", "cmd")

	a = w.ok(200, "GET", "/v2/groups/shop/versions/2026-01-02T03:04:06.000Z", "")
	a.wants("/shop", "id")
	a.wants("/shop/web", "apps", 0, "id")
	a.wants("y", "apps", 0, "cmd")
	a.wants(nil, "apps", 0, "tasksRunning")
	w.ok(200, "GET", "/v2/groups/versions/2026-01-02T03:04:06.000Z", "").wants("/shop", "groups", 0, "id")
	w.ok(404, "GET", "/v2/groups/shop/versions/2025-01-02T03:04:06.000Z", "").wants("Group '/shop' does not exist in version 2025-01-02T03:04:06.000Z", "message")
	w.ok(404, "GET", "/v2/groups/none/versions/2026-01-02T03:04:06.000Z", "")
	w.ok(422, "GET", "/v2/groups/shop/versions/then", "")

	w.ok(200, "PUT", "/v2/groups/shop", `{"version":"2026-01-02T03:04:06.000Z"}`)
	w.ok(200, "GET", "/v2/apps/shop/web", "").wants("y", "app", "cmd")

	w.ok(200, "PUT", "/v2/groups/shop", `{"groups":[]}`)
	w.ok(404, "GET", "/v2/apps/shop/data/db", "")
	w.ok(200, "DELETE", "/v2/groups/shop", "")
	w.ok(404, "DELETE", "/v2/groups/shop", "")
	if n := w.ok(200, "GET", "/v2/apps", "").length("apps"); n != 0 {
		t.Errorf("%d apps are left", n)
	}
}

// A version at which there was no app of the group, such as one that is mistyped,
// does not remove them all, nor does one that is so old that nobody knows what was
// then.
func TestGroupIsNotRolledBackToNothing(t *testing.T) {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/groups", shop)
	for _, group := range []string{"/v2/groups", "/v2/groups/shop", "/v2/groups/shop/data"} {
		a := w.ok(422, "PUT", group, `{"version":"2025-01-02T03:04:06.000Z"}`)
		if !strings.Contains(a.message(), "not available in version 2025-01-02T03:04:06.000Z") {
			t.Errorf("%s: %s", group, a.body)
		}
	}
	w.ok(201, "POST", "/v2/apps", `{"id":"/shop/young","cmd":"x"}`)
	w.ok(201, "POST", "/v2/apps", `{"id":"/shop/often","cmd":"x"}`)
	w.core.pruned = "/shop/often"
	for _, a := range []answer{
		w.ok(404, "PUT", "/v2/groups/shop", `{"version":"2026-01-02T03:04:06.000Z"}`),
		w.ok(404, "GET", "/v2/groups/shop/versions/2026-01-02T03:04:06.000Z", ""),
	} {
		if !strings.Contains(a.message(), "App '/shop/often' does not exist in version 2026-01-02T03:04:06.000Z any more") {
			t.Errorf("%s", a.body)
		}
	}
	if n := w.ok(200, "GET", "/v2/groups/shop/apps", "").length(); n != 5 {
		t.Errorf("%d apps are left", n)
	}
	w.core.pruned = ""
	w.ok(200, "PUT", "/v2/groups/shop", `{"version":"2026-01-02T03:04:06.000Z"}`)
	if n := w.ok(200, "GET", "/v2/groups/shop/apps", "").length(); n != 3 {
		t.Errorf("%d apps after going back to three", n)
	}
}

func TestGroupRules(t *testing.T) {
	w := start(t, everything())
	for _, c := range []struct{ body, path, message string }{
		{`{"id":"/other","apps":[]}`, "/id", "Identifier is not child of '/shop'"},
		{`{"apps":[{"id":"/other/a","cmd":"x"}]}`, "/apps(0)/id", "Identifier is not child of '/shop'"},
		{`{"apps":[{"id":"a","cmd":"x","cpus":"1"}]}`, "/apps(0)/cpus", "error.expected.jsnumber"},
		{`{"groups":[{"id":"g","apps":[{"id":"a"}]}]}`, "/groups(0)/apps(0)", "AppDefinition must either contain"},
		{`{"scaleBy":2,"apps":[]}`, "/scaleBy", "not allowed in conjunction with other properties."},
		{`{"version":"2026-01-02T03:04:06.000Z","apps":[]}`, "/version", "not allowed in conjunction with other properties."},
		{`{"enforceRole":true}`, "/enforceRole", "--new_group_enforce_role=top"},
		{`{"pods":[{"id":"p"}]}`, "/pods", "pods are not supported"},
		{`{"groups":[{"apps":[]}]}`, "/groups(0)/id", "not defined"},
		{`{"apps":[{"id":"a","cmd":"x"},{"id":"/shop/a","cmd":"y"}]}`, "/apps(1)/id", "is defined twice"},
		{`{"apps":[{"id":"g/a","cmd":"x"}],"groups":[{"id":"g","apps":[{"id":"a","cmd":"y"}]}]}`, "/groups(0)/apps(0)/id", "is defined twice"},
		{`{"groups":[{"id":"g","apps":[{"id":"a","cmd":"x"}]},{"id":"g","apps":[{"id":"a","cmd":"y"}]}]}`, "/groups(1)/apps(0)/id", "is defined twice"},
		{`{"id":7}`, "/id", "error.expected.jsstring"},
	} {
		a := w.ok(422, "PUT", "/v2/groups/shop", c.body)
		if !strings.Contains(a.detail(c.path), c.message) {
			t.Errorf("%s: want %q at %s, got %s", c.body, c.message, c.path, a.body)
		}
	}
}

func TestRoleOfGroupsIsTheOperators(t *testing.T) {
	const def = `{"id":"/prod/db/a","cmd":"x"}`
	off := start(t, Config{})
	off.ok(201, "POST", "/v2/apps", def)
	off.ok(200, "GET", "/v2/groups/prod", "").wants(false, "enforceRole")
	off.ok(200, "PATCH", "/v2/groups/prod", `{"enforceRole":false}`).wants(false, "enforceRole")
	off.ok(422, "PATCH", "/v2/groups/prod", `{"enforceRole":true}`)
	off.ok(422, "PATCH", "/v2/groups/prod", `{"apps":[]}`)
	off.ok(400, "PATCH", "/v2/groups/prod", `{`)
	off.ok(404, "PATCH", "/v2/groups/none", `{"enforceRole":false}`)

	on := start(t, Config{App: app.Options{GroupRole: true}})
	on.ok(201, "POST", "/v2/apps", def)
	on.ok(200, "GET", "/v2/groups", "").wants(true, "groups", 0, "enforceRole")
	on.ok(200, "GET", "/v2/groups", "").wants(false, "enforceRole")
	on.ok(200, "GET", "/v2/groups/prod", "").wants(false, "groups", 0, "enforceRole")
	on.ok(200, "PATCH", "/v2/groups/prod", `{"enforceRole":true}`).wants(true, "enforceRole")
	on.ok(422, "PATCH", "/v2/groups/prod", `{"enforceRole":false}`)
	on.ok(200, "PUT", "/v2/groups/prod", `{"enforceRole":true,"groups":[{"id":"db","enforceRole":false,"apps":[{"id":"a","cmd":"x"}]}]}`)
	on.ok(422, "PUT", "/v2/groups/prod", `{"enforceRole":false,"apps":[]}`)
}
