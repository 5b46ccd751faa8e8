package repo_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/repo"
)

// everythingSQL counts all that a page writes.
const everythingSQL = `
SELECT (SELECT count(*) FROM presence_snapshot), (SELECT count(*) FROM presence_history),
       (SELECT count(*) FROM user_failure), (SELECT coalesce(sum(users), 0)::int FROM sync_range),
       (SELECT string_agg(cursor_key, ' ') FROM sync_range)`

// alicePage writes to every table.
func alicePage() repo.Page[imclient.Presence] {
	p := page("k", seen("alice", offline, at(1)))
	p.Users, p.Failed = 2, 1
	p.Failures = failures(imclient.UserError{UserID: "bob", Code: "missing"})
	return p
}

func TestPageOfAnOldClaim(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, b *bench, r *repo.Range){
		"the run failed": func(t *testing.T, b *bench, r *repo.Range) {
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "bad secret"); err != nil {
				t.Fatal(err)
			}
		},
		"claimed again": func(t *testing.T, b *bench, r *repo.Range) {
			b.clock.pass(2 * time.Minute)
			b.claim(t, r.Run.ID, r.No)
		},
		"given back": func(t *testing.T, b *bench, r *repo.Range) {
			if err := b.store.ReleaseRange(t.Context(), r, "", repo.Counters{}); err != nil {
				t.Fatal(err)
			}
		},
		"rescued": func(t *testing.T, b *bench, r *repo.Range) {
			b.clock.pass(2 * time.Minute)
			b.rescue(t, 1)
		},
		"rescued and claimed": func(t *testing.T, b *bench, r *repo.Range) {
			b.clock.pass(2 * time.Minute)
			b.rescue(t, 1)
			b.claim(t, r.Run.ID, r.No)
		},
		"finished": func(t *testing.T, b *bench, r *repo.Range) {
			b.finish(t, r, "")
		},
		"given up": func(t *testing.T, b *bench, r *repo.Range) {
			b.finish(t, r, "no answer")
		},
		"cancelled and resumed": func(t *testing.T, b *bench, r *repo.Range) {
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped"); err != nil {
				t.Fatal(err)
			}
			run, err := b.store.FindRun(t.Context(), r.Run.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.store.ResumeRun(t.Context(), run, enqueue); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			r := b.startedRange(t, b.backfill(imclient.KindPresence))
			lose(t, b, r)
			before := lines(t, b.conn, rangesSQL)
			if _, err := b.store.Presence().SavePage(t.Context(), r, alicePage()); !errors.Is(err, repo.ErrGone) {
				t.Errorf("SavePage: %v, want ErrGone", err)
			}
			if _, err := b.store.FinishRange(t.Context(), r, "", nothing); !errors.Is(err, repo.ErrGone) {
				t.Errorf("FinishRange: %v, want ErrGone", err)
			}
			if _, err := b.store.FinishRange(t.Context(), r, "given up", nothing); !errors.Is(err, repo.ErrGone) {
				t.Errorf("FinishRange as failed: %v, want ErrGone", err)
			}
			if err := b.store.ReleaseRange(t.Context(), r, "too late", repo.Counters{Calls: 1}); errors.Is(err, repo.ErrGone) == (name == "the run failed") {
				t.Errorf("ReleaseRange: %v", err)
			}
			if name != "the run failed" { // there the claim is still the newest, on a closed run
				if diff := cmp.Diff(before, lines(t, b.conn, rangesSQL), cmpEmpty); diff != "" {
					t.Errorf("ranges (-before +after):\n%s", diff)
				}
			}
			wantLines(t, b.conn, "values written", `SELECT (SELECT count(*) FROM presence_snapshot), (SELECT count(*) FROM presence_history), (SELECT count(*) FROM user_failure)`, "0 0 0")
		})
	}
}

