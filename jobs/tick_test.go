package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/internal/schedule"
	"syncer/repo"
)

// tickRow is a run of a scheduled job.
type tickRow struct {
	Tick            time.Time
	Trigger, Status string
}

// ticks gives the runs of a job in the order of their ticks.
func (w *world) ticks(job string) []tickRow {
	w.t.Helper()
	return query(w, pgx.RowToStructByPos[tickRow], `SELECT tick, trigger, status FROM syncer.sync_run WHERE job = $1 ORDER BY tick`, job)
}

// job is a job over the app of one provider.
func (e *testEngine) job(name string, provider imclient.Provider, interval time.Duration, catchUp bool) Job {
	return Job{Name: name, Kind: imclient.KindPresence, AppIDs: []int16{e.app(provider).ID}, Schedule: schedule.Every(interval), CatchUp: catchUp}
}

// TestTicks_oneRunEach: four engines follow the same schedule, and every tick is
// one run.
func TestTicks_oneRunEach(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 50})
	for i := range 4 {
		s := w.spec()
		s.Process = fmt.Sprintf("engine-%d", i+1)
		e := w.engine(s)
		e.Schedule([]Job{e.job("p", openIMApp, time.Second, false)})
	}
	var rows []tickRow
	w.eventually("four ticks have come", func() bool { rows = w.ticks("p"); return len(rows) > 4 })
	rows = rows[:4] // nothing will be added among them
	var swept int64
	for i, row := range rows {
		// On a busy machine a run may take longer than to the next tick.
		if row.Trigger != "cron" || row.Status == "failed" || row.Status == "partial" {
			t.Errorf("tick %d: %+v", i, row)
		}
		if row.Status == "succeeded" {
			swept++
		}
		if i > 0 && !row.Tick.Equal(rows[i-1].Tick.Add(time.Second)) {
			t.Errorf("the tick after %s is %s", rows[i-1].Tick, row.Tick)
		}
	}
	// One call each; a run that is going, or has begun since, adds its own.
	calls := w.calls()
	if most := w.count(`SELECT count(*) FROM syncer.sync_run WHERE status <> 'skipped'`); calls < swept || calls > most {
		t.Errorf("%d calls for %d to %d runs", calls, swept, most)
	}
}

// TestTicks_skipped: ticks that meet a run, be it of a schedule or a backfill,
// are recorded as skipped, once, and nothing else is done about them.
func TestTicks_skipped(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 50})
	a, s := w.engine(w.spec()), w.spec()
	s.Process = "engine-2"
	b := w.engine(s)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultDelay, Delay: patience})
	backfill := w.start(a, openIMApp, imclient.KindPresence)
	for _, e := range []*testEngine{a, b} {
		e.Schedule([]Job{e.job("p", openIMApp, time.Second, true)})
	}
	count := func(status string) (n int) {
		for _, row := range w.ticks("p") {
			if row.Status == status {
				n++
			}
		}
		return n
	}
	logged := func(tick time.Time) int {
		return len(w.log.lines("tick skipped", `"job":"p"`, fmt.Sprintf(`"tick":%q`, tick.UTC().Format(time.RFC3339))))
	}
	w.eventually("two ticks have met the backfill, and are logged", func() bool { // which is after they are recorded
		rows := w.ticks("p")
		return len(rows) >= 2 && logged(rows[0].Tick) > 0 && logged(rows[1].Tick) > 0
	})
	for _, row := range w.ticks("p") {
		if row.Status != "skipped" || logged(row.Tick) > 1 {
			t.Errorf("tick %+v, logged %d times", row, logged(row.Tick))
		}
	}
	w.sim.ClearFault(fault)
	w.ended(w.wait(a, backfill), repo.RunSucceeded)
	w.eventually("the next tick runs", func() bool { return count("succeeded") >= 1 })
	// The same with a run of the schedule itself in the way.
	fault = w.fault(imsim.Fault{Kind: imsim.FaultDelay, Delay: patience})
	before := count("skipped")
	w.eventually("a tick has met the run of the one before", func() bool { return count("running") == 1 && count("skipped") > before })
	w.sim.ClearFault(fault)
	done := count("succeeded")
	w.eventually("the schedule goes on", func() bool { return count("succeeded") > done+1 })
}

// watched tells of every look at a schedule.
type watched struct {
	schedule.Every
	looks chan time.Time
}

func (s watched) Next(t time.Time) time.Time {
	select {
	case s.looks <- t:
	default:
	}
	return s.Every.Next(t)
}

// TestTicks_catchUp: after downtime the last of the missed ticks is run, once, or
// none if the job does not want it. A job that never ran runs at once.
func TestTicks_catchUp(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		dealtWith time.Duration // how long before the newest tick is the last that was dealt with; -1: none
		catchUp   bool
		want      int // runs
	}{
		"three days missed":             {3 * day, true, 1},
		"three days missed, not wanted": {3 * day, false, 0},
		"none missed":                   {0, true, 0},
		"never run":                     {-1, true, 1},
		"never run, not wanted":         {-1, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 50})
			e := w.engine(w.spec())
			now := e.store.Now()
			newest := lastTick(schedule.Every(day), time.Time{}, now)
			if tc.dealtWith >= 0 {
				w.exec(`INSERT INTO syncer.sync_run (app_id, job, kind, trigger, tick, status, started_at, observed_from, finished_at) VALUES ($1, 'p', 'presence', 'cron', $2, 'succeeded', $2, $2, $2)`,
					e.app(openIMApp).ID, newest.Add(-tc.dealtWith))
			}
			job := e.job("p", openIMApp, day, tc.catchUp)
			ticks := watched{schedule.Every(day), make(chan time.Time, 100)}
			job.Schedule = ticks
			e.Schedule([]Job{job})
			// Having dealt with what was missed, the job asks when to wake up: it
			// looks ahead from a time after which no tick has come.
			w.eventually("the job waits for its next tick", func() bool {
				select {
				case at := <-ticks.looks:
					return at.After(now)
				default:
					return false
				}
			})
			caughtUp := func() (rows []tickRow) {
				for _, row := range w.ticks("p") {
					if row.Trigger == "catch_up" {
						rows = append(rows, row)
					}
				}
				return rows
			}
			rows := caughtUp()
			if len(rows) != tc.want || tc.want == 1 && !rows[0].Tick.Equal(newest) {
				t.Fatalf("runs %v, want %d, of the tick at %s", w.ticks("p"), tc.want, newest)
			}
			w.eventually("the runs are through", func() bool {
				return w.count(`SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`) == 0
			})
			if calls := w.calls(); calls != int64(tc.want) {
				t.Errorf("%d calls, want %d", calls, tc.want)
			}
		})
	}
}

// TestTicks_neverAgain: a schedule without ticks is said so, once.
func TestTicks_neverAgain(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1})
	e := w.engine(w.spec())
	job := e.job("p", openIMApp, time.Hour, true)
	var err error
	if job.Schedule, err = schedule.Parse("0 0 31 2 *", time.UTC); err != nil {
		t.Fatal(err)
	}
	e.Schedule([]Job{job})
	w.eventually("it is said that the job will not run", func() bool {
		return len(w.log.lines("the schedule has no further tick", `"job":"p"`)) == 1
	})
	if rows := w.ticks("p"); len(rows) > 0 {
		t.Errorf("runs %v", rows)
	}
}
