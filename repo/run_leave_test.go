package repo_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

const leaversSQL = `
SELECT user_id, prev_state::text, state::text, platforms::text, prev_since, not_before, observed_at, run_id
FROM presence_history
ORDER BY observed_at, user_id`

// table returns users as a users table is read, part by part.
func table(parts ...[]string) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) {
		if len(parts) == 0 {
			return nil, nil
		}
		part := parts[0]
		parts = parts[1:]
		return part, nil
	}
}

// letLeave lets any number of users leave.
func letLeave(repo.Leavers) string { return "" }

// meet saves a page of users who are online; those before had a snapshot.
func (b *bench) meet(t testing.TB, r *repo.Range, before, now []string) {
	t.Helper()
	known, err := b.store.Presence().Load(t.Context(), b.app.ID, now)
	if err != nil {
		t.Fatal(err)
	}
	p := page[imclient.Presence]("k")
	for i, id := range now {
		if !known.Snapshot(i).Exists() {
			p.Changes = append(p.Changes, seen(id, onlineIOS, b.clock.Now()))
		}
	}
	p.Users, p.Kept, p.Known = int64(len(now)), population(before...), population(now...)
	save(t, b.store.Presence(), r, p, int64(len(p.Changes)))
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	other, err := b.store.EnsureApp(t.Context(), "other", imclient.ProviderOpenIM, "other")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, b.conn, `INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since) VALUES ($1, 'bob', 'online', '{}', $2, $2, 0, $2)`, other.ID, at(0))

	first := b.startedRange(t, b.every(time.Minute))
	b.meet(t, first, nil, []string{"alice", "bob", "carol"})
	b.finish(t, first, "") // there were no users before, so none can have left

	b.clock.pass(time.Minute)
	second := b.startedRange(t, b.every(time.Minute))
	b.meet(t, second, []string{"alice", "bob", "carol"}, []string{"alice", "bob", "carol"})
	b.finish(t, second, "") // the same users again

	b.clock.pass(time.Minute)
	third := b.startedRange(t, b.every(time.Minute))
	b.meet(t, third, []string{"alice", "carol"}, []string{"alice", "carol", "dave"})
	if _, err := b.store.FinishRange(t.Context(), third, "", nothing); !errors.Is(err, repo.ErrUnreconciled) {
		t.Fatalf("FinishRange of a run that did not meet bob: %v, want ErrUnreconciled", err)
	}
	wantLines(t, b.conn, "the range", `SELECT status FROM sync_range WHERE run_id = 3`, "running")
	b.clock.pass(time.Second)
	read := table([]string{"carol", "alice"}, []string{"dave", "erin"})
	left, err := values.Reconcile(t.Context(), third, func(ctx context.Context) ([]string, error) {
		b.clock.pass(time.Second) // bob leaves as late as now
		return read(ctx)
	}, letLeave)
	if want := (repo.Leavers{Users: 1, Known: 3}); err != nil || left != want {
		t.Fatalf("Reconcile = %+v, %v; want %+v", left, err, want)
	}
	b.finish(t, third, "")
	wantLines(t, b.conn, "who left", leaversSQL,
		"alice - online {\"ios\": \"online\"} - - 12:00:00 1",
		"bob - online {\"ios\": \"online\"} - - 12:00:00 1",
		"carol - online {\"ios\": \"online\"} - - 12:00:00 1",
		"dave - online {\"ios\": \"online\"} - - 12:02:00 3",
		"bob online removed {} 12:00:00 12:01:00 12:02:04 3")
	wantLines(t, b.conn, "snapshots", `SELECT app_id, user_id FROM presence_snapshot ORDER BY 1, 2`, "1 alice", "1 carol", "1 dave", "2 bob")
	wantLines(t, b.conn, "runs", `SELECT run_id, status, removed, known_users, reconciled FROM sync_run`,
		"1 succeeded 0 3 false", "2 succeeded 0 3 false", "3 succeeded 1 3 true")

	// Who comes back starts anew, and is then one of the known.
	b.clock.pass(time.Minute)
	fourth := b.startedRange(t, b.every(time.Minute))
	b.meet(t, fourth, []string{"alice", "carol", "dave"}, []string{"alice", "bob", "carol", "dave"})
	b.finish(t, fourth, "")
	wantLines(t, b.conn, "who came back", `SELECT prev_state, state::text, not_before, observed_at FROM presence_history WHERE run_id = 4`,
		"- online - 12:03:04")
}

