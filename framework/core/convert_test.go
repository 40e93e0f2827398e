package core

import (
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

func TestAcceptedRoles(t *testing.T) {
	plain := &app.App{}
	resident := &app.App{Container: &app.Container{Volumes: []app.Volume{{Persistent: &app.Persistent{}}}}}
	said := &app.App{AcceptedRoles: []string{"prod"}}
	for _, c := range []struct {
		byDefault            string
		def                  *app.App
		role                 string
		unreserved, reserved bool
	}{
		{"", plain, "prod", true, true},
		{app.AcceptAny, plain, "prod", true, true},
		{app.AcceptUnreserved, plain, "prod", true, false},
		{app.AcceptReserved, plain, "prod", false, true},
		{app.AcceptReserved, plain, "*", true, true},
		{app.AcceptReserved, resident, "prod", true, true},
		{app.AcceptUnreserved, said, "prod", false, true},
		{app.AcceptReserved, &app.App{AcceptedRoles: []string{"*"}}, "prod", true, false},
	} {
		core := &Core{cfg: Config{AcceptByDefault: c.byDefault}}
		if u, r := core.acceptedRoles(c.def, c.role); u != c.unreserved || r != c.reserved {
			t.Errorf("%q, role %s: unreserved %v, reserved %v", c.byDefault, c.role, u, r)
		}
	}
}
