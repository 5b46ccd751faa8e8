package repo_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
)

const runsSQL = `SELECT run_id, job, kind, trigger, tick, status, complete, started_at, finished_at, prev_complete_at FROM sync_run ORDER BY run_id`

func TestOneRunPerTick(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stores := []*repo.Store{b.store, b.open(t, "second"), b.open(t, "third"), b.open(t, "fourth")}
	for round := range 5 {
		var mu sync.Mutex
		var started []int64
		var group errgroup.Group
		for i := range 16 {
			group.Go(func() error {
				runID, err := stores[i%len(stores)].StartRun(t.Context(), b.tick(imclient.KindPresence, at(60*round)), enqueuePlan)
				if errors.Is(err, repo.ErrTicked) && runID == 0 {
					return nil
				}
				mu.Lock()
				started = append(started, runID)
				mu.Unlock()
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if len(started) != 1 {
			t.Fatalf("tick %d started runs %d", round, started)
		}
		if err := b.store.EndRun(t.Context(), started[0], repo.RunFailed, "test"); err != nil {
			t.Fatal(err)
		}
	}
	wantLines(t, b.conn, "runs and planning jobs", `SELECT (SELECT count(*) FROM sync_run), (SELECT count(*) FROM river_job)`, "5 5")
}

func TestTickWhileARunGoes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.start(t, b.tick(imclient.KindPresence, at(0)))
	b.clock.pass(time.Minute)
	var mu sync.Mutex
	var recorded int
	var group errgroup.Group
	for i := range 16 {
		store := b.store
		if i%4 == 0 {
			store = b.open(t, fmt.Sprint("other", i))
		}
		group.Go(func() error {
			runID, err := store.StartRun(t.Context(), b.tick(imclient.KindPresence, at(60)), enqueuePlan)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, repo.ErrBusy) && runID != 0:
				recorded++
			case !errors.Is(err, repo.ErrTicked):
				return fmt.Errorf("run %d: %w", runID, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if recorded != 1 {
		t.Errorf("%d instances say that they recorded the tick", recorded)
	}
	if _, err := b.store.StartRun(t.Context(), b.backfill(imclient.KindPresence), enqueuePlan); !errors.Is(err, repo.ErrBusy) {
		t.Errorf("a backfill while a run goes: %v, want ErrBusy", err)
	}
	// Another kind is not in the way.
	b.start(t, b.backfill(imclient.KindAccounts))
	if err := b.store.EndRun(t.Context(), first, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.StartRun(t.Context(), b.tick(imclient.KindPresence, at(60)), enqueuePlan); !errors.Is(err, repo.ErrTicked) {
		t.Errorf("the skipped tick once more: %v, want ErrTicked", err)
	}
	got := lines(t, b.conn, `SELECT kind, trigger, tick, status, started_at, finished_at, plan_job_id IS NULL FROM sync_run ORDER BY kind, started_at`)
	want := []string{
		"accounts backfill - running 12:01:00 - false",
		"presence cron 12:00:00 failed 12:00:00 12:01:00 false",
		"presence cron 12:01:00 skipped 12:01:00 12:01:00 true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	wantLines(t, b.conn, "jobs in the queue", `SELECT count(*) FROM river_job`, "2")
}

// Runs of different jobs, and backfills, started at once for the same app and
// kind: one goes, every tick has its row.
func TestStartersAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stores := []*repo.Store{b.store, b.open(t, "second"), b.open(t, "third"), b.open(t, "fourth")}
	var mu sync.Mutex
	var started int
	var group errgroup.Group
	for i := range 16 {
		n := b.backfill(imclient.KindPresence)
		if i%2 == 0 {
			n = b.tick(imclient.KindPresence, at(0))
			n.Job = fmt.Sprint("job", i)
		}
		group.Go(func() error {
			_, err := stores[i%len(stores)].StartRun(t.Context(), n, enqueuePlan)
			if err == nil {
				mu.Lock()
				started++
				mu.Unlock()
			} else if !errors.Is(err, repo.ErrBusy) {
				return err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	got := value[int](t, b.conn, `SELECT count(*)::int FROM sync_run WHERE status = 'running'`)
	ticks := value[int](t, b.conn, `SELECT count(*)::int FROM sync_run WHERE tick IS NOT NULL`)
	if started != 1 || got != 1 || ticks != 8 {
		t.Errorf("%d started, %d going, %d ticks recorded; want 1, 1, 8", started, got, ticks)
	}
}

func TestRunThatCannotBeEnqueued(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	full := errors.New("the queue is full")
	_, err := b.store.StartRun(t.Context(), b.tick(imclient.KindPresence, at(0)), func(pgx.Tx, int64) (int64, error) { return 0, full })
	if !errors.Is(err, full) {
		t.Errorf("StartRun: %v, want the queue's error", err)
	}
	wantLines(t, b.conn, "runs", runsSQL)
	b.start(t, b.tick(imclient.KindPresence, at(0)))
}

func TestCompleteRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	minute := func() { b.clock.pass(time.Minute) }
	b.complete(t, b.tick(imclient.KindPresence, at(0))) // 1: the first
	minute()
	failed := b.startedRange(t, b.tick(imclient.KindPresence, at(60)))
	minute()
	b.finish(t, failed, "no answer") // 2: failed
	partial := b.startedRange(t, b.tick(imclient.KindPresence, at(120)))
	minute()
	p := page[imclient.Presence]("z")
	p.Users, p.Failed = 3, 1
	save(t, b.store.Presence(), partial, p, 0)
	b.finish(t, partial, "") // 3: partial, but complete
	listed := b.backfill(imclient.KindPresence)
	listed.Listed = []string{"alice"}
	b.complete(t, listed) // 4: of a list only
	minute()
	cancelled := b.start(t, b.backfill(imclient.KindPresence)) // 5
	if err := b.store.EndRun(t.Context(), cancelled, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	b.complete(t, b.backfill(imclient.KindAccounts)) // 6: of another kind
	b.complete(t, b.backfill(imclient.KindPresence)) // 7
	wantLines(t, b.conn, "runs", runsSQL,
		"1 job presence cron 12:00:00 succeeded true 12:00:00 12:00:00 -",
		"2 job presence cron 12:01:00 failed false 12:01:00 12:02:00 12:00:00",
		"3 job presence cron 12:02:00 partial true 12:02:00 12:03:00 12:00:00",
		"4 backfill presence backfill - succeeded false 12:03:00 12:03:00 12:02:00",
		"5 backfill presence backfill - cancelled false 12:04:00 12:04:00 12:02:00",
		"6 backfill accounts backfill - succeeded true 12:04:00 12:04:00 -",
		"7 backfill presence backfill - succeeded true 12:04:00 12:04:00 12:02:00")
}

func TestEndRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	save(t, b.store.Presence(), r, alicePage(), 1)
	b.clock.pass(time.Minute)
	if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "bad secret"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{r.Run.ID, 4711} {
		b.clock.pass(time.Minute)
		if err := b.store.EndRun(t.Context(), id, repo.RunCancelled, "stopped"); !errors.Is(err, repo.ErrGone) {
			t.Errorf("EndRun of run %d, which is closed or not there: %v, want ErrGone", id, err)
		}
	}
	run, err := b.store.FindRun(t.Context(), r.Run.ID)
	if err != nil {
		t.Fatal(err)
	}
	finished := at(60)
	want := repo.Run{
		ID: 1, AppID: b.app.ID, Job: "backfill", Kind: imclient.KindPresence, Trigger: repo.TriggerBackfill, Status: repo.RunFailed,
		StartedAt: noon, FinishedAt: &finished, Planned: true, RecordFailures: true, Error: "bad secret", Counters: repo.Counters{Users: 2, Changed: 1, Failed: 1},
	}
	if diff := cmp.Diff(want, run); diff != "" {
		t.Errorf("FindRun (-want +got):\n%s", diff)
	}
	if d := run.Duration(at(9999)); d != time.Minute {
		t.Errorf("Duration of a closed run = %s, want 1m", d)
	}
	if _, ok, err := b.store.RunningRun(t.Context(), b.app.ID, imclient.KindPresence); ok || err != nil {
		t.Errorf("RunningRun after the end: %v, %v", ok, err)
	}
	if n := value[int](t, b.conn, `SELECT count(*)::int FROM sync_range`); n != 1 {
		t.Errorf("%d ranges are kept to be resumed, want 1", n)
	}
}

func TestPresenceCount(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sweep := func(counts ...repo.RangeCounts) {
		runID := b.start(t, b.backfill(imclient.KindPresence))
		b.plan(t, runID, make([]string, len(counts)-1)...)
		for i, c := range counts {
			r := b.claim(t, runID, i+1)
			p := page[imclient.Presence]("k")
			p.Counts = c
			save(t, b.store.Presence(), r, p, 0)
			b.finish(t, r, "")
		}
	}
	sweep(repo.RangeCounts{"online": {"all": 3, "ios": 2, "web": 2}, "offline": {"all": 5}},
		repo.RangeCounts{"online": {"all": 4, "ios": 4}}, repo.RangeCounts{})
	sweep(repo.RangeCounts{}) // no users
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := page[imclient.Presence]("k")
	p.Users, p.Failed, p.Failures = 2, 2, failures(imclient.UserError{UserID: "a", Code: "70107"}, imclient.UserError{UserID: "b", Code: "70107"})
	save(t, b.store.Presence(), r, p, 0)
	b.finish(t, r, "")
	// A run that did not go through counts no users.
	r = b.startedRange(t, b.backfill(imclient.KindPresence))
	p = page[imclient.Presence]("k")
	p.Counts = repo.RangeCounts{"online": {"all": 1}}
	save(t, b.store.Presence(), r, p, 0)
	b.finish(t, r, "no answer")
	wantLines(t, b.conn, "counts", `SELECT app_id, run_id, observed_at, state::text, platform, users FROM presence_count ORDER BY run_id, presence_count.state, platform`,
		"1 1 12:00:00 online all 7", "1 1 12:00:00 online ios 6", "1 1 12:00:00 online web 2", "1 1 12:00:00 offline all 5",
		"1 2 12:00:00 offline all 0", "1 3 12:00:00 rejected all 2")
	if n := value[int](t, b.conn, `SELECT count(*)::int FROM sync_range WHERE run_id = 1`); n != 0 {
		t.Errorf("%d ranges of a run that went through are left", n)
	}
}

func TestFailuresOfDepartedUsers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fail := func(kind imclient.Kind, ids ...string) {
		r := b.startedRange(t, b.backfill(kind))
		for _, id := range ids {
			p := page[imclient.Presence]("k")
			p.Failures = failures(imclient.UserError{UserID: id, Code: "70107"})
			p.Failed = 1
			var err error
			if kind == imclient.KindPresence {
				_, err = b.store.Presence().SavePage(t.Context(), r, p)
			} else {
				_, err = b.store.Accounts().SavePage(t.Context(), r, repo.Page[imclient.AccountStatus]{LastKey: "k", Failures: p.Failures, Counts: repo.RangeCounts{}})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		b.finish(t, r, "")
		b.clock.pass(time.Minute)
	}
	fail(imclient.KindPresence, "gone", "still failing")
	fail(imclient.KindAccounts, "of another kind")
	// A run of a list, and one that fails, say nothing about those they did not meet.
	listed := b.backfill(imclient.KindPresence)
	listed.Listed = []string{"alice"}
	b.complete(t, listed)
	b.finish(t, b.startedRange(t, b.backfill(imclient.KindPresence)), "no answer")
	if n := value[int](t, b.conn, `SELECT count(*)::int FROM user_failure`); n != 3 {
		t.Errorf("%d failures before the next complete run, want 3", n)
	}
	fail(imclient.KindPresence, "still failing")
	wantLines(t, b.conn, "failures", `SELECT kind, user_id, first_at, last_at, times FROM user_failure ORDER BY kind`,
		"accounts of another kind 12:01:00 12:01:00 1", "presence still failing 12:00:00 12:02:00 2")
}

func TestLastTick(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	last := func(kind imclient.Kind, job string) time.Time {
		t.Helper()
		tick, err := b.store.LastTick(t.Context(), b.app.ID, kind, job)
		if err != nil {
			t.Fatal(err)
		}
		return tick
	}
	if got := last(imclient.KindPresence, "job"); !got.IsZero() {
		t.Errorf("LastTick before the first = %s", got)
	}
	b.start(t, b.tick(imclient.KindPresence, at(60)))
	if _, err := b.store.StartRun(t.Context(), b.tick(imclient.KindPresence, at(120)), enqueuePlan); !errors.Is(err, repo.ErrBusy) {
		t.Fatal(err)
	}
	if got := last(imclient.KindPresence, "job"); got != at(120) { // a skipped tick is dealt with; in UTC, so that == holds
		t.Errorf("LastTick = %s, want %s", got, at(120))
	}
	if got := []bool{last(imclient.KindAccounts, "job").IsZero(), last(imclient.KindPresence, "other").IsZero()}; !slices.Equal(got, []bool{true, true}) {
		t.Errorf("other kinds and jobs have no tick: %v", got)
	}
}

func TestLastBackfill(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, ok, err := b.store.LastBackfill(t.Context(), b.app.ID, imclient.KindPresence); ok || err != nil {
		t.Errorf("LastBackfill before the first: %v, %v", ok, err)
	}
	b.complete(t, b.backfill(imclient.KindPresence))
	second := b.complete(t, b.backfill(imclient.KindPresence))
	b.complete(t, b.tick(imclient.KindPresence, at(0)))
	b.complete(t, b.backfill(imclient.KindAccounts))
	run, ok, err := b.store.LastBackfill(t.Context(), b.app.ID, imclient.KindPresence)
	if err != nil || !ok || run.ID != second {
		t.Errorf("LastBackfill = %d, %v, %v; want run %d", run.ID, ok, err, second)
	}
}

// The list of a run is personal data; it stays as long as the run can be resumed.
func TestListGoesWithTheRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	listed := b.backfill(imclient.KindPresence)
	listed.Listed = []string{"alice", "bob"}
	b.complete(t, listed)
	wantLines(t, b.conn, "list of a run that went through", `SELECT user_id FROM sync_run_user`)
	r := b.startedRange(t, listed)
	b.finish(t, r, "no answer")
	wantLines(t, b.conn, "list of a run that failed", `SELECT user_id FROM sync_run_user ORDER BY user_id`, "alice", "bob")
	b.clock.pass(time.Hour)
	if _, err := b.store.DropOldRanges(t.Context(), at(0)); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "list and ranges that are not old", `SELECT (SELECT count(*) FROM sync_run_user), (SELECT count(*) FROM sync_range)`, "2 1")
	dropped, err := b.store.DropOldRanges(t.Context(), b.clock.Now())
	if err != nil || dropped != 1 {
		t.Errorf("DropOldRanges = %d, %v; want 1", dropped, err)
	}
	wantLines(t, b.conn, "list and ranges that are old", `SELECT (SELECT count(*) FROM sync_run_user), (SELECT count(*) FROM sync_range)`, "0 0")
}
