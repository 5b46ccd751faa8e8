package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// stored names what of a kind of answers is stored, and how it is read: one
// column of text with the state and the platforms, in one spelling.
type stored struct {
	app, history, snapshot, value string
	served                        imsim.Kind
}

var allStored = []stored{
	{"main", "presence_history", "presence_snapshot", "state::text || ' ' || platforms::text", imsim.TencentPresence},
	{"main", "account_history", "account_snapshot", "status::text", imsim.TencentAccounts},
	{"chat", "presence_history", "presence_snapshot", "state::text || ' ' || platforms::text", imsim.OpenIMPresence},
	{"chat", "account_history", "account_snapshot", "status::text", imsim.OpenIMAccounts},
}

// truthful checks that the histories and snapshots of both apps say, of every
// user, exactly what the simulator served, in order.
func (w *world) truthful() {
	w.t.Helper()
	w.storedAsServed(w.sim, allStored)
}

// storedAsServed is truthful for some apps, of another simulator.
func (w *world) storedAsServed(sim *imsim.Server, all []stored) {
	w.t.Helper()
	users := query(w, pgx.RowTo[string], `SELECT uid FROM public.users ORDER BY id`)
	type row struct{ UserID, Value string }
	for _, s := range all {
		want, got := map[string][]string{}, map[string][]string{}
		wantLast, gotLast := map[string]string{}, map[string]string{}
		for _, id := range users {
			for _, v := range sim.Served(s.served, id) {
				want[id] = append(want[id], w.spelled(v))
				wantLast[id] = w.spelled(v)
			}
		}
		const rowsSQL = `SELECT user_id, %s FROM syncer.%s JOIN syncer.app USING (app_id) WHERE name = $1`
		for _, r := range query(w, pgx.RowToStructByPos[row], fmt.Sprintf(rowsSQL, s.value, s.history)+` ORDER BY observed_at`, s.app) {
			got[r.UserID] = append(got[r.UserID], r.Value)
		}
		for _, r := range query(w, pgx.RowToStructByPos[row], fmt.Sprintf(rowsSQL, s.value, s.snapshot), s.app) {
			gotLast[r.UserID] = r.Value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Errorf("%s of %s (-served +stored):\n%.3000s", s.history, s.app, diff)
		}
		if diff := cmp.Diff(wantLast, gotLast); diff != "" {
			w.t.Errorf("%s of %s (-served +stored):\n%.3000s", s.snapshot, s.app, diff)
		}
	}
}

// spelled spells a served value as Postgres does: jsonb has spaces and sorts
// keys by length, then by bytes.
func (w *world) spelled(v imsim.Value) string {
	w.t.Helper()
	if v.Platforms == "" {
		return v.State
	}
	var platforms map[string]string
	if err := json.Unmarshal([]byte(v.Platforms), &platforms); err != nil {
		w.t.Fatal(err)
	}
	names := slices.SortedFunc(maps.Keys(platforms), func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%q: %q", name, platforms[name])
	}
	return v.State + " {" + strings.Join(names, ", ") + "}"
}

// maxIDs is the most ids that each API takes.
var maxIDs = map[string]int{
	imsim.PathQueryOnlineStatus: 500, imsim.PathTencentAccounts: 100,
	imsim.PathOpenIMPresence: 500, imsim.PathOpenIMAccounts: 500,
}

// lawful checks the rules that the backends' side can see: no more than rate
// calls of one API in any second, nor than the documented ids in one call.
func (w *world) lawful(rate int) {
	w.t.Helper()
	stats := w.sim.Stats()
	for path, most := range maxIDs {
		got := stats.APIs[path]
		if got.Calls == 0 {
			w.t.Errorf("%s was never called", path)
		}
		if got.MaxIDs > most {
			w.t.Errorf("%s: %d ids in one call, at most %d are allowed", path, got.MaxIDs, most)
		}
		if got.MaxPerSecond > rate {
			w.t.Errorf("%s: %d calls in one second, the limit is %d", path, got.MaxPerSecond, rate)
		}
		if got.DuplicateCalls > 0 || got.RepeatedNonces > 0 || got.Unauthorised > 0 || got.RateLimited > 0 {
			w.t.Errorf("%s: calls with an id twice: %d, with a repeated random or operationID: %d, refused for the signature or token: %d, for the rate: %d",
				path, got.DuplicateCalls, got.RepeatedNonces, got.Unauthorised, got.RateLimited)
		}
	}
}

