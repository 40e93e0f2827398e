package mesostest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Listeners of a framework at work see the same events in the same order, and
// none is missing.
func TestListenersSeeEverythingInOrder(t *testing.T) {
	const listeners, apps = 100, 40
	f := Start(t, Config{}, core.Config{ReviveInterval: 10 * time.Millisecond}, api.Config{})
	c, err := client.New(client.Config{URL: f.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	streams := make([]<-chan client.Event, listeners)
	for i := range streams {
		if streams[i], err = c.Events(ctx, "instance_changed_event", "deployment_success"); err != nil {
			t.Fatal(err)
		}
	}
	for n := range apps {
		a, err := app.Parse(fmt.Appendf(nil, `{"id":"/a%d","cmd":"x","cpus":0.1,"mem":1}`, n), app.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Core.Change(ctx, core.Change{Upsert: []*app.App{a}}); err != nil {
			t.Fatal(err)
		}
	}
	seen := make([][]string, listeners)
	var wg sync.WaitGroup
	for i, events := range streams {
		wg.Go(func() { seen[i] = untilDeployed(events, apps) })
	}
	wg.Wait()
	cancel()
	for _, events := range streams {
		for range events { // until the stream has ended
		}
	}
	if len(seen[0]) < 3*apps {
		t.Fatalf("%d events of %d apps", len(seen[0]), apps)
	}
	for i, list := range seen {
		if fmt.Sprint(list) != fmt.Sprint(seen[0]) {
			t.Errorf("listener %d saw\n%v, the first saw\n%v", i, list, seen[0])
		}
	}
}

// untilDeployed reads events until so many deployments have succeeded.
func untilDeployed(events <-chan client.Event, deployments int) []string {
	var out []string
	for ev := range events {
		var data struct{ ID, InstanceID, Condition string }
		if json.Unmarshal(ev.Data, &data) != nil {
			return append(out, "unreadable")
		}
		out = append(out, ev.Type+" "+data.ID+data.InstanceID+" "+data.Condition)
		if ev.Type == "deployment_success" {
			if deployments--; deployments == 0 {
				break
			}
		}
	}
	return out
}
