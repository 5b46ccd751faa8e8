package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
	"syncer/repo"
)

// swept is how a run ended: how many users it met, how many of them changed, and
// how many had left the users table; and whether it read the whole of that to
// find out.
type swept struct {
	Users, Changed, Removed int64
	Reconciled              bool
}

// sweepOnce runs a backfill to its end.
func (w *world) sweepOnce(e *testEngine, provider imclient.Provider, k kindTables, want swept) repo.Run {
	w.t.Helper()
	run := w.backfill(e, provider, k.kind)
	w.ended(run, repo.RunSucceeded)
	got := swept{run.Users, run.Changed, run.Removed, query(w, pgx.RowTo[bool], `SELECT reconciled FROM syncer.sync_run WHERE run_id = $1`, run.ID)[0]}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("run %d of %s (-want +got):\n%s", run.ID, k.kind, diff)
	}
	return run
}

// states gives the state after each row of some users' histories.
func (w *world) states(k kindTables, app *App, ids ...string) map[string][]string {
	w.t.Helper()
	states := make(map[string][]string)
	histories := w.history(k, app.ID)
	for _, id := range ids {
		prev := ""
		for _, r := range histories[id] {
			state := stateOf(r.Value)
			states[id] = append(states[id], state)
			if r.Prev != prev {
				w.t.Errorf("%s of %s: a row to %s has the previous state %q, want %q", k.kind, id, state, r.Prev, prev)
			}
			if (prev == "") != (r.NotBefore == nil) {
				w.t.Errorf("%s of %s: a row from %q to %s is not before %v", k.kind, id, prev, state, r.NotBefore)
			}
			if prev = state; state == "removed" || state == "rejected" {
				prev = "" // who comes back starts anew
			}
		}
	}
	return states
}

func (w *world) wantStates(k kindTables, app *App, want map[string][]string) {
	w.t.Helper()
	ids := make([]string, 0, len(want))
	for id := range want {
		ids = append(ids, id)
	}
	if diff := cmp.Diff(want, w.states(k, app, ids...)); diff != "" {
		w.t.Errorf("%s histories (-want +got):\n%s", k.kind, diff)
	}
}

// TestLeave: users leave the users table, which is in the same database or in
// another one, and some come back.
func TestLeave(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		provider  imclient.Provider
		kind      kindTables
		elsewhere bool
		state     string // of all users
	}{
		{tencentApp, presenceTables, false, "offline"},
		{openIMApp, presenceTables, true, "offline"},
		{tencentApp, accountTables, true, "imported"},
		{openIMApp, accountTables, false, "imported"},
	} {
		t.Run(fmt.Sprintf("%s %s elsewhere %t", tc.provider, tc.kind.kind, tc.elsewhere), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{})
			w.rounds.AccountShare = 0
			users, s := w, w.spec()
			s.Range, s.Page = 6, 4
			if tc.elsewhere {
				s.Users.URL = pgtest.Database(t)
				pool, err := pgxpool.New(w.ctx, s.Users.URL)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(pool.Close)
				users = &world{t: t, ctx: w.ctx, db: pool}
				users.exec(`CREATE TABLE public.users (id bigint PRIMARY KEY, uid text, team int)`)
			}
			users.addUsers(1, 20)
			e := w.engine(s)
			app, k := e.app(tc.provider), tc.kind
			calm := userIDs(20)
			for _, id := range calm {
				w.sim.Users().Set(id)
			}
			sweep := func(want swept) repo.Run { return w.sweepOnce(e, tc.provider, k, want) }

			sweep(swept{Users: 20, Changed: 20})
			second := sweep(swept{Users: 20})
			users.exec(`DELETE FROM public.users WHERE id IN (1, 13, 20)`)
			third := sweep(swept{Users: 17, Removed: 3, Reconciled: true})
			for _, id := range []string{userID(1), userID(13), userID(20)} {
				if rows := w.history(k, app.ID)[id]; len(rows) != 2 || !rows[1].NotBefore.Equal(second.StartedAt) ||
					rows[1].ObservedAt.Before(third.StartedAt) || rows[1].ObservedAt.After(*third.FinishedAt) || rows[1].RunID != third.ID {
					t.Errorf("%s has left after %s and by run %d from %s to %s; the rows are %+v",
						id, second.StartedAt, third.ID, third.StartedAt, third.FinishedAt, rows)
				}
			}
			if left := len(w.snapshot(k, app.ID)); left != 17 {
				t.Errorf("%d snapshots, want 17", left)
			}
			sweep(swept{Users: 17})

			users.exec(`INSERT INTO public.users VALUES (2000, $1)`, userID(13))
			sweep(swept{Users: 18, Changed: 1})
			users.exec(`DELETE FROM public.users WHERE id = 2000`)
			sweep(swept{Users: 17, Removed: 1, Reconciled: true})
			w.wantStates(k, app, map[string][]string{
				userID(1): {tc.state, "removed"}, userID(2): {tc.state}, userID(13): {tc.state, "removed", tc.state, "removed"},
			})
			users.exec(`TRUNCATE public.users`)
			sweep(swept{Removed: 17, Reconciled: true})
			if left := w.snapshot(k, app.ID); len(left) > 0 {
				t.Errorf("snapshots %v of an empty users table", left)
			}
			sweep(swept{})
			users.addUsers(1, 20)
			sweep(swept{Users: 20, Changed: 20})
		})
	}
}