// TestBackfillRounds: 5,000 users, five rounds with 5 % changing from one to
// the next, a backfill after each, by one process alone and with two daemons
// that work on the same runs.
func TestBackfillRounds(t *testing.T) {
	for _, processes := range []int{1, 3} {
		t.Run(fmt.Sprintf("processes=%d", processes), func(t *testing.T) {
			t.Parallel()
			testBackfillRounds(t, processes)
		})
	}
}

func testBackfillRounds(t *testing.T, processes int) {
	const users, rounds, limit = 5000, 5, 40
	w := newWorld(t, worldOptions{
		users: users, change: 0.05,
		limits: imsim.Tencent{PresenceRate: limit, AccountsRate: limit},
		config: noJobs,
	})
	// The room between these and the limit is for calls that are held up on their
	// way on a busy machine, and arrive together with later ones.
	rates := []string{
		"SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=30", "SYNCER_APPS_MAIN_TENCENT_ACCOUNTS_RATE=30",
		"SYNCER_APPS_CHAT_OPENIM_PRESENCE_RATE=30", "SYNCER_APPS_CHAT_OPENIM_ACCOUNTS_RATE=30",
	}
	w.run(exitDone, "migrate", "up")
	for range processes - 1 {
		w.daemon(rates...)
	}
	for round := range rounds {
		w.rounds.SetRound(round)
		before := w.changed()
		stdout, _ := w.run(exitPartial, append(slices.Clone(rates), "backfill", "--json")...)
		w.complete(stdout, users)
		if round > 0 {
			// 5 % of the users, with either kind of either app.
			if changed := w.changed() - before; changed < 4*users*3/100 || changed > 4*users*7/100 {
				t.Errorf("round %d: %d rows were written", round, changed)
			}
		}
	}
	w.truthful()
	w.lawful(limit)
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE retries > 0`)
	for line := range strings.Lines(w.output.String()) {
		if strings.Contains(line, `"class":`) {
			t.Errorf("a call failed: %s", line)
		}
	}
}

// noJobs are lines for a configuration whose daemons only work on the runs of
// others.
const noJobs = `
[[jobs]]
name     = "yearly"
kind     = "presence"
schedule = "@yearly"
catch_up = false
`

// changed is how many rows all runs have written so far.
func (w *world) changed() int64 {
	w.t.Helper()
	return query(w, pgx.RowTo[int64], `SELECT coalesce(sum(changed), 0)::bigint FROM syncer.sync_run`)[0]
}

// complete checks that the summary of a backfill says that both kinds of both
// apps went through all users.
func (w *world) complete(summary string, users int64) {
	w.t.Helper()
	var got struct {
		Runs []struct {
			App, Kind, Status string
			Users, Calls      int64
			Seconds           float64
			UsersPerSec       float64 `json:"users_per_second"`
			QuotaUsed         float64 `json:"quota_used"`
		}
	}
	if err := json.Unmarshal([]byte(summary), &got); err != nil {
		w.t.Fatalf("%v: %s", err, summary)
	}
	var names []string
	for _, r := range got.Runs {
		names = append(names, r.App+" "+r.Kind)
		if r.Status != "succeeded" && r.Status != "partial" || r.Users != users || r.Calls == 0 || r.Seconds <= 0 || r.UsersPerSec <= 0 || r.QuotaUsed <= 0 {
			w.t.Errorf("the summary of %s %s: %+v", r.App, r.Kind, r)
		}
	}
	if diff := cmp.Diff([]string{"main presence", "main accounts", "chat presence", "chat accounts"}, names); diff != "" {
		w.t.Errorf("runs of the summary (-want +got):\n%s", diff)
	}
}
