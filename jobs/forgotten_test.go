package jobs

import (
	"context"
	"errors"
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/imclient"
	"syncer/internal/dev/pgcluster"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/repo"
)

// TestForgotten_failover: the standby of an asynchronous primary gets the beginning of
// a run and not its last transactions. Then the primary is lost and the standby promoted.
func TestForgotten_failover(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	primary, err := pgcluster.Start(ctx, pgcluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopCluster(t, primary)
	if err := migrate(primary.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	standby, err := primary.Standby(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stopCluster(t, standby)
	both, err := url.Parse(primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := url.Parse(standby.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	both.Host += "," + other.Host
	before, after := connectTo(t, primary.URL("postgres")), connectTo(t, standby.URL("postgres"))
	f := &forgotten{t: t, clock: &simClock{at: simStart}, db: after}
	f.keep = func() { f.stopReplication(before) }
	f.forget = func() {
		primary.StopServer(pgcluster.Immediate)
		f.must(standby.Promote(ctx))
	}
	f.check(both.String() + "&target_session_attrs=read-write")
}

// TestForgotten_backup: a dump of the database is restored under processes that were
// not stopped.
func TestForgotten_backup(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.Template(t, "jobs", migrate)
	at, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	name := pgx.Identifier{at.Path[1:]}.Sanitize()
	at.Path = "/postgres"
	server := connectTo(t, at.String())
	f := &forgotten{t: t, clock: &simClock{at: simStart}, db: connectTo(t, databaseURL)}
	programs, err := pgcluster.Find()
	if err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs.Dir, program), args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	dump := filepath.Join(t.TempDir(), "app.dump")
	f.keep = func() { run("pg_dump", "--format", "custom", "--file", dump, "--dbname", databaseURL) }
	f.forget = func() {
		for _, statement := range []string{`DROP DATABASE ` + name + ` WITH (FORCE)`, `CREATE DATABASE ` + name + ` TEMPLATE template0`} {
			_, err := server.Exec(t.Context(), statement)
			f.must(err)
		}
		run("pg_restore", "--exit-on-error", "--dbname", databaseURL, dump)
	}
	f.check(databaseURL)
}

// check lets the database forget, of process A, a page of range 1, the claim on range 2
// with a page, and range 3 of the planning. B makes the same claim on range 2, as the
// first one. What A still holds must come to nothing, or users whose pages are forgotten
// would be skipped in a run that counts as complete.
func (f *forgotten) check(databaseURL string) {
	t, ctx := f.t, f.t.Context()
	a, b := f.open(databaseURL, "a"), f.open(databaseURL, "b")
	app, err := a.EnsureApp(ctx, "main", imclient.ProviderTencent, "forgotten")
	if err != nil {
		t.Fatal(err)
	}
	runID, err := a.StartRun(ctx, repo.NewRun{AppID: app.ID, Job: BackfillJob, Kind: imclient.KindPresence, Trigger: repo.TriggerBackfill},
		func(pgx.Tx, int64) (int64, error) { return 100, nil })
	if err != nil {
		t.Fatal(err)
	}
	plan, err := a.ClaimPlan(ctx, runID, 100)
	if err != nil {
		t.Fatal(err)
	}
	f.must(a.AddRange(ctx, plan, new("b"), f.enqueue))
	f.must(a.AddRange(ctx, plan, new("d"), f.enqueue))
	range1 := f.claim(a, runID, 1)
	f.must(f.page(a, range1, "a"))

	f.keep()
	f.reached(func() error { return f.page(a, range1, "b") })
	range2 := f.claim(a, runID, 2)
	f.must(f.page(a, range2, "c"))
	f.must(a.AddRange(ctx, plan, new("f"), f.enqueue))
	f.forget()

	again := f.claim(b, runID, 2)
	finish := func(s *repo.Store, r *repo.Range) error {
		_, err := s.FinishRange(ctx, r, "", func(pgx.Tx) error { return nil })
		return err
	}
	f.gone("a page after one that is lost", func() error { return f.page(a, range1, "b again") })
	f.gone("the end of a range whose last page is lost", func() error { return finish(a, range1) })
	f.gone("a page under a lost claim", func() error { return f.page(a, range2, "d") })
	f.gone("the end of a range under a lost claim", func() error { return finish(a, range2) })
	f.gone("a suspect page under a lost claim", func() error {
		_, err := a.SaveSuspect(ctx, range2, repo.SuspectPage{LastKey: "d", Answers: 1, RecheckAfter: a.Now()}, f.enqueue)
		return err
	})
	f.gone("who left, under a lost claim", func() error {
		_, err := a.Presence().Reconcile(ctx, range2, func(context.Context) ([]string, error) { return nil, nil }, func(repo.Leavers) string { return "" })
		return err
	})
	f.gone("a range after one that is lost", func() error { return a.AddRange(ctx, plan, nil, f.enqueue) })
	f.gone("a range under a lost claim, given back", func() error { return a.ReleaseRange(ctx, range2, "too late", repo.Counters{Calls: 9}) })
	f.gone("planning that is elsewhere", func() error { return a.AddRange(ctx, plan, new("h"), f.enqueue) })
	f.must(a.AddCalls(ctx, range2, repo.Counters{Calls: 9}))

	// B goes on where the database is, and comes to where A was.
	f.must(f.page(b, again, "c"))
	f.gone("a page under a lost claim, at the position of the new one", func() error { return f.page(a, range2, "d") })
	f.must(f.page(b, again, "d"))
	f.must(finish(b, again))
	f.clock.pass(time.Hour)
	if plan, err = b.ClaimPlan(ctx, runID, 100); err != nil {
		t.Fatal(err)
	}
	f.must(b.AddRange(ctx, plan, new("f"), f.enqueue))
	f.must(b.AddRange(ctx, plan, nil, f.enqueue))
	for no, ids := range map[int][]string{1: {"b"}, 3: {"e", "f"}, 4: {"g"}} {
		r := f.claim(b, runID, no)
		for _, id := range ids {
			f.must(f.page(b, r, id))
		}
		f.must(finish(b, r))
	}
	var got string
	f.must(f.db.QueryRow(ctx, `SELECT concat_ws(' ', status, complete, users, calls, (SELECT string_agg(user_id, ' ' ORDER BY user_id) FROM syncer.presence_snapshot),
(SELECT count(*) FROM syncer.presence_history)) FROM syncer.sync_run`).Scan(&got))
	if want := "succeeded t 7 0 a b c d e f g 7"; got != want {
		t.Errorf("the run: %s, want %s", got, want)
	}
}

// TestForgotten_run: another run has the number of one that was lost. Neither a worker
// of the lost run that meets a fatal error, nor the backfill that waits for it, ends it.
func TestForgotten_run(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	tr := l.trial(t)
	tr.join(&simUser{id: "alice", turns: []turn{{time.Hour, offline}}}, 1)
	run := tr.start(0, 0, nil)
	lost, err := l.stores[0].FindRun(tr.ctx, run.id)
	if err != nil {
		t.Fatal(err)
	}
	open := tr.open(run)[0]
	w := tr.work(0, run, open.no, open.job, 0, fate{what: freezes, page: 1})
	tr.exec(`UPDATE syncer.sync_run SET started_at = started_at + interval '1 second' WHERE run_id = $1`, run.id)
	tr.exec(`UPDATE syncer.sync_range SET claim = gen_random_uuid() WHERE run_id = $1`, run.id)
	err = w.engine.workers.settle(tr.ctx, outcome{
		run: lost, rangeNo: 1, err: &imclient.Error{Provider: imclient.ProviderTencent, Class: imclient.ClassFatal, Text: "bad secret"},
		release: func(ctx context.Context, reason string) error {
			return w.store.ReleaseRange(ctx, w.claimed, reason, repo.Counters{})
		},
	})
	if err != nil {
		t.Errorf("settle: %v", err)
	}
	if _, err := w.engine.WaitRun(tr.ctx, lost, func(repo.Run) {}); !errors.Is(err, ErrRunLost) {
		t.Errorf("WaitRun: %v, want ErrRunLost", err)
	}
	if err := w.engine.Cancel(tr.ctx, lost, "stopped"); !errors.Is(err, ErrRunLost) {
		t.Errorf("Cancel: %v, want ErrRunLost", err)
	}
	if now, err := w.store.FindRun(tr.ctx, run.id); err != nil || now.Status != repo.RunRunning {
		t.Errorf("the other run is %s, %v", now.Status, err)
	}
}

// forgotten is a database that goes back, at forget, to what it was at keep.
type forgotten struct {
	t            *testing.T
	clock        *simClock
	db           *pgxpool.Pool // as it is in the end
	keep, forget func()
}

func stopCluster(t *testing.T, c *pgcluster.Cluster) {
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
}

func connectTo(t *testing.T, databaseURL string) *pgxpool.Pool {
	t.Helper()
	db, err := pgxpool.New(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func (f *forgotten) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *forgotten) open(databaseURL, process string) *repo.Store {
	f.t.Helper()
	s, err := repo.Open(f.t.Context(), pg.Config{URL: databaseURL, Schema: "syncer", MaxConns: 2, Process: process, Now: f.clock.Now})
	f.must(err)
	f.t.Cleanup(s.Close)
	return s
}

// enqueue names the queue's job after the range.
func (f *forgotten) enqueue(_ pgx.Tx, _ repo.Run, rangeNo int) (int64, error) {
	return int64(100 + rangeNo), nil
}

// claim claims a range, as soon as a connection leads to the primary.
func (f *forgotten) claim(s *repo.Store, runID int64, no int) (r *repo.Range) {
	f.t.Helper()
	f.reached(func() (err error) {
		r, err = s.ClaimRange(f.t.Context(), runID, no, int64(100+no), f.clock.at.Add(-time.Minute))
		return err
	})
	return r
}

// page writes a page with one user.
func (f *forgotten) page(s *repo.Store, r *repo.Range, id string) error {
	now := f.clock.Now()
	var known repo.Population
	known.Add(id, 1)
	_, err := s.Presence().SavePage(f.t.Context(), r, repo.Page[imclient.Presence]{
		LastKey: id, Counts: repo.RangeCounts{}, Counters: repo.Counters{Users: 1}, Known: known,
		Changes: []repo.Change[imclient.Presence]{{UserID: id, Value: offline, AskedAt: now, ObservedAt: now}},
	})
	return err
}

// stopReplication waits until the standby has all of the primary, and then cuts it off.
func (f *forgotten) stopReplication(primary *pgxpool.Pool) {
	f.t.Helper()
	ctx := f.t.Context()
	var end string
	f.must(primary.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&end))
	f.until(f.db, `SELECT pg_last_wal_replay_lsn() >= '`+end+`'`)
	for _, statement := range []string{`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`} {
		_, err := f.db.Exec(ctx, statement)
		f.must(err)
	}
	f.until(primary, `SELECT NOT EXISTS (SELECT FROM pg_stat_replication)`)
}

// until waits until a query yields true.
func (f *forgotten) until(db *pgxpool.Pool, query string) {
	f.t.Helper()
	f.reached(func() error {
		var yes bool
		if err := db.QueryRow(f.t.Context(), query).Scan(&yes); err != nil || yes {
			return err
		}
		return errors.New("not yet: " + query)
	})
}

// reached calls do until it succeeds: connections to a lost primary fail first.
func (f *forgotten) reached(do func() error) {
	f.t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = do(); err == nil {
			return
		}
	}
	f.t.Fatal(err)
}

// gone waits until something is refused for want of a claim, and fails if it is done.
func (f *forgotten) gone(what string, do func() error) {
	f.t.Helper()
	f.reached(func() error {
		err := do()
		if err == nil {
			f.t.Errorf("%s: done", what)
		}
		if errors.Is(err, repo.ErrGone) {
			return nil
		}
		return err
	})
}
