package jobs

import (
	"testing"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestErasure: a user is erased while a call that asks about it is under way. The page is
// not written, but read and asked again, at once and without the user, who is excluded and
// still in the users table.
func TestErasure(t *testing.T) {
	t.Parallel()
	const users = 200
	w := setup(t, worldOptions{users: users})
	s := w.spec()
	s.Salt = "a salt for tests only"
	e := w.engine(s)
	app := e.app(imclient.ProviderTencent)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultHang, Times: 1})
	run := w.start(e, imclient.ProviderTencent, imclient.KindPresence)
	w.eventually("the users are asked about", func() bool { return w.hits(fault) == 1 })
	if _, err := e.store.Erase(w.ctx, repo.Erasure{App: app.App, UserID: userID(7), Salt: s.Salt, Exclude: true}); err != nil {
		t.Fatal(err)
	}
	w.sim.ClearFault(fault)
	run = w.wait(e, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != users-1 || run.Changed != users-1 {
		t.Errorf("the run has %d users, %d changed; want %d", run.Users, run.Changed, users-1)
	}
	for _, table := range []string{"presence_snapshot", "presence_history"} {
		if n := w.count(`SELECT count(*) FROM syncer.`+table+` WHERE user_id = $1`, userID(7)); n != 0 {
			t.Errorf("%s has the user", table)
		}
	}
	// The next sweep, which leaves nobody out but that one.
	w.ended(w.backfill(e, imclient.ProviderTencent, imclient.KindPresence), repo.RunSucceeded)
	if n := w.count(`SELECT count(*) FROM syncer.presence_snapshot WHERE app_id = $1`, app.ID); n != users-1 {
		t.Errorf("%d users are known, want %d", n, users-1)
	}
}