// reconcile checks that a run cannot be closed before it has found out that so
// many users are no longer in the users table, and closes it.
func (b *bench) reconcile(t testing.TB, r *repo.Range, removed int64, users ...string) {
	t.Helper()
	if _, err := b.store.FinishRange(t.Context(), r, "", nothing); !errors.Is(err, repo.ErrUnreconciled) {
		t.Fatalf("FinishRange: %v, want ErrUnreconciled", err)
	}
	got, err := b.store.Presence().Reconcile(t.Context(), r, table(users), letLeave)
	if err != nil || got.Users != removed {
		t.Fatalf("Reconcile removed %d, %v; want %d", got.Users, err, removed)
	}
	b.finish(t, r, "")
}

// Who was met for the first time by a run that did not go through, or by one of
// a list, and left before the next complete run, is not one of those whom the
// previous complete run knew.
func TestReconcileAfterOtherRuns(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]func(t *testing.T, b *bench){
		"failed": func(t *testing.T, b *bench) {
			r := b.startedRange(t, b.every(time.Minute))
			b.meet(t, r, []string{"alice"}, []string{"alice", "bob"})
			b.finish(t, r, "connection refused")
		},
		"cancelled": func(t *testing.T, b *bench) {
			r := b.startedRange(t, b.every(time.Minute))
			b.meet(t, r, []string{"alice"}, []string{"alice", "bob"})
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped"); err != nil {
				t.Fatal(err)
			}
		},
		"listed": func(t *testing.T, b *bench) {
			n := b.backfill(imclient.KindPresence)
			n.Listed = []string{"bob"}
			r := b.startedRange(t, n)
			b.meet(t, r, nil, []string{"bob"})
			b.finish(t, r, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			first := b.startedRange(t, b.every(time.Minute))
			b.meet(t, first, nil, []string{"alice"})
			b.finish(t, first, "")
			b.clock.pass(time.Minute)
			other(t, b)
			b.clock.pass(time.Minute)
			third := b.startedRange(t, b.every(time.Minute))
			b.meet(t, third, []string{"alice"}, []string{"alice"})
			b.reconcile(t, third, 1, "alice")
			wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`, "alice")
		})
	}
}

// A run that was opened again after a newer one met users who that one did not.
func TestReconcileAfterResumedRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	older := b.startedRange(t, b.backfill(imclient.KindPresence))
	if err := b.store.EndRun(t.Context(), older.Run.ID, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(time.Minute)
	newer := b.startedRange(t, b.every(time.Minute))
	b.meet(t, newer, nil, []string{"alice"})
	b.finish(t, newer, "")
	b.clock.pass(time.Minute)
	if err := b.store.ResumeRun(t.Context(), b.find(t, older.Run.ID), enqueue); err != nil {
		t.Fatal(err)
	}
	older = b.claim(t, older.Run.ID, 1)
	b.meet(t, older, []string{"alice"}, []string{"alice", "bob"})
	b.finish(t, older, "")
	b.clock.pass(time.Minute)
	last := b.startedRange(t, b.every(time.Minute))
	b.meet(t, last, []string{"alice"}, []string{"alice"})
	b.reconcile(t, last, 1, "alice")
}

// A user who was out of the table only while the page was read is not one of
// those whom that run knew, and must not be forgotten for it.
func TestReconcileAfterMissedUser(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.startedRange(t, b.every(time.Minute))
	b.meet(t, first, nil, []string{"alice", "bob"})
	b.finish(t, first, "")
	b.clock.pass(time.Minute)
	second := b.startedRange(t, b.every(time.Minute))
	b.meet(t, second, []string{"alice"}, []string{"alice"})
	b.reconcile(t, second, 0, "alice", "bob")
	b.clock.pass(time.Minute)
	third := b.startedRange(t, b.every(time.Minute))
	b.meet(t, third, []string{"alice"}, []string{"alice"})
	b.reconcile(t, third, 1, "alice")
	// One user leaves after having been met, and another one is missed.
	b.clock.pass(time.Minute)
	fourth := b.startedRange(t, b.every(time.Minute))
	b.meet(t, fourth, []string{"alice"}, []string{"alice", "carol"})
	b.finish(t, fourth, "")
	b.clock.pass(time.Minute)
	fifth := b.startedRange(t, b.every(time.Minute))
	b.meet(t, fifth, []string{"alice"}, []string{"alice"})
	b.reconcile(t, fifth, 1, "carol")
	b.clock.pass(time.Minute)
	sixth := b.startedRange(t, b.every(time.Minute))
	b.reconcile(t, sixth, 1, "dave")
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`)
}

