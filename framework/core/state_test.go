package core

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/store"
)

func TestStateThatCannotBeUnderstood(t *testing.T) {
	for name, w := range map[string]store.Write{
		"broken record": {Kind: kindApp, Key: "/web", Value: []byte(`{"app":`)},
		"unknown kind":  {Kind: "sorcery", Key: "/web", Value: []byte(`{}`)},
	} {
		st, err := store.OpenBolt(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Commit([]store.Write{w}); err != nil {
			t.Fatal(err)
		}
		_, err = New(Config{}, newCluster().connect(), st, zap.NewNop())
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "/web") || !strings.Contains(err.Error(), "start the version that wrote it") {
			t.Errorf("%s: %v", name, err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestVersionsAreBounded(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.MaxVersions = 3
		r.start()
		r.post(web)
		r.idle()
		first := r.app("/web").App.Version
		if since := r.app("/web").KeptSince; !since.IsZero() {
			t.Errorf("no version is dropped, but all are kept since %v", since)
		}
		for n := range 10 {
			r.scale("/web", 2+n%2)
			r.idle()
		}
		// The tasks of the beginning still run: their version is kept.
		versions, err := r.core.Versions(r.t.Context(), "/web")
		if err != nil || len(versions) < 3 || len(versions) > 5 {
			t.Fatalf("%d versions, %v", len(versions), err)
		}
		if since := r.app("/web").KeptSince; since != versions[2] {
			t.Errorf("all versions are kept since %v, of %v", since, versions)
		}
		if _, err := r.core.AppVersion(r.t.Context(), "/web", first); err != nil {
			t.Error(err)
		}
		r.restart()
		again, err := r.core.Versions(r.t.Context(), "/web")
		if err != nil || len(again) != len(versions) {
			t.Errorf("%d versions after a restart, %v", len(again), err)
		}
	})
}
