package repo_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
)

// rescue rescues work without a sign of life for a minute and checks how much
// there was.
func (b *bench) rescue(t testing.TB, want int) {
	t.Helper()
	rescued, err := b.store.Rescue(t.Context(), []int16{b.app.ID}, b.clock.Now().Add(-time.Minute), enqueue)
	if err != nil {
		t.Fatal(err)
	}
	if rescued != want {
		t.Errorf("rescued %d, want %d", rescued, want)
	}
}

func TestRescueOfRanges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	b.plan(t, runID, "g", "m")
	lost, oldJob := b.claim(t, runID, 1), b.rangeJob(t, runID, 1)
	second := b.open(t, "second")
	alive, err := second.ClaimRange(t.Context(), runID, 2, b.rangeJob(t, runID, 2), noon)
	if err != nil {
		t.Fatal(err)
	}
	save(t, b.store.Presence(), lost, page[imclient.Presence]("c"), 0)
	b.rescue(t, 0)
	b.clock.pass(2 * time.Minute)
	if err := second.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.rescue(t, 1)
	b.rescue(t, 0) // it waits for its new job
	wantLines(t, b.conn, "ranges", `SELECT range_no, status, attempt, cursor_key FROM sync_range ORDER BY range_no`, "1 pending 1 c", "2 running 1 -", "3 pending 0 -")
	if _, err := b.store.ClaimRange(t.Context(), runID, 1, oldJob, b.clock.Now()); !errors.Is(err, repo.ErrGone) {
		t.Errorf("the old job claims: %v, want ErrGone", err)
	}
	again := b.claim(t, runID, 1)
	if again.Lower == nil || *again.Lower != "c" {
		t.Errorf("it goes on after %v, want c", again.Lower)
	}
	if _, err := b.store.FinishRange(t.Context(), lost, "", nothing); !errors.Is(err, repo.ErrGone) {
		t.Errorf("FinishRange by the worker that woke up: %v, want ErrGone", err)
	}
	if _, err := second.FinishRange(t.Context(), alive, "", nothing); err != nil {
		t.Errorf("FinishRange by the one that gave signs of life: %v", err)
	}
}

func TestRescueOfPlans(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	oldJob := b.planJob(t, runID)
	b.rescue(t, 0) // no process plans, but the job exists
	lost, err := b.store.ClaimPlan(t.Context(), runID, oldJob)
	if err != nil {
		t.Fatal(err)
	}
	g := "g"
	if err := b.store.AddRange(t.Context(), lost, &g, enqueue); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(59 * time.Second)
	b.rescue(t, 0)
	if err := b.store.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(59 * time.Second)
	b.rescue(t, 0)
	b.clock.pass(2 * time.Second)
	b.rescue(t, 1)
	b.rescue(t, 0)
	if _, err := b.store.ClaimPlan(t.Context(), runID, oldJob); !errors.Is(err, repo.ErrGone) {
		t.Errorf("the old job claims: %v, want ErrGone", err)
	}
	if err := b.store.AddRange(t.Context(), lost, nil, enqueue); !errors.Is(err, repo.ErrGone) {
		t.Errorf("AddRange by the planner that woke up: %v, want ErrGone", err)
	}
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.AddRange(t.Context(), lost, nil, enqueue); !errors.Is(err, repo.ErrGone) {
		t.Errorf("AddRange by the planner that woke up, beside the new one: %v, want ErrGone", err)
	}
	if err := b.store.AddRange(t.Context(), plan, nil, enqueue); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(time.Hour)
	b.rescue(t, 0) // it is planned; its ranges wait for their jobs
}

// Work whose job the queue no longer has would wait for ever, and so would
// every later run of the app.
func TestRescueOfWorkWithoutAJob(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lose string
		want int
	}{
		"deleted":   {`DELETE FROM river_job`, 1},
		"discarded": {`UPDATE river_job SET state = 'discarded', finalized_at = now()`, 1},
		"cancelled": {`UPDATE river_job SET state = 'cancelled', finalized_at = now()`, 1},
		"completed": {`UPDATE river_job SET state = 'completed', finalized_at = now()`, 1},
		"waiting":   {`UPDATE river_job SET state = 'retryable'`, 0},
		"snoozed":   {`UPDATE river_job SET state = 'scheduled'`, 0},
		// Its process was killed between taking the job and claiming the work.
		"taken long ago":  {`UPDATE river_job SET state = 'running', attempted_at = '2026-11-22 11:58:59+00'`, 1},
		"taken right now": {`UPDATE river_job SET state = 'running', attempted_at = '2026-11-22 11:59:01+00'`, 0},
	} {
		t.Run("plan/"+name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.start(t, b.backfill(imclient.KindPresence))
			exec(t, b.conn, test.lose)
			b.rescue(t, test.want)
			b.rescue(t, 0) // it has a new job now
		})
		t.Run("range/"+name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			runID := b.start(t, b.backfill(imclient.KindPresence))
			b.plan(t, runID)
			exec(t, b.conn, test.lose)
			b.rescue(t, test.want)
			b.rescue(t, 0)
			b.claim(t, runID, 1)
		})
	}
}

func TestRescueLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	b.clock.pass(time.Hour)
	if rescued, err := b.store.Rescue(t.Context(), []int16{b.app.ID + 1}, b.clock.Now(), enqueue); rescued != 0 || err != nil {
		t.Errorf("rescued %d of another app, %v", rescued, err)
	}
	if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	b.rescue(t, 0) // the run is closed
}

func TestRescuersAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	var uppers []string
	for i := range 19 {
		uppers = append(uppers, fmt.Sprintf("k%02d", i))
	}
	b.plan(t, runID, uppers...)
	for no := range 20 {
		b.claim(t, runID, no+1)
	}
	b.clock.pass(time.Hour)
	var mu sync.Mutex
	total := 0
	var group errgroup.Group
	for i := range 8 {
		store := b.open(t, fmt.Sprint(i))
		group.Go(func() error {
			rescued, err := store.Rescue(t.Context(), []int16{b.app.ID}, b.clock.Now().Add(-time.Minute), enqueue)
			mu.Lock()
			defer mu.Unlock()
			total += rescued
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if total < 20 {
		t.Errorf("rescued %d of 20", total)
	}
	for no := range 20 { // each has one job that may claim it
		b.claim(t, runID, no+1)
	}
}
