package jobs

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/jobs/ask"
	"syncer/repo"
)

// TestLostRelease: a worker fails and cannot even give its range back, because
// the database is away at that moment. Its process lives on and gives signs of
// life for its other work, but must not keep that range from everybody for ever.
func TestLostRelease(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1500})
	s := w.spec()
	s.Range, s.Page, s.RescueAfter = 500, 500, 3*time.Second
	e := w.engine(s)
	w.exec(`
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON syncer.sync_range FOR EACH ROW
WHEN (old.status = 'running' AND new.status = 'pending') EXECUTE FUNCTION public.refuse()`)
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 500, Times: ask.Tries, IDs: []string{userID(1)}})
	run := w.start(e, imclient.ProviderTencent, imclient.KindAccounts)
	w.eventually("a range could not be given back", func() bool {
		return len(w.log.lines("could not give the range back", "the disk is full")) > 0
	})
	w.exec(`DROP TRIGGER refuse ON syncer.sync_range`)
	w.ended(w.wait(e, run), repo.RunSucceeded)
	w.truthful(accountTables, e.app(imclient.ProviderTencent), userIDs(1500))
}

// TestMaintenanceWaits: maintenance that waits for a lock must not silence the
// signs of life: the process would lose its ranges while it works on them.
func TestMaintenanceWaits(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 500})
	s := w.spec()
	s.RescueAfter, s.MaintainEvery = 3*time.Second, 100*time.Millisecond
	e := w.engine(s)
	blocker, err := pgx.Connect(w.ctx, w.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = blocker.Close(context.Background()) })
	w.exec(`
INSERT INTO syncer.sync_run (app_id, job, kind, trigger, status, started_at, observed_from, finished_at)
SELECT min(app_id), 'backfill', 'presence', 'backfill', 'failed', now(), now(), now() FROM syncer.app`)
	w.exec(`INSERT INTO syncer.sync_range (run_id, range_no) SELECT max(run_id), 1 FROM syncer.sync_run`)
	if _, err := blocker.Exec(w.ctx, `BEGIN; SELECT FROM syncer.sync_range FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE syncer.sync_run SET finished_at = '2026-01-01'`) // so that maintenance removes the range
	fault := w.fault(imsim.Fault{Kind: imsim.FaultHang})
	run := w.start(e, imclient.ProviderOpenIM, imclient.KindAccounts)
	w.eventually("a call hangs and maintenance waits", func() bool {
		return w.hits(fault) > 0 && w.count(`SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted`) > 0
	})
	beat := func() int64 {
		return w.count(`SELECT (extract(epoch FROM beat_at) * 1000)::bigint FROM syncer.sync_range WHERE run_id = $1`, run.ID)
	}
	before := beat()
	w.eventually("signs of life go on", func() bool { return beat() > before+s.RescueAfter.Milliseconds()/3 })
	w.sim.ClearFault(fault)
	if _, err := blocker.Exec(w.ctx, `COMMIT`); err != nil {
		t.Fatal(err)
	}
	w.ended(w.wait(e, run), repo.RunSucceeded)
}
