package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// codesOf gives each of the users first to last the same code.
func codesOf(code string, first, last int) map[string]string {
	codes := make(map[string]string)
	for n := first; n <= last; n++ {
		codes[userID(n)] = code
	}
	return codes
}

// TestPerUser: users who fail become user failures, nobody else does, and they
// are forgotten when they succeed again.
func TestPerUser(t *testing.T) {
	t.Parallel()
	some := []string{userID(7), userID(8), userID(450)}
	page := userIDs(40)
	for _, tc := range []struct {
		name     string
		provider imclient.Provider
		kind     kindTables
		fault    imsim.Fault
		want     map[string]string
		maxCalls int64
	}{
		{"one poison id of 500", tencentApp, presenceTables, imsim.Fault{Kind: imsim.FaultPoison, IDs: []string{userID(123)}}, codesOf("90003", 123, 123), 20},
		{"one poison id of 500", openIMApp, accountTables, imsim.Fault{Kind: imsim.FaultPoison, IDs: []string{userID(123)}}, codesOf("1001", 123, 123), 20},
		{"a page of poison ids", tencentApp, accountTables, imsim.Fault{Kind: imsim.FaultPoison, IDs: page}, codesOf("70402", 1, 40), 100},
		{"a page of poison ids", openIMApp, presenceTables, imsim.Fault{Kind: imsim.FaultPoison, IDs: page}, codesOf("1001", 1, 40), 100},
		{"missing in every answer", tencentApp, presenceTables, imsim.Fault{Kind: imsim.FaultDrop, IDs: page}, codesOf("missing", 1, 40), 2},
		{"missing in every answer", openIMApp, accountTables, imsim.Fault{Kind: imsim.FaultDrop, IDs: page}, codesOf("missing", 1, 40), 2},
		{"missing once", openIMApp, presenceTables, imsim.Fault{Kind: imsim.FaultDrop, IDs: page, Times: 1}, map[string]string{}, 2},
		{"error list", tencentApp, presenceTables, imsim.Fault{Kind: imsim.FaultUserCode, IDs: page, Code: 70107}, codesOf("70107", 1, 40), 1},
		{"error list: a timeout", tencentApp, presenceTables, imsim.Fault{Kind: imsim.FaultUserCode, IDs: page[:1], Code: 70169}, codesOf("70169", 1, 1), 2},
		{"result code", tencentApp, accountTables, imsim.Fault{Kind: imsim.FaultUserCode, IDs: page, Code: 70107}, codesOf("70107", 1, 40), 5},
		{"everybody unknown", tencentApp, presenceTables, imsim.Fault{Kind: imsim.FaultUserCode, IDs: userIDs(500)}, codesOf("70107", 1, 500), 1},
		{"not asked for, and twice", openIMApp, accountTables, imsim.Fault{Kind: imsim.FaultUnasked, IDs: append(some, "stranger")}, map[string]string{}, 1},
	} {
		t.Run(fmt.Sprintf("%s %s %s", tc.provider, tc.kind.kind, tc.name), func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 500, change: 1})
			if tc.kind.kind == imclient.KindPresence {
				w.rounds.AccountShare = 0 // everybody stays known
			}
			e := w.engine(w.spec())
			app := e.app(tc.provider)
			id := w.fault(tc.fault)
			run := w.backfill(e, tc.provider, tc.kind.kind)
			status := repo.RunSucceeded
			if len(tc.want) > 0 {
				status = repo.RunPartial
			}
			w.ended(run, status)
			if run.Users != 500 || run.Failed != int64(len(tc.want)) || run.Calls != w.calls() || run.Calls > tc.maxCalls {
				t.Errorf("counters %+v, the API saw %d calls, want %d failed and %d calls at most", run.Counters, w.calls(), len(tc.want), tc.maxCalls)
			}
			if diff := cmp.Diff(tc.want, w.failing(tc.kind.kind, app.ID)); diff != "" {
				t.Errorf("failing users (-want +got):\n%.2000s", diff)
			}
			w.truthful(tc.kind, app, userIDs(500))

			w.sim.ClearFault(id)
			w.rounds.SetRound(1)
			run = w.backfill(e, tc.provider, tc.kind.kind)
			w.ended(run, repo.RunSucceeded)
			if left := w.failing(tc.kind.kind, app.ID); len(left) > 0 {
				t.Errorf("still failing: %v", left)
			}
			w.truthful(tc.kind, app, userIDs(500))
		})
	}
}

// TestPerUser_bracket: of a user who failed in a complete run, that run proves
// nothing: when he is seen in another state later, he was last known in the
// previous one before. Of all others it proves that they were still in it.
func TestPerUser_bracket(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 2})
	failing, steady := userID(1), userID(2)
	e := w.engine(w.spec())
	app := e.app(tencentApp)
	set := func(devices ...imsim.Device) {
		w.sim.Users().Set(failing, devices...)
		w.sim.Users().Set(steady, devices...)
	}
	set()
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultUserCode, IDs: []string{failing}})
	second := w.backfill(e, tencentApp, imclient.KindPresence)
	w.ended(second, repo.RunPartial)
	w.sim.ClearFault(fault)
	set(imsim.Device{Platform: imsim.Web, Mode: imsim.Online})
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunSucceeded)

	histories := w.history(presenceTables, app.ID)
	asked := query(w, pgx.RowTo[time.Time], `SELECT asked_at FROM syncer.presence_snapshot WHERE user_id = $1`, failing)[0]
	for id, rows := range histories {
		if len(rows) != 2 {
			t.Fatalf("%s has %d rows, want 2", id, len(rows))
		}
	}
	if got := *histories[steady][1].NotBefore; !got.Equal(second.StartedAt) {
		t.Errorf("the steady user: not before %s, want the start of the run before, %s", got, second.StartedAt)
	}
	got, seen := *histories[failing][1].NotBefore, histories[failing][0].ObservedAt
	if got.After(seen) || seen.Sub(got) > 5*time.Second || got.After(asked) {
		t.Errorf("the user who failed: not before %s, want when he was asked about first, shortly before %s", got, seen)
	}
}
