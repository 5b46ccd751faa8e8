package jobs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// removal is how a run ended that found users missing from the users table.
type removal struct {
	Status                   repo.RunStatus
	Complete                 bool
	Users, Removed, HeldBack int64
}

// sweepRemoving runs a backfill to its end.
func (w *world) sweepRemoving(e *testEngine, b Backfill, want removal) repo.Run {
	w.t.Helper()
	b.AppID, b.Waiting = e.app(openIMApp).ID, func(repo.Run) {}
	run, err := e.StartBackfill(w.ctx, b)
	if err != nil {
		w.t.Fatal(err)
	}
	run = w.wait(e, run)
	got := removal{run.Status, query(w, pgx.RowTo[bool], `SELECT complete FROM syncer.sync_run WHERE run_id = $1`, run.ID)[0], run.Users, run.Removed, run.HeldBack}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Fatalf("run %d of %s (-want +got):\n%s%s", run.ID, b.Kind, diff, run.Error)
	}
	return run
}

// TestHeldBack: so many users are missing from the users table that no user is
// removed, until the table is mended or the operator confirms it. What is written
// meanwhile, and after it, is true: the users who are missing were last seen by the
// complete run before.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	for _, k := range bothTables {
		t.Run(string(k.kind), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 40})
			w.rounds.AccountShare = 0
			for _, id := range userIDs(200) {
				w.sim.Users().Set(id)
			}
			s := w.spec()
			s.Range, s.Page, s.Workers, s.RemovalMin = 20, 10, 1, 20
			e := w.engine(s)
			e.Schedule(nil)
			app := e.app(openIMApp)
			sweep := func(want removal) repo.Run { return w.sweepRemoving(e, Backfill{Kind: k.kind}, want) }
			complete := func(users, removed int64) repo.Run {
				return sweep(removal{repo.RunSucceeded, true, users, removed, 0})
			}
			held := func(users, missing int64) repo.Run {
				run := sweep(removal{repo.RunPartial, false, users, 0, missing})
				want := fmt.Sprintf("syncer backfill --app openim --job %s --let-leave", k.kind)
				if !strings.Contains(run.Error, fmt.Sprintf("no user was removed: %d of ", missing)) || !strings.Contains(run.Error, want) {
					t.Errorf("run %d ends with %q, which must say how many are missing, and %q", run.ID, run.Error, want)
				}
				w.eventually("the log says so", func() bool {
					return len(w.log.lines(`"level":"warn"`, fmt.Sprintf(`"run_id":%d,`, run.ID), run.Error)) > 0
				})
				return run
			}
			heldBack := func() int64 {
				watched, err := e.store.WatchApps(w.ctx, []int16{app.ID})
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range watched {
					if a.Kind == k.kind {
						return a.HeldBack
					}
				}
				return -1
			}

			complete(40, 0)
			last := complete(40, 0)
			w.exec(`DELETE FROM public.users WHERE id <= 21`)
			held(19, 21)
			w.sim.Users().Set(userID(21), onWeb)
			w.sim.Users().Set(userID(40), onWeb)
			w.exec(`INSERT INTO public.users VALUES (41, $1)`, userID(41))
			held(20, 21)
			if got := heldBack(); got != 21 {
				t.Errorf("%d users are held back by the metric, want 21", got)
			}
			if left := len(w.snapshot(k, app.ID)); left != 41 {
				t.Errorf("%d snapshots, want all 41", left)
			}
			view := map[imclient.Kind]string{imclient.KindPresence: "presence_current", imclient.KindAccounts: "account_current"}[k.kind]
			for _, checked := range query(w, pgx.RowTo[time.Time], `SELECT last_checked_at FROM syncer.`+view+` WHERE app_id = $1 AND user_id <= $2`, app.ID, userID(21)) {
				if !checked.Equal(last.StartedAt) {
					t.Errorf("a user who is missing was last checked at %s, want the start of the last complete run, %s", checked, last.StartedAt)
				}
			}

			// The table comes back by itself.
			w.addUsers(1, 21)
			back := complete(41, 0)
			if got := heldBack(); got != 0 {
				t.Errorf("%d users are held back after a complete run", got)
			}
			rows := w.history(k, app.ID)
			for n := 1; n <= 41; n++ {
				want := 1
				if k.kind == imclient.KindPresence && (n == 21 || n == 40) {
					want = 2
				}
				if got := rows[userID(n)]; len(got) != want {
					t.Errorf("%s has %d rows, want %d: %+v", userID(n), len(got), want, got)
				}
			}
			if k.kind == imclient.KindPresence {
				for _, id := range []string{userID(21), userID(40)} {
					if r := rows[id][1]; !r.NotBefore.Equal(last.StartedAt) {
						t.Errorf("%s changed after %s; it was last seen by the complete run that began at %s", id, r.NotBefore, last.StartedAt)
					}
				}
			}
			gaps := query(w, pgx.RowTo[bool], `SELECT started_at BETWEEN $2 AND $3 AND ended_at = $4 FROM syncer.observation_gap WHERE run_id = $1`,
				back.ID, last.StartedAt, *last.FinishedAt, back.StartedAt)
			if diff := cmp.Diff([]bool{true}, gaps); diff != "" {
				t.Errorf("gaps from the last complete run to the next (-want +got):\n%s", diff)
			}

			// Half of the users may leave, no more.
			w.exec(`DELETE FROM public.users WHERE id <= 20`)
			complete(21, 20)
			// The table is exchanged for one of other users, who are no known ones; they
			// are met by a run that fails, too.
			w.exec(`UPDATE public.users SET uid = 'u' || lpad((id + 100)::text, 6, '0')`)
			fault := w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 404, IDs: []string{userID(141)}})
			sweep(removal{repo.RunFailed, false, 20, 0, 0})
			w.sim.ClearFault(fault)
			held(21, 21)
			w.exec(`TRUNCATE public.users`)
			held(0, 42)
			// The operator confirms it.
			w.sweepRemoving(e, Backfill{Kind: k.kind, LetLeave: true}, removal{repo.RunSucceeded, true, 0, 42, 0})
			if left := w.snapshot(k, app.ID); len(left) > 0 {
				t.Errorf("snapshots %v of an empty users table", left)
			}
			complete(0, 0)
			// Nor is a first run believed, of which the table was emptied before it was over.
			w.addUsers(1, 40)
			fault = w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 404, IDs: []string{userID(40)}})
			sweep(removal{repo.RunFailed, false, 30, 0, 0})
			w.sim.ClearFault(fault)
			w.exec(`TRUNCATE public.users`)
			held(0, 30)
			// Fewer users than removal_min come and go as they like.
			w.sweepRemoving(e, Backfill{Kind: k.kind, LetLeave: true}, removal{repo.RunSucceeded, true, 0, 30, 0})
			w.addUsers(1, 19)
			complete(19, 0)
			w.exec(`TRUNCATE public.users`)
			complete(0, 19)
		})
	}
}
