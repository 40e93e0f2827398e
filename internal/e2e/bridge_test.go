package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

// claims says which hosts the framework thinks a volume to be bound to.
func (e *env) claims() []string {
	var out struct {
		Volumes []struct {
			Hostname string `json:"hostname"`
			State    string `json:"state"`
		} `json:"volumes"`
	}
	e.must(http.MethodGet, "/v2/volumes", nil, &out)
	var hosts []string
	for _, c := range out.Volumes {
		if c.State != "bound" {
			hosts = append(hosts, c.Hostname)
		}
	}
	return hosts
}

// TestVolumeMovesByTheBridgesWord: an agent's bridge reports a volume unmounted
// and its container gone; then the claim ends and the app runs elsewhere, where
// it finds what it wrote. While the bridge is away the volume stays.
func TestVolumeMovesByTheBridgesWord(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the bridges of an external Mesos belong to its operator")
	}
	e := newEnvWith(t, 2, reference, true)
	app := e.app("/mover", "mover", writer)
	e.must(http.MethodPost, "/v2/apps", app, nil)
	first := e.did(e.running("/mover", 1)[0])
	e.settled()
	from := e.cluster.Node(first.Host)
	to := e.cluster.Nodes[0]
	if to == from {
		to = e.cluster.Nodes[1]
	}

	from.KillBridge()
	e.must(http.MethodPut, "/v2/apps/mover", object{"instances": 0}, nil)
	e.settled()
	e.poll("the agent to unmount", func() (bool, string, error) {
		out, err := from.DVDCLI(e.ctx, "status", "--output=json")
		return strings.TrimSpace(out) == "[]", out, err
	})
	if c := e.claims(); len(c) != 1 || c[0] != first.Host {
		t.Fatalf("claims without a bridge: %v", c)
	}
	if err := from.StartBridge(e.ctx); err != nil {
		t.Fatal(err)
	}
	e.poll("the claim to end", func() (bool, string, error) {
		c := e.claims()
		return len(c) == 0, strings.Join(c, ","), nil
	})

	e.must(http.MethodPut, "/v2/apps/mover", object{"instances": 1, "constraints": [][]string{{"hostname", "CLUSTER", to.Hostname()}}}, nil)
	second := e.did(e.running("/mover", 1, first.ID)[0])
	if second.Host != to.Hostname() {
		t.Errorf("it runs on %s", second.Host)
	}
	if _, err := from.DVDCLI(e.ctx, "mount", "--volumedriver="+e.driver.name, "--volumename=mover", "--volumeopts=dvdi.epoch=1"); err == nil {
		t.Error("the old agent mounted it again under the old epoch")
	}
	e.remove("/mover")
	e.holds("mover", first.ID, second.ID)
}
