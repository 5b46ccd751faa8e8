package jobs

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/robfig/cron/v3"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
	"syncer/internal/pg"
	"syncer/repo"
)

const year = 365 * 24 * time.Hour

// TestClockAhead: the database's clock jumps years ahead amid a run and between ticks.
// Nothing begins, nothing fails, and no partition is made; when it is put right all goes on.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 3000})
	set := pgtest.Clock(t, w.url)
	s := w.spec()
	s.RescueAfter = 3 * time.Second // a reading of the clock every half a second
	e := w.newEngine(s, func(e *Engine) { e.keeper.maintainEvery = time.Second })
	w.begin(e)
	app := e.app(tencentApp)
	id, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503, Path: imsim.PathQueryOnlineStatus})
	if err != nil {
		t.Fatal(err)
	}
	run := w.start(e, tencentApp, imclient.KindPresence)
	e.Schedule([]Job{{Name: "accounts", Kind: imclient.KindAccounts, AppIDs: []int16{app.ID}, Schedule: cron.Every(time.Second), MaxGap: time.Hour}})
	w.eventually("a tick is dealt with", func() bool { return w.count(`SELECT count(*) FROM syncer.sync_run WHERE kind = 'accounts'`) > 0 })

	set(3 * year)
	w.eventually("the engine says so", func() bool { return errors.Is(e.Trouble(), pg.ErrClockAhead) })
	w.sim.ClearFault(id)
	calls := func() int { return w.sim.Stats().APIs[imsim.PathQueryOnlineStatus].Calls }
	ticks := w.count(`SELECT count(*) FROM syncer.sync_run`)
	w.eventually("the schedule says so", func() bool { return len(w.log.lines("could not start the run of a tick", "not believed")) > 0 })
	before := calls()
	w.eventually("the tables were maintained", func() bool { return len(w.spans("presence_history")) > 0 })
	if got := w.count(`SELECT count(*) FROM syncer.sync_run`); got != ticks {
		t.Errorf("%d runs were begun", got-ticks)
	}
	if got := calls(); got != before {
		t.Errorf("%d calls were made", got-before)
	}
	if n := w.count(`SELECT count(*) FROM syncer.history_partitions('syncer.presence_history') WHERE lower_end > now() + interval '100 days'`); n != 0 {
		t.Errorf("%d partitions were made years ahead", n)
	}

	set(0)
	w.ended(w.wait(e, run), repo.RunSucceeded)
	w.eventually("it is well again", func() bool { return e.Trouble() == nil })
	w.truthful(presenceTables, app, userIDs(3000))
	if late := query(w, pgx.RowTo[int64], `SELECT count(*) FROM syncer.sync_run WHERE greatest(started_at, finished_at, tick) > now() + interval '1 minute'`); late[0] != 0 {
		t.Errorf("%d runs are dated in the future", late[0])
	}
}

// TestStart_waitsForNothing: whatever keeps maintenance from its work, the engine starts.
func TestStart_waitsForNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 300})
	lock, err := w.db.Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Old runs cannot be dropped, and the statement waits as long as it has to.
	if _, err := lock.Exec(w.ctx, `LOCK TABLE syncer.observation_gap IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	e := w.newEngine(w.spec(), func(e *Engine) { e.config.Retention = time.Hour })
	w.begin(e)
	w.eventually("maintenance waits", func() bool {
		return w.count(`SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'syncer.observation_gap'::regclass`) > 0
	})
	select {
	case <-e.keeper.maintained:
		t.Error("the tables were maintained")
	default:
	}
	if err := lock.Rollback(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	w.eventually("the tables are maintained", func() bool {
		select {
		case <-e.keeper.maintained:
			return true
		default:
			return false
		}
	})
}

// TestStop_maintained: a process that lives for a moment maintains the tables too.
func TestStop_maintained(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{})
	w.stop(w.engine(w.spec()), time.Minute)
	if len(w.spans("presence_history")) == 0 {
		t.Error("no partition was made")
	}
}