func TestReconcileLeavesWhatIsNewer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.every(time.Minute))
	b.meet(t, r, nil, []string{"alice", "bob"})
	// The table is read from now on; bob is seen while it is read.
	b.clock.pass(time.Second)
	reads := 0
	_, err := b.store.Presence().Reconcile(t.Context(), r, func(context.Context) ([]string, error) {
		if reads++; reads > 1 {
			return nil, nil
		}
		exec(t, b.conn, `UPDATE presence_snapshot SET changed_at = $1 WHERE user_id = 'bob'`, at(2))
		return []string{"carol"}, nil
	}, letLeave)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`, "bob")
}

func TestReconcileThatFails(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.every(time.Minute))
	b.meet(t, r, nil, []string{"alice"})
	gone := errors.New("the users database is gone")
	if _, err := b.store.Presence().Reconcile(t.Context(), r, func(context.Context) ([]string, error) { return nil, gone }, letLeave); !errors.Is(err, gone) {
		t.Errorf("Reconcile = %v, want %v", err, gone)
	}
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`, "alice")
	wantLines(t, b.conn, "the run", `SELECT status, reconciled FROM sync_run`, "running false")

	// A worker whose range was taken over removes no user.
	b.clock.pass(2 * time.Minute)
	b.claim(t, r.Run.ID, 1)
	if _, err := b.store.Presence().Reconcile(t.Context(), r, table([]string{"bob"}), letLeave); !errors.Is(err, repo.ErrGone) {
		t.Errorf("Reconcile of a lost range = %v, want ErrGone", err)
	}
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`, "alice")
}

func TestReconcileAccounts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Accounts()
	r := b.startedRange(t, b.backfill(imclient.KindAccounts))
	save(t, values, r, page("k", seen("alice", imclient.StatusImported, at(0)), seen("bob", imclient.StatusNotImported, at(0))), 2)
	b.clock.pass(time.Minute)
	if left, err := values.Reconcile(t.Context(), r, table([]string{"alice"}), letLeave); err != nil || left.Users != 1 {
		t.Fatalf("Reconcile removed %d, %v; want 1", left.Users, err)
	}
	wantLines(t, b.conn, "history", `SELECT user_id, prev_status::text, status::text, not_before, observed_at FROM account_history ORDER BY observed_at, user_id`,
		"alice - imported - 12:00:00", "bob - not_imported - 12:00:00", "bob not_imported removed 11:59:59 12:01:00")
}

// What is left of a run is no more than finding out who left.
func TestResumeBeforeReconcile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.startedRange(t, b.every(time.Minute))
	b.meet(t, first, nil, []string{"alice", "bob"})
	b.finish(t, first, "")
	b.clock.pass(time.Minute)
	second := b.startedRange(t, b.backfill(imclient.KindPresence))
	b.meet(t, second, []string{"alice"}, []string{"alice"})
	if err := b.store.EndRun(t.Context(), second.Run.ID, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	exec(t, b.conn, `UPDATE sync_range SET status = 'done' WHERE run_id = 2`)
	if err := b.store.ResumeRun(t.Context(), b.find(t, second.Run.ID), enqueue); err != nil {
		t.Fatal(err)
	}
	second = b.claim(t, second.Run.ID, 1)
	if left, err := b.store.Presence().Reconcile(t.Context(), second, table([]string{"alice"}), letLeave); err != nil || left.Users != 1 {
		t.Fatalf("Reconcile removed %d, %v; want 1", left.Users, err)
	}
	if !b.finish(t, second, "") {
		t.Error("the run is not closed")
	}
}

// A run that held users back and was stopped before it was closed looks again when
// it is resumed: they may be there by then.
func TestResumeAfterHoldingBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.startedRange(t, b.every(time.Minute))
	b.meet(t, first, nil, []string{"alice", "bob"})
	b.finish(t, first, "")
	b.clock.pass(time.Minute)
	second := b.startedRange(t, b.backfill(imclient.KindPresence))
	b.meet(t, second, nil, nil)
	left, err := b.store.Presence().Reconcile(t.Context(), second, table(), func(repo.Leavers) string { return "too many" })
	if want := (repo.Leavers{Users: 2, Known: 2, HeldBack: "too many"}); err != nil || left != want {
		t.Fatalf("Reconcile = %+v, %v; want %+v", left, err, want)
	}
	if err := b.store.EndRun(t.Context(), second.Run.ID, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	const runs = `SELECT status, complete, removed, held_back, error FROM sync_run WHERE run_id = 2`
	wantLines(t, b.conn, "the run", runs, "cancelled false 0 2 stopped")
	if err := b.store.ResumeRun(t.Context(), b.find(t, second.Run.ID), enqueue); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "the run", runs, "running false 0 0 -")
	second = b.claim(t, second.Run.ID, 1)
	b.reconcile(t, second, 0, "alice", "bob")
	wantLines(t, b.conn, "the run", runs, "succeeded true 0 0 -")

	// Closed, it says so, and is not complete.
	b.clock.pass(time.Minute)
	third := b.startedRange(t, b.every(time.Minute))
	b.meet(t, third, nil, nil)
	if _, err := b.store.Presence().Reconcile(t.Context(), third, table(), func(repo.Leavers) string { return "too many" }); err != nil {
		t.Fatal(err)
	}
	b.finish(t, third, "")
	wantLines(t, b.conn, "the run", `SELECT status, complete, removed, held_back, error FROM sync_run WHERE run_id = 3`, "partial false 0 2 too many")
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot ORDER BY 1`, "alice", "bob")
}

