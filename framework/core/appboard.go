package core

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// appBoard holds committed views of the apps that clients ask for again and
// again, which wait for a deployment or watch an app: they are answered without
// the core's goroutine, which may be in the middle of a commit. Only that
// goroutine writes to it, after each commit and before the commit is answered.
type appBoard struct {
	mu   sync.RWMutex // guards apps
	apps map[app.ID]*shownApp
}

type shownApp struct {
	view  AppView
	asked atomic.Int64 // Unix time in nanoseconds
}

const (
	// showFor is how long an app is kept up to date that nobody asks for.
	showFor = 10 * time.Second
	// maxShownTasks bounds what is kept up to date: the view of an app with very
	// many tasks costs more than a commit, and each of them changes it.
	maxShownTasks = 200
)

func newAppBoard() *appBoard { return &appBoard{apps: map[app.ID]*shownApp{}} }

// get returns the view of an app, if there is one. The caller does not change
// it.
func (b *appBoard) get(id app.ID) (AppView, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.apps[id]
	if s == nil {
		return AppView{}, false
	}
	s.asked.Store(time.Now().UnixNano())
	return s.view, true
}

// put shows an app that somebody asked for at that time.
func (b *appBoard) put(id app.ID, v AppView, asked int64) {
	if len(v.Tasks) > maxShownTasks {
		b.drop(id)
		return
	}
	s := &shownApp{view: v}
	s.asked.Store(asked)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apps[id] = s
}

func (b *appBoard) drop(id app.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.apps, id)
}

// wanted tells when an app that is shown was last asked for; false if it is not
// shown, or not worth it any more.
func (b *appBoard) wanted(id app.ID, now time.Time) (asked int64, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.apps[id]
	if s == nil {
		return 0, false
	}
	asked = s.asked.Load()
	return asked, now.Sub(time.Unix(0, asked)) < showFor
}

// close forgets all: what comes later is not known.
func (b *appBoard) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.apps)
}

// show brings the board up to date with a committed transaction.
func (c *Core) show(tx *txn) {
	for id, defined := range tx.shown {
		r := c.state.apps[id]
		asked, ok := c.board.wanted(id, tx.now)
		if defined {
			asked, ok = tx.now.UnixNano(), true
		}
		if r == nil || !ok || len(c.state.byApp[id]) > maxShownTasks {
			c.board.drop(id)
			continue
		}
		c.board.put(id, c.appView(r), asked)
	}
}
