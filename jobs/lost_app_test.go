package jobs

import (
	"errors"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// TestLostApp: the number of an app is another app's, after the database lost its row. An
// engine that has the number in memory notices, and does nothing for the other app.
func TestLostApp(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	s := w.spec()
	s.Providers = []imclient.Provider{openIMApp}
	s.RescueAfter = 3 * time.Second
	old := w.engine(s)
	w.exec(`UPDATE syncer.app SET name = 'other', tenant = 'other'`)
	select {
	case err := <-old.Lost():
		if !errors.Is(err, repo.ErrAppLost) {
			t.Errorf("lost: %v", err)
		}
	case <-w.ctx.Done():
		t.Fatal("the loss is not noticed")
	}
	if err := old.Trouble(); !errors.Is(err, repo.ErrAppLost) {
		t.Errorf("readiness: %v", err)
	}
	for _, resume := range []bool{false, true} {
		if _, err := old.StartBackfill(w.ctx, Backfill{AppID: old.app(openIMApp).ID, Kind: imclient.KindAccounts, Resume: resume}); !errors.Is(err, repo.ErrAppLost) {
			t.Errorf("a backfill (resumed: %t): %v", resume, err)
		}
	}

	// A run of the other app, in a queue that the old engine works on.
	s.Process = "engine-2"
	other, err := newTestEngine(w.ctx, s, w.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.close)
	if other.app(openIMApp).ID == old.app(openIMApp).ID {
		t.Fatal("the app looked up anew has the number that is another app's")
	}
	other.app(openIMApp).ID = old.app(openIMApp).ID
	w.start(other, openIMApp, imclient.KindAccounts)
	w.eventually("the old engine leaves the work to others", func() bool {
		return len(w.log.lines("could not begin with a range", "no longer has this app")) > 0
	})
	if n := w.count(`SELECT count(*) FROM syncer.sync_run WHERE plan_owner IS NOT NULL`); n != 0 {
		t.Error("the old engine plans the run of the other app")
	}
	if calls := w.calls(); calls != 0 {
		t.Errorf("%d calls were made", calls)
	}
}