// lockUser keeps a page that writes the user waiting until release is called:
// another transaction has added the same user.
func (b *bench) lockUser(t *testing.T, userID string) (release func()) {
	t.Helper()
	conn := connect(t, b.url)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO presence_snapshot VALUES ($1, $2, 'offline', '{}', $3, $3, 0, $3)`, b.app.ID, userID, noon); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

func TestEndRunWaitsForThePageInFlight(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	release := b.lockUser(t, "alice")
	saved, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := b.store.Presence().SavePage(t.Context(), r, alicePage())
		saved <- err
	}()
	pgtest.AwaitLocked(t, b.conn, 1) // the page is past its fence
	go func() { ended <- b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped") }()
	pgtest.AwaitLocked(t, b.conn, 2)
	select {
	case err := <-ended:
		t.Errorf("EndRun did not wait for the page: %v", err)
	default:
	}
	release()
	if err := <-saved; err != nil {
		t.Errorf("the page that was in flight first: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("EndRun: %v", err)
	}
	wantLines(t, b.conn, "written", everythingSQL, "1 1 1 2 k")
	wantLines(t, b.conn, "run", `SELECT status, complete, users, changed, failed, error FROM sync_run`, "cancelled false 2 1 1 stopped")
	if _, err := b.store.Presence().SavePage(t.Context(), r, alicePage()); !errors.Is(err, repo.ErrGone) {
		t.Errorf("a later page: %v, want ErrGone", err)
	}
}

func TestPageWaitsForEndRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	// The closing itself is made to wait, after it has locked the run.
	blocker := connect(t, b.url)
	exec(t, blocker, `BEGIN; LOCK TABLE sync_range IN EXCLUSIVE MODE`)
	exec(t, b.conn, `CREATE FUNCTION wait_at_close() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE syncer.sync_range IN ROW EXCLUSIVE MODE; RETURN NEW; END $$`)
	exec(t, b.conn, `CREATE TRIGGER wait_at_close BEFORE UPDATE OF status ON sync_run FOR EACH ROW EXECUTE FUNCTION wait_at_close()`)
	saved, ended := make(chan error, 1), make(chan error, 1)
	go func() { ended <- b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "bad secret") }()
	pgtest.AwaitLocked(t, b.conn, 1)
	go func() {
		_, err := b.store.Presence().SavePage(t.Context(), r, alicePage())
		saved <- err
	}()
	pgtest.AwaitLocked(t, b.conn, 2)
	exec(t, blocker, `COMMIT`)
	if err := <-ended; err != nil {
		t.Errorf("EndRun: %v", err)
	}
	if err := <-saved; !errors.Is(err, repo.ErrGone) {
		t.Errorf("the page that came second: %v, want ErrGone", err)
	}
	wantLines(t, b.conn, "written", everythingSQL, "0 0 0 0 -")
}

// Pages of all ranges overlap without an end in a big sweep. What does not
// close the run must not wait for a moment without any.
func TestPagesInFlightHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	for _, upper := range []string{"g", "m"} {
		if err := b.store.AddRange(t.Context(), plan, &upper, enqueue); err != nil {
			t.Fatal(err)
		}
	}
	r := b.claim(t, runID, 1)
	b.claim(t, runID, 2)
	release := b.lockUser(t, "alice")
	saved := make(chan error, 1)
	go func() {
		_, err := b.store.Presence().SavePage(t.Context(), r, alicePage())
		saved <- err
	}()
	pgtest.AwaitLocked(t, b.conn, 1)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	upper := "t"
	if err := b.store.AddRange(ctx, plan, &upper, enqueue); err != nil {
		t.Errorf("AddRange beside a page in flight: %v", err)
	}
	b.clock.pass(time.Minute)
	if err := b.store.Beat(ctx); err != nil {
		t.Errorf("Beat beside a page in flight: %v", err)
	}
	// The page itself is the sign of life of its range.
	wantLines(t, b.conn, "signs of life", `SELECT range_no, beat_at FROM sync_range WHERE status = 'running' ORDER BY range_no`, "1 12:00:00", "2 12:01:00")
	b.clock.pass(2 * time.Minute)
	if rescued, err := b.open(t, "second").Rescue(ctx, []int16{b.app.ID}, at(60), enqueue); rescued != 0 || err != nil {
		t.Errorf("Rescue took over %d, %v; the page in flight is the only one without a recent sign of life", rescued, err)
	}
	if rescued, err := b.open(t, "third").Rescue(ctx, []int16{b.app.ID}, at(61), enqueue); rescued != 2 || err != nil {
		t.Errorf("Rescue took over %d, %v; want the planning and range 2", rescued, err)
	}
	other := b.claim(t, runID, 2)
	if _, err := b.store.FinishRange(ctx, other, "", nothing); err != nil {
		t.Errorf("FinishRange beside a page of another range: %v", err)
	}
	if _, err := b.store.ClaimPlan(ctx, runID, b.planJob(t, runID)); err != nil {
		t.Errorf("ClaimPlan beside a page in flight: %v", err)
	}
	if _, err := b.store.ClaimRange(ctx, runID, 3, b.rangeJob(t, runID, 3), noon); err != nil {
		t.Errorf("ClaimRange beside a page of another range: %v", err)
	}
	release()
	if err := <-saved; err != nil {
		t.Errorf("the page: %v", err)
	}
}

// Pages of several ranges with the same users in opposite order neither
// deadlock nor write a transition twice.
func TestOverlappingPages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	uppers := []string{"b", "d", "f", "h"}
	b.plan(t, runID, uppers...)
	values := b.store.Presence()
	ids := make([]string, 300)
	for i := range ids {
		ids[i] = fmt.Sprintf("user%03d", i)
	}
	var group errgroup.Group
	total := make([]int64, len(uppers)+1)
	for i := range total {
		r := b.claim(t, runID, i+1)
		group.Go(func() error {
			for round := range 10 {
				known, err := values.Load(t.Context(), b.app.ID, ids)
				if err != nil {
					return err
				}
				p := page[imclient.Presence](fmt.Sprint(round))
				for n, id := range ids {
					v := []imclient.Presence{onlineIOS, onlineWeb}[round%2]
					observed := at(round*10 + i)
					if prev := known.Snapshot(n); !prev.Exists() {
						p.Changes = append(p.Changes, seen(id, v, observed))
					} else if prev.Value != v {
						p.Changes = append(p.Changes, changed(id, *prev, v, prev.AskedAt, observed))
					}
				}
				n, err := values.SavePage(t.Context(), r, p)
				if err != nil {
					return err
				}
				total[i] += n
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, n := range total {
		sum += n
	}
	// Every history row follows on the one before, and the last is the snapshot.
	wantLines(t, b.conn, "history", `
WITH h AS (
    SELECT user_id, observed_at, state, platforms, prev_state,
           lag(platforms) OVER w AS before, lead(platforms) OVER w AS after, row_number() OVER w AS no
    FROM presence_history WINDOW w AS (PARTITION BY user_id ORDER BY observed_at)
)
SELECT count(*)::int, count(*) FILTER (WHERE h.platforms = before), count(*) FILTER (WHERE (prev_state IS NULL) <> (no = 1)),
       count(*) FILTER (WHERE h.after IS NULL AND h.platforms = s.platforms AND h.observed_at = s.changed_at)
FROM h JOIN presence_snapshot AS s USING (user_id)`, fmt.Sprintf("%d 0 0 %d", sum, len(ids)))
}
