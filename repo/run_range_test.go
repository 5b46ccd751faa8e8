package repo_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
)

func TestClaimPlan(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	job := b.planJob(t, runID)
	_, err := b.store.ClaimPlan(t.Context(), runID, job+1)
	wantErr(t, "claim by another job", err, repo.ErrGone)
	old, err := b.store.ClaimPlan(t.Context(), runID, job)
	if err != nil {
		t.Fatal(err)
	}
	g, m := "g", "m"
	if err := b.store.AddRange(t.Context(), old, &g, enqueue); err != nil {
		t.Fatal(err)
	}
	// The same job again: its worker died. It goes on where the old one came to.
	plan, err := b.open(t, "second").ClaimPlan(t.Context(), runID, job)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Cursor() == nil || *plan.Cursor() != "g" {
		t.Errorf("Cursor = %v, want g", plan.Cursor())
	}
	wantErr(t, "AddRange under the old claim", b.store.AddRange(t.Context(), old, &m, enqueue), repo.ErrGone)
	wantErr(t, "ReleasePlan under the old claim", b.store.ReleasePlan(t.Context(), old), repo.ErrGone)
	if n := value[int](t, b.conn, `SELECT count(*)::int FROM sync_run WHERE plan_beat_at IS NOT NULL AND plan_owner = 'second'`); n != 1 {
		t.Error("the old claim released the new one")
	}
	for _, upper := range []*string{&m, nil} {
		if err := b.store.AddRange(t.Context(), plan, upper, enqueue); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, "AddRange after the end", b.store.AddRange(t.Context(), plan, nil, enqueue), repo.ErrGone)
	_, err = b.store.ClaimPlan(t.Context(), runID, job)
	wantErr(t, "claim of a plan that is done", err, repo.ErrGone)
	wantLines(t, b.conn, "ranges", `SELECT range_no, status, lower_key, upper_key, job_id IS NOT NULL FROM sync_range ORDER BY range_no`,
		"1 pending - g true", "2 pending g m true", "3 pending m - true")
	wantLines(t, b.conn, "plan", `SELECT planned, plan_cursor, plan_ranges, plan_attempt FROM sync_run`, "true - 3 2")
	wantLines(t, b.conn, "jobs of the ranges", `SELECT args::text FROM river_job ORDER BY id`,
		`{"run_id": 1, "range_no": 0}`, `{"run_id": 1, "range_no": 1}`, `{"run_id": 1, "range_no": 2}`, `{"run_id": 1, "range_no": 3}`)
	if err := b.store.EndRun(t.Context(), runID, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "AddRange to a closed run", b.store.AddRange(t.Context(), plan, nil, enqueue), repo.ErrGone)
}

func TestPlannersAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	job := b.planJob(t, runID)
	var group errgroup.Group
	for i := range 8 {
		store := b.open(t, fmt.Sprint(i))
		group.Go(func() error {
			plan, err := store.ClaimPlan(t.Context(), runID, job)
			if err != nil && !errors.Is(err, repo.ErrGone) {
				return err
			}
			for err == nil {
				// Each cuts where it believes to be.
				next := "a"
				if plan.Cursor() != nil {
					next = string(rune((*plan.Cursor())[0] + 1))
				}
				upper := &next
				if next > "t" {
					upper = nil
				}
				if err = store.AddRange(t.Context(), plan, upper, enqueue); err == nil && upper == nil {
					return nil
				}
			}
			if errors.Is(err, repo.ErrGone) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "ranges that do not begin where the one before ends", `
SELECT range_no FROM (SELECT range_no, lower_key, lag(upper_key) OVER (ORDER BY range_no) AS before FROM sync_range) AS r
WHERE lower_key IS DISTINCT FROM before`)
	wantLines(t, b.conn, "ranges", `SELECT count(*), count(upper_key) FROM sync_range`, "21 20")
}

func TestClaimRange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	b.plan(t, runID, "g")
	job := b.rangeJob(t, runID, 1)
	claim := func(jobID int64) error {
		_, err := b.store.ClaimRange(t.Context(), runID, 1, jobID, b.clock.Now().Add(-time.Minute))
		return err
	}
	wantErr(t, "claim by another job", claim(job+100), repo.ErrGone)
	r := b.claim(t, runID, 1)
	if r.Lower != nil || r.Upper == nil || *r.Upper != "g" || string(r.Counts) != "{}" || r.Run.ID != runID || r.Run.Kind != imclient.KindPresence {
		t.Errorf("claimed %+v", r)
	}
	wantErr(t, "claim of a held range", claim(job), repo.ErrHeld)
	b.clock.pass(59 * time.Second)
	if err := b.store.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(59 * time.Second)
	wantErr(t, "claim of a range whose holder gave a sign of life", claim(job), repo.ErrHeld)
	// Another process's signs of life are not those of the holder.
	if err := b.open(t, "second").Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(2 * time.Second)
	if err := claim(job); err != nil {
		t.Errorf("claim of a range without a sign of life: %v", err)
	}
	_, err := b.store.FinishRange(t.Context(), r, "", nothing)
	wantErr(t, "FinishRange under the old claim", err, repo.ErrGone)
	if err := b.store.EndRun(t.Context(), runID, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(time.Hour)
	wantErr(t, "claim in a closed run", claim(job), repo.ErrGone)
	_, err = b.store.ClaimRange(t.Context(), runID, 99, job, noon)
	wantErr(t, "claim of a range that is not there", err, repo.ErrGone)
}

func TestClaimantsAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	b.plan(t, runID)
	job := b.rangeJob(t, runID, 1)
	stores := []*repo.Store{b.store, b.open(t, "second"), b.open(t, "third"), b.open(t, "fourth")}
	for round := range 5 {
		won := make([]bool, 16)
		var group errgroup.Group
		for i := range won {
			group.Go(func() error {
				_, err := stores[i%len(stores)].ClaimRange(t.Context(), runID, 1, job, b.clock.Now().Add(-time.Minute))
				won[i] = err == nil
				if errors.Is(err, repo.ErrHeld) {
					return nil
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		winners := 0
		for _, w := range won {
			if w {
				winners++
			}
		}
		if winners != 1 {
			t.Errorf("round %d: %d claimed the same range", round, winners)
		}
		b.clock.pass(2 * time.Minute) // lost again
	}
	if attempt := value[int](t, b.conn, `SELECT attempt FROM sync_range`); attempt != 5 {
		t.Errorf("attempt = %d, want 5", attempt)
	}
}

func TestReleaseRange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page[imclient.Presence]("k1")
	p.Calls, p.Counts = 2, repo.RangeCounts{"online": {"all": 1}}
	save(t, b.store.Presence(), r, p, 0)
	if err := b.store.ReleaseRange(t.Context(), r, "no answer", repo.Counters{Calls: 5, Retries: 4, Users: 99}); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "released range", rangesSQL, `1 pending k1 0 0 0 7 4 {"online": {"all": 1}} - no answer`)
	again := b.claim(t, r.Run.ID, 1)
	if again.Lower == nil || *again.Lower != "k1" || string(again.Counts) != `{"online": {"all": 1}}` {
		t.Errorf("claimed again: after %v with counts %s", again.Lower, again.Counts)
	}
	if !b.finish(t, again, "") {
		t.Error("the only range did not close the run")
	}
	run := b.find(t, r.Run.ID)
	if diff := cmp.Diff(repo.Counters{Calls: 7, Retries: 4}, run.Counters); diff != "" || run.Error != "" {
		t.Errorf("counters of the run, with error %q (-want +got):\n%s", run.Error, diff)
	}
}

// Whichever of the last ranges is the last closes the run, once.
func TestLastRangesAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for round := range 10 {
		runID := b.start(t, b.backfill(imclient.KindPresence))
		b.plan(t, runID, "b", "d", "f")
		var mu sync.Mutex
		closings, completed := 0, 0
		var group errgroup.Group
		for no := 1; no <= 4; no++ {
			r := b.claim(t, runID, no)
			p := page[imclient.Presence]("k")
			p.Users = 10
			save(t, b.store.Presence(), r, p, 0)
			group.Go(func() error {
				closed, err := b.store.FinishRange(t.Context(), r, "", func(pgx.Tx) error {
					mu.Lock()
					defer mu.Unlock()
					completed++
					return nil
				})
				mu.Lock()
				defer mu.Unlock()
				if closed {
					closings++
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		run := b.find(t, runID)
		if closings != 1 || completed != 4 || run.Status != repo.RunSucceeded || run.Users != 40 {
			t.Fatalf("round %d: %d closings, %d jobs completed, run %s with %d users; want 1, 4, succeeded, 40", round, closings, completed, run.Status, run.Users)
		}
	}
}

func TestRunWithAFailedRange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	b.plan(t, runID, "b", "d")
	first, second, third := b.claim(t, runID, 1), b.claim(t, runID, 2), b.claim(t, runID, 3)
	if b.finish(t, second, "no answer for five minutes") || b.finish(t, first, "") {
		t.Error("the run was closed with a range open")
	}
	if run, ok, err := b.store.RunningRun(t.Context(), b.app.ID, imclient.KindPresence); err != nil || !ok || run.ID != runID {
		t.Errorf("RunningRun = %d, %v, %v", run.ID, ok, err)
	}
	if !b.finish(t, third, "") {
		t.Error("the last range did not close the run")
	}
	wantLines(t, b.conn, "run", `SELECT status, complete, error FROM sync_run`, "failed false no answer for five minutes")
	wantLines(t, b.conn, "ranges kept", `SELECT range_no, status FROM sync_range ORDER BY range_no`, "1 done", "2 failed", "3 done")
}

// What belongs to the end of a range happens with it or not at all.
func TestFinishRangeIsOneTransaction(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	broken := errors.New("the queue is gone")
	closed, err := b.store.FinishRange(t.Context(), r, "", func(pgx.Tx) error { return broken })
	if closed || !errors.Is(err, broken) {
		t.Errorf("FinishRange = %v, %v; want the queue's error", closed, err)
	}
	if run := b.find(t, r.Run.ID); run.Status != repo.RunRunning {
		t.Errorf("the run is %s", run.Status)
	}
	if !b.finish(t, r, "") {
		t.Error("the range could not be finished after all")
	}
}

// A process speaks for what it works on, not for all that it ever claimed.
func TestBeat(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	for _, upper := range []string{"g", "m", "t"} {
		if err := b.store.AddRange(t.Context(), plan, &upper, enqueue); err != nil {
			t.Fatal(err)
		}
	}
	done, old := b.claim(t, runID, 1), b.claim(t, runID, 2)
	b.claim(t, runID, 3)
	beats := func(seconds int, want ...string) {
		t.Helper()
		b.clock.pass(at(seconds).Sub(b.clock.Now()))
		if err := b.store.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLines(t, b.conn, "signs of life", `SELECT 0 AS no, plan_beat_at FROM sync_run UNION ALL SELECT range_no, beat_at FROM sync_range ORDER BY no`, want...)
	}
	beats(10, "0 12:00:10", "1 12:00:10", "2 12:00:10", "3 12:00:10")
	done.Done()
	plan.Done()
	beats(20, "0 12:00:10", "1 12:00:10", "2 12:00:20", "3 12:00:20")
	// Range 2 was lost, and is another process's now.
	b.clock.pass(2 * time.Minute)
	if _, err := b.open(t, "second").ClaimRange(t.Context(), runID, 2, b.rangeJob(t, runID, 2), b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	beats(200, "0 12:00:10", "1 12:00:10", "2 12:02:20", "3 12:03:20")
	old.Done()
	if err := b.store.EndRun(t.Context(), runID, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	plan.Done() // twice does no harm
}

func TestAddCalls(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := b.startedRange(t, b.backfill(imclient.KindPresence))
	unsaved := repo.Counters{Calls: 5, Retries: 4, Users: 99}
	if err := b.store.AddCalls(t.Context(), old, unsaved); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(time.Hour)
	b.claim(t, old.Run.ID, 1)
	if err := b.store.AddCalls(t.Context(), old, unsaved); err != nil {
		t.Errorf("AddCalls under an old claim: %v", err)
	}
	wantLines(t, b.conn, "range", `SELECT users, calls, retries FROM sync_range`, "0 5 4")
}
