package jobs

import (
	"errors"
	"testing"

	"syncer/imclient"
	"syncer/repo"
)

// TestMoved: a process that still has the old address of a deployment asks it
// nothing after the move, is not ready, and leaves the work to one that has the
// present one.
func TestMoved(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	w.rounds.AccountShare = 0
	s := w.spec()
	s.Providers = []imclient.Provider{openIMApp}
	old := w.engine(s)
	w.ended(w.backfill(old, openIMApp, imclient.KindAccounts), repo.RunSucceeded)
	calls := w.calls()
	if _, _, err := old.store.MoveApp(w.ctx, old.app(openIMApp).App, "elsewhere"); err != nil {
		t.Fatal(err)
	}
	s.Process, s.Tenant = "engine-2", "elsewhere"
	present, err := newTestEngine(w.ctx, s, w.log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(present.close)
	run := w.start(present, openIMApp, imclient.KindAccounts)
	w.eventually("the old process is not ready", func() bool { return errors.Is(old.Trouble(), repo.ErrMoved) })
	if got := w.calls(); got != calls {
		t.Errorf("the old process made %d calls", got-calls)
	}
	if err := present.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(present, patience) })
	run = w.wait(present, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != 20 || run.Changed != 0 {
		t.Errorf("the run after the move: %+v, want 20 users and no change", run.Counters)
	}
}