// TestLeave_condition: who no longer meets the condition has left.
func TestLeave_condition(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	s := w.spec()
	s.Users.Where = "team = 0"
	e := w.engine(s)
	w.sweepOnce(e, openIMApp, accountTables, swept{Users: 20, Changed: 20})
	w.exec(`UPDATE public.users SET team = 1 WHERE id = 7`)
	w.sweepOnce(e, openIMApp, accountTables, swept{Users: 19, Removed: 1, Reconciled: true})
	w.exec(`UPDATE public.users SET team = 0 WHERE id = 7`)
	w.sweepOnce(e, openIMApp, accountTables, swept{Users: 20, Changed: 1})
	w.wantStates(accountTables, e.app(openIMApp), map[string][]string{userID(7): {"imported", "removed", "imported"}})
}

// TestLeave_many: of many users few leave, which costs one reading of the users
// table. As long as nobody leaves there is none, whoever joins.
func TestLeave_many(t *testing.T) {
	t.Parallel()
	const users = 20_000
	w := setup(t, worldOptions{users: users})
	e := w.engine(w.spec())
	k, app := accountTables, e.app(openIMApp)
	w.sweepOnce(e, openIMApp, k, swept{Users: users, Changed: users})
	w.sweepOnce(e, openIMApp, k, swept{Users: users})
	w.addUsers(users+1, users+10)
	w.sweepOnce(e, openIMApp, k, swept{Users: users + 10, Changed: 10})
	w.sweepOnce(e, openIMApp, k, swept{Users: users + 10})
	w.exec(`DELETE FROM public.users WHERE id IN (1, 12345, $1)`, users)
	w.sweepOnce(e, openIMApp, k, swept{Users: users + 7, Removed: 3, Reconciled: true})
	w.sweepOnce(e, openIMApp, k, swept{Users: users + 7})
	removed := query(w, pgx.RowTo[string], `SELECT user_id FROM syncer.account_history WHERE status = 'removed' ORDER BY 1`)
	if diff := cmp.Diff([]string{userID(1), userID(12345), userID(users)}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if left := len(w.snapshot(k, app.ID)); left != users+7 {
		t.Errorf("%d snapshots, want %d", left, users+7)
	}
}

// TestLeave_afterOutage: a run that failed met a new user, who left before the
// next one.
func TestLeave_afterOutage(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	s := w.spec()
	s.Range, s.Page, s.Workers = 10, 10, 1
	e := w.engine(s)
	w.sweepOnce(e, openIMApp, accountTables, swept{Users: 20, Changed: 20})
	w.exec(`INSERT INTO public.users VALUES (0, $1)`, userID(99))
	// The new user is on the first page; the last one meets the fault.
	fault := w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 404, IDs: []string{userID(20)}})
	run := w.backfill(e, openIMApp, imclient.KindAccounts)
	w.ended(run, repo.RunFailed)
	if run.Changed != 1 {
		t.Fatalf("the run that failed changed %d users, want the new one", run.Changed)
	}
	w.sim.ClearFault(fault)
	w.exec(`DELETE FROM public.users WHERE id = 0`)
	w.sweepOnce(e, openIMApp, accountTables, swept{Users: 20, Removed: 1, Reconciled: true})
	w.wantStates(accountTables, e.app(openIMApp), map[string][]string{userID(99): {"imported", "removed"}})
}

// TestLapse: nobody knows anything any more of users whom the API has rejected
// for longer than max_gap.
func TestLapse(t *testing.T) {
	t.Parallel()
	for _, k := range bothTables {
		t.Run(string(k.kind), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 20})
			e := w.engine(w.spec())
			app := e.app(tencentApp)
			w.rounds.AccountShare = 0
			for _, id := range userIDs(20) {
				w.sim.Users().Set(id)
			}
			sweep := func(maxGap time.Duration, status repo.RunStatus) repo.Run {
				run, err := e.StartBackfill(w.ctx, Backfill{AppID: app.ID, Kind: k.kind, MaxGap: maxGap, Waiting: func(repo.Run) {}})
				if err != nil {
					t.Fatal(err)
				}
				run = w.wait(e, run)
				w.ended(run, status)
				return run
			}
			const short, long = time.Millisecond, time.Hour
			first := sweep(short, repo.RunSucceeded)
			fault := w.fault(imsim.Fault{Kind: imsim.FaultUserCode, IDs: []string{userID(7)}, Code: 70107})
			sweep(short, repo.RunPartial) // not known for how long already
			sweep(long, repo.RunPartial)  // not for so long
			sweep(0, repo.RunPartial)     // nothing says what is too long
			if left := len(w.snapshot(k, app.ID)); left != 20 {
				t.Errorf("%d snapshots, want 20", left)
			}
			last := sweep(short, repo.RunPartial)
			if left := len(w.snapshot(k, app.ID)); left != 19 {
				t.Errorf("%d snapshots, want 19", left)
			}
			sweep(short, repo.RunPartial)
			rows := w.history(k, app.ID)[userID(7)]
			if len(rows) != 2 || !rows[1].NotBefore.After(first.StartedAt) || rows[1].NotBefore.After(*first.FinishedAt) || rows[1].RunID != last.ID {
				t.Errorf("last known in run %d from %s to %s, lapsed in run %d; the rows are %+v", first.ID, first.StartedAt, first.FinishedAt, last.ID, rows)
			}
			w.sim.ClearFault(fault)
			sweep(short, repo.RunSucceeded)
			state := stateOf(w.snapshot(k, app.ID)[userID(7)])
			w.wantStates(k, app, map[string][]string{userID(6): {state}, userID(7): {state, "rejected", state}})
			if n := w.count(`SELECT count(*) FROM syncer.sync_run WHERE removed > 0`); n > 0 {
				t.Errorf("%d runs removed somebody", n)
			}
		})
	}
}
