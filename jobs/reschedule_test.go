package jobs

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
	"syncer/internal/schedule"
)

// rarely is an interval of which no tick falls into a test, or hardly ever.
const rarely = 8760 * time.Hour

// wantTriggers checks what started the runs of a job, each named once.
func (w *world) wantTriggers(job string, want ...string) {
	w.t.Helper()
	var got []string
	for _, row := range w.ticks(job) {
		got = append(got, row.Trigger)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		w.t.Errorf("what started the runs of %s (-want +got):\n%s", job, diff)
	}
}

// asked waits until a schedule has been asked for its next tick after a time.
func (w *world) asked(s watched, after time.Time) {
	w.t.Helper()
	w.eventually("the job waits for its next tick", func() bool {
		select {
		case at := <-s.looks:
			return at.After(after)
		default:
			return false
		}
	})
}

// TestSchedule_change: another schedule holds from now on: its ticks of before are
// not caught up with. A job that stays is left alone, one that is gone ticks no more, and
// a new one begins as at a start.
func TestSchedule_change(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 50})
	e := w.engine(w.spec())
	stays, gone := e.job("stays", openIMApp, time.Second, false), e.job("gone", openIMApp, time.Second, false)
	gone.Kind = imclient.KindAccounts
	changes := e.job("changes", tencentApp, time.Second, false)
	e.Schedule([]Job{stays, gone, changes})
	w.eventually("all tick", func() bool {
		return len(w.ticks("stays")) > 1 && len(w.ticks("gone")) > 1 && len(w.ticks("changes")) > 1
	})

	rare := watched{schedule.Every(rarely), make(chan time.Time, 100)}
	changes.Schedule, changes.CatchUp = rare, true
	begins := e.job("begins", tencentApp, rarely, true)
	begins.Kind = imclient.KindAccounts
	e.Schedule([]Job{stays, changes, begins})
	w.asked(rare, e.store.Now())
	kept, left := len(w.ticks("stays")), len(w.ticks("gone"))
	before := len(w.ticks("changes"))
	w.eventually("the job that stays goes on", func() bool { return len(w.ticks("stays")) > kept+2 })
	// A tick of the job that is gone may have been on its way.
	if n := len(w.ticks("gone")); n > left+1 {
		t.Errorf("the job that is gone ticked %d times more", n-left)
	}
	if n := len(w.ticks("changes")); n != before {
		t.Errorf("the job that changed ticked %d times in what was to be a year", n-before)
	}
	w.wantTriggers("changes", "cron")
	w.eventually("the new job has caught up", func() bool { return len(w.ticks("begins")) > 0 })
	w.wantTriggers("begins", "catch_up")

	changes.Schedule = schedule.Every(time.Second)
	e.Schedule([]Job{stays, changes, begins})
	w.eventually("it ticks again", func() bool { return len(w.ticks("changes")) > before+1 })
	w.wantTriggers("changes", "cron")
	rows := w.ticks("stays")
	for i := range rows[1:] {
		if d := rows[i+1].Tick.Sub(rows[i].Tick); d != time.Second {
			t.Errorf("the job that stays ticked at %s, then %s later", rows[i].Tick, d)
		}
	}
}

// TestSchedule_changeLosesNoTick: a tick that could not be recorded before the
// change is recorded after it.
func TestSchedule_changeLosesNoTick(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 50})
	e := w.engine(w.spec())
	job := e.job("p", openIMApp, time.Second, false)
	e.Schedule([]Job{job})
	w.eventually("it ticks", func() bool { return len(w.ticks("p")) > 0 })

	tx, err := w.db.Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(w.ctx, `LOCK TABLE syncer.sync_run IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	before := w.ticks("p")
	w.eventually("a tick waits", func() bool {
		return w.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO syncer.sync_run%'`) > 0
	})
	rare := watched{schedule.Every(rarely), make(chan time.Time, 100)}
	job.Schedule = rare
	changed := e.store.Now()
	e.Schedule([]Job{job})
	if err := tx.Rollback(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.asked(rare, changed)
	rows := w.ticks("p")
	newest := rows[len(rows)-1].Tick
	if len(rows) <= len(before) || newest.After(changed) || changed.Sub(newest) >= time.Second {
		t.Errorf("changed at %s; ticks %v", changed, rows)
	}
	w.wantTriggers("p", "cron")
}
