package repo_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// patience ends a test that hangs; it is many times what any needs on a slow and
// busy machine.
const patience = 5 * time.Minute

var (
	connect        = pgtest.Connect
	withParameters = pgtest.WithParameters
	exec           = pgtest.Exec
	lines          = pgtest.Lines
	await          = pgtest.Await
	clockTime      = pgtest.ClockTime
)

func value[T any](t testing.TB, conn *pgx.Conn, statement string, args ...any) T {
	t.Helper()
	return pgtest.Value[T](t, conn, statement, args...)
}

// noon is when the simulated clocks start.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fakeClock is a clock that a test sets.
type fakeClock struct {
	mu sync.Mutex
	at time.Time
}

// Now is the time it was set to.
func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// pass lets time pass.
func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// bench is a database with the schema, a store on it whose clock stands at
// noon, one app, and a connection of the test's own.
type bench struct {
	url   string
	clock *fakeClock
	store *repo.Store
	app   repo.App
	conn  *pgx.Conn
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{url: migrated(t), clock: &fakeClock{at: noon}}
	b.store = b.open(t, "first")
	b.conn = connect(t, b.url)
	var err error
	if b.app, err = b.store.EnsureApp(t.Context(), "main", imclient.ProviderTencent, "1400000001"); err != nil {
		t.Fatal(err)
	}
	return b
}

// open opens another store with the same clock, as another process does.
func (b *bench) open(t testing.TB, process string) *repo.Store {
	t.Helper()
	return openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 4, Process: process, Now: b.clock.Now})
}

func openStore(t testing.TB, c pg.Config) *repo.Store {
	t.Helper()
	store, err := repo.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

// wantErr fails the test unless err is want.
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// migrated returns the URL of a fresh database with all migrations applied.
func migrated(t testing.TB) string {
	t.Helper()
	return pgtest.Template(t, "migrated", func(url string) error {
		m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: "syncer"})
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = m.Up(t.Context())
		return err
	})
}

// addJobSQL puts a job into the queue as the queue's client does.
const addJobSQL = `
INSERT INTO syncer.river_job (kind, args, max_attempts)
VALUES ('test', jsonb_build_object('run_id', $1::bigint, 'range_no', $2::int), 6)
RETURNING id`

// enqueue is a repo.Enqueue.
func enqueue(tx pgx.Tx, run repo.Run, rangeNo int) (int64, error) {
	var jobID int64
	err := tx.QueryRow(context.Background(), addJobSQL, run.ID, rangeNo).Scan(&jobID)
	return jobID, err
}

// enqueuePlan is what StartRun wants.
func enqueuePlan(tx pgx.Tx, runID int64) (int64, error) {
	return enqueue(tx, repo.Run{ID: runID}, repo.PlanRange)
}

// backfill is a new run of the bench's app without a tick.
func (b *bench) backfill(kind imclient.Kind) repo.NewRun {
	return repo.NewRun{AppID: b.app.ID, Job: "backfill", Kind: kind, Trigger: repo.TriggerBackfill}
}

// tick is a new run of the bench's app for a tick.
func (b *bench) tick(kind imclient.Kind, at time.Time) repo.NewRun {
	return repo.NewRun{AppID: b.app.ID, Job: "job", Kind: kind, Trigger: repo.TriggerCron, Tick: at}
}

// start starts a run.
func (b *bench) start(t testing.TB, n repo.NewRun) int64 {
	t.Helper()
	runID, err := b.store.StartRun(t.Context(), n, enqueuePlan)
	if err != nil {
		t.Fatal(err)
	}
	return runID
}

// planJob and rangeJob are the jobs of the queue that may work on a run's
// planning and on a range.
func (b *bench) planJob(t testing.TB, runID int64) int64 {
	t.Helper()
	return value[int64](t, b.conn, `SELECT plan_job_id FROM sync_run WHERE run_id = $1`, runID)
}

func (b *bench) rangeJob(t testing.TB, runID int64, rangeNo int) int64 {
	t.Helper()
	return value[int64](t, b.conn, `SELECT job_id FROM sync_range WHERE run_id = $1 AND range_no = $2`, runID, rangeNo)
}

// plan cuts a run at the given keys; the last range goes to the end.
func (b *bench) plan(t testing.TB, runID int64, uppers ...string) {
	t.Helper()
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(uppers) + 1 {
		var upper *string
		if i < len(uppers) {
			upper = &uppers[i]
		}
		if err := b.store.AddRange(t.Context(), plan, upper, enqueue); err != nil {
			t.Fatal(err)
		}
	}
}

// claim claims a range for its job; a claim counts as lost after a minute.
func (b *bench) claim(t testing.TB, runID int64, rangeNo int) *repo.Range {
	t.Helper()
	r, err := b.store.ClaimRange(t.Context(), runID, rangeNo, b.rangeJob(t, runID, rangeNo), b.clock.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// startedRange starts a run, plans it as one range and claims that.
func (b *bench) startedRange(t testing.TB, n repo.NewRun) *repo.Range {
	t.Helper()
	runID := b.start(t, n)
	b.plan(t, runID)
	return b.claim(t, runID, 1)
}

// finish ends a range and reports whether that closed the run.
func (b *bench) finish(t testing.TB, r *repo.Range, reason string) bool {
	t.Helper()
	closed, err := b.store.FinishRange(t.Context(), r, reason, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return closed
}

func nothing(pgx.Tx) error { return nil }

// complete runs a whole sweep without users.
func (b *bench) complete(t testing.TB, n repo.NewRun) int64 {
	t.Helper()
	r := b.startedRange(t, n)
	if !b.finish(t, r, "") {
		t.Fatalf("run %d was not closed with its only range", r.Run.ID)
	}
	return r.Run.ID
}
