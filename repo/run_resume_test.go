package repo_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
)

// stopped is a backfill that was cancelled with one range done, one begun and
// one untouched; if planned, that is all of it.
func stopped(t *testing.T, b *bench, planned bool) repo.Run {
	t.Helper()
	runID := b.start(t, b.backfill(imclient.KindPresence))
	uppers := []string{"g", "m", "t"}
	if planned {
		b.plan(t, runID, uppers[:2]...)
	} else {
		plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
		if err != nil {
			t.Fatal(err)
		}
		for i := range uppers {
			if err := b.store.AddRange(t.Context(), plan, &uppers[i], enqueue); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.finish(t, b.claim(t, runID, 1), "")
	begun := b.claim(t, runID, 2)
	p := page[imclient.Presence]("k")
	p.Users = 10
	save(t, b.store.Presence(), begun, p, 0)
	if err := b.store.EndRun(t.Context(), runID, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	return b.find(t, runID)
}

func (b *bench) find(t testing.TB, runID int64) repo.Run {
	t.Helper()
	run, err := b.store.FindRun(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestResumeRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	run := stopped(t, b, true)
	oldJob := b.rangeJob(t, run.ID, 2)
	if err := b.store.ResumeRun(t.Context(), run, enqueue); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.ClaimRange(t.Context(), run.ID, 2, oldJob, noon); !errors.Is(err, repo.ErrGone) {
		t.Errorf("the job of before the stop claims: %v, want ErrGone", err)
	}
	if _, err := b.store.ClaimRange(t.Context(), run.ID, 1, b.rangeJob(t, run.ID, 1), noon); !errors.Is(err, repo.ErrGone) {
		t.Errorf("claim of the range that is done: %v, want ErrGone", err)
	}
	again := b.claim(t, run.ID, 2)
	if again.Lower == nil || *again.Lower != "k" || again.Upper == nil || *again.Upper != "m" {
		t.Errorf("range 2 goes on with (%v, %v], want (k, m]", again.Lower, again.Upper)
	}
	if b.finish(t, again, "") {
		t.Error("the run was closed with a range open")
	}
	if !b.finish(t, b.claim(t, run.ID, 3), "") {
		t.Error("the last range did not close the run")
	}
	got := b.find(t, run.ID)
	if got.Status != repo.RunSucceeded || got.Users != 10 || got.Error != "" {
		t.Errorf("resumed run: %s, %d users, error %q; want succeeded, 10, none", got.Status, got.Users, got.Error)
	}
}

func TestResumePlanning(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	run := stopped(t, b, false)
	if err := b.store.ResumeRun(t.Context(), run, enqueue); err != nil {
		t.Fatal(err)
	}
	plan, err := b.store.ClaimPlan(t.Context(), run.ID, b.planJob(t, run.ID))
	if err != nil {
		t.Fatal(err)
	}
	if plan.Cursor() == nil || *plan.Cursor() != "t" {
		t.Errorf("planning goes on after %v, want t", plan.Cursor())
	}
	for _, no := range []int{2, 3} {
		if b.finish(t, b.claim(t, run.ID, no), "") {
			t.Error("the run was closed before its planning ended")
		}
	}
	if err := b.store.AddRange(t.Context(), plan, nil, enqueue); err != nil {
		t.Fatal(err)
	}
	if !b.finish(t, b.claim(t, run.ID, 4), "") {
		t.Error("the last range did not close the run")
	}
	if got := b.find(t, run.ID); got.Status != repo.RunSucceeded {
		t.Errorf("resumed run: %s", got.Status)
	}
}

func TestResumeWhileAnotherRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	run := stopped(t, b, true)
	before := lines(t, b.conn, rangesSQL)
	other := b.start(t, b.tick(imclient.KindPresence, at(0)))
	if err := b.store.ResumeRun(t.Context(), run, enqueue); !errors.Is(err, repo.ErrBusy) {
		t.Errorf("ResumeRun while another runs: %v, want ErrBusy", err)
	}
	if diff := cmp.Diff(before, lines(t, b.conn, rangesSQL)); diff != "" {
		t.Errorf("ranges (-before +after):\n%s", diff)
	}
	if err := b.store.EndRun(t.Context(), other, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	if err := b.store.ResumeRun(t.Context(), run, enqueue); err != nil {
		t.Error(err)
	}
	if err := b.store.ResumeRun(t.Context(), run, enqueue); !errors.Is(err, repo.ErrBusy) {
		t.Errorf("ResumeRun of a run that goes: %v, want ErrBusy", err)
	}
}

func TestResumersAndStartersAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	run := stopped(t, b, true)
	stores := []*repo.Store{b.store, b.open(t, "second"), b.open(t, "third"), b.open(t, "fourth")}
	won := make([]bool, 16)
	var group errgroup.Group
	for i := range won {
		group.Go(func() error {
			var err error
			if store := stores[i%len(stores)]; i%2 == 0 {
				err = store.ResumeRun(t.Context(), run, enqueue)
			} else {
				_, err = store.StartRun(t.Context(), b.backfill(imclient.KindPresence), enqueuePlan)
			}
			won[i] = err == nil
			if errors.Is(err, repo.ErrBusy) {
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
	if running := value[int](t, b.conn, `SELECT count(*)::int FROM sync_run WHERE status = 'running'`); winners != 1 || running != 1 {
		t.Errorf("%d won, %d runs go; want 1 and 1", winners, running)
	}
}

// A run whose ranges were dropped for their age cannot be resumed: to go on
// with what is left would count as having seen all users.
func TestResumeWithoutRanges(t *testing.T) {
	t.Parallel()
	for name, planned := range map[string]bool{"planned": true, "not planned": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			run := stopped(t, b, planned)
			b.clock.pass(8 * 24 * time.Hour)
			if _, err := b.store.DropOldRanges(t.Context(), b.clock.Now()); err != nil {
				t.Fatal(err)
			}
			if err := b.store.ResumeRun(t.Context(), run, enqueue); !errors.Is(err, repo.ErrGone) {
				t.Errorf("ResumeRun: %v, want ErrGone", err)
			}
			wantLines(t, b.conn, "run", `SELECT status, complete, error FROM sync_run`, "cancelled false stopped")
		})
	}
}

// One that was stopped before any range was cut starts from the beginning.
func TestResumeBeforeTheFirstRange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	if err := b.store.EndRun(t.Context(), runID, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	if err := b.store.ResumeRun(t.Context(), b.find(t, runID), enqueue); err != nil {
		t.Fatal(err)
	}
	b.plan(t, runID)
	if !b.finish(t, b.claim(t, runID, 1), "") {
		t.Error("the only range did not close the run")
	}
}