func TestRejectedForTooLong(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	values := b.store.Presence()
	r := b.startedRange(t, b.every(time.Minute))
	save(t, values, r, page("a", seen("alice", onlineIOS, at(0)), seen("bob", onlineIOS, at(0))), 2)
	b.clock.pass(time.Minute)
	p := page[imclient.Presence]("b")
	p.Failures = []repo.Failure{{UserError: imclient.UserError{UserID: "bob", Code: "70107"}, KnownAt: at(30)}}
	save(t, values, r, p, 0)
	p.Failures[0].KnownAt = at(99) // what was first said stands
	save(t, values, r, p, 0)
	known, err := values.Load(t.Context(), b.app.ID, []string{"alice", "bob"})
	if err != nil {
		t.Fatal(err)
	}
	if got := known.Failing["bob"].KnownAt; !got.Equal(at(30)) || len(known.Failing) != 1 {
		t.Errorf("failing are %v, want bob, known at 12:00:30", known.Failing)
	}
	p = page[imclient.Presence]("c")
	p.Lapses = []repo.Lapse{
		{UserID: "bob", ChangedAt: at(0), NotBefore: at(30), AskedAt: at(300), ObservedAt: at(300)},
		{UserID: "alice", ChangedAt: at(-1), NotBefore: at(30), AskedAt: at(300), ObservedAt: at(300)}, // compared with another snapshot
	}
	save(t, values, r, p, 0)
	save(t, values, r, p, 0) // replayed
	wantLines(t, b.conn, "history", leaversSQL,
		"alice - online {\"ios\": \"online\"} - - 12:00:00 1",
		"bob - online {\"ios\": \"online\"} - - 12:00:00 1",
		"bob online rejected {} 12:00:00 12:00:30 12:05:00 1")
	wantLines(t, b.conn, "snapshots", `SELECT user_id FROM presence_snapshot`, "alice")
}

func TestPopulation(t *testing.T) {
	t.Parallel()
	if population("alice", "bob") != population("bob", "alice") {
		t.Error("the order counts")
	}
	for _, other := range []repo.Population{population("alice"), population("alice", "bo"), population("alice", "bob", "bob"), population("alic", "ebob"), population()} {
		if population("alice", "bob") == other {
			t.Errorf("%v passes for alice and bob", other)
		}
	}
}
