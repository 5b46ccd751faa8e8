package jobs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestFlips: users on two gateways, whose answers alternate between the devices
// of the one and of the other. They settle after at most one row beyond the
// first, and make none from then on; a real change lands.
func TestFlips(t *testing.T) {
	t.Parallel()
	const users = 200
	w := setup(t, worldOptions{users: users})
	w.set(1, users, imsim.Device{Platform: imsim.IOS, Mode: imsim.Background}, onWeb)
	s := w.suspectSpec(openIMApp)
	e := w.engine(s)
	app := e.app(openIMApp)
	flips := imsim.Fault{Kind: imsim.FaultFlip}
	flip := w.fault(flips)
	sweep := func() (rows map[string]int) {
		w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
		rows = make(map[string]int)
		for id, h := range w.history(presenceTables, app.ID) {
			rows[id] = len(h)
		}
		return rows
	}
	stored := func() map[string]string { return w.snapshot(presenceTables, app.ID) }
	var rows map[string]int
	for range 4 {
		rows = sweep()
	}
	settled := 0
	for id, value := range stored() {
		both := strings.Contains(value, `"ios"`) && strings.Contains(value, `"web"`)
		if both {
			settled++
		}
		// Who has always been answered for by the same gateway is not known better.
		if want := map[bool]int{false: 1, true: 2}[both]; rows[id] != want {
			t.Errorf("%s is stored as %s after %d rows, want %d", id, value, rows[id], want)
		}
	}
	if settled < users/2 {
		t.Errorf("%d users are stored with both platforms: the flips were no flips", settled)
	}
	w.sim.ClearFault(flip)
	rows, before := sweep(), stored()
	w.fault(flips)
	for range 3 {
		if diff := cmp.Diff(rows, sweep()); diff != "" {
			t.Errorf("rows that come from flips (-before +after):\n%.2000s", diff)
		}
	}
	if diff := cmp.Diff(before, stored()); diff != "" {
		t.Errorf("snapshots (-before +after):\n%.2000s", diff)
	}

	w.set(1, users, onWeb)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	if diff := cmp.Diff(all(webOnline, 1, users), w.snapshot(presenceTables, app.ID)); diff != "" {
		t.Errorf("after a real change (-want +got):\n%.2000s", diff)
	}
}

// TestFlips_believed: without a second opinion platforms are believed as they
// come, and the server is asked for one once only.
func TestFlips_believed(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 400})
	w.set(1, 400, onWeb)
	e := w.engine(w.suspectSpec(openIMApp))
	app := e.app(openIMApp)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	none(w)
	ios := imsim.Device{Platform: imsim.IOS, Mode: imsim.Online}
	for i, tc := range []struct {
		device imsim.Device
		want   string
	}{{ios, `online {"ios": "online"}`}, {onWeb, webOnline}} {
		w.set(1, 400, tc.device)
		w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
		if diff := cmp.Diff(all(tc.want, 1, 400), w.snapshot(presenceTables, app.ID)); diff != "" {
			t.Errorf("snapshots after change %d (-want +got):\n%.2000s", i, diff)
		}
	}
	// Pages that are asked about at once do not know of one another.
	if n := w.opinions(); n == 0 || n > 4 {
		t.Errorf("the server was asked %d times, want no more than once for each page of one run", n)
	}
	if n := len(w.log.lines("the server offers no second opinion")); n != 1 {
		t.Errorf("the log says %d times that there is no second opinion", n)
	}
}

// TestFlips_refused: a second opinion that is refused, for something that somebody
// has to mend, costs no run: platforms are believed as they come, the log says so
// once, and it is asked for again.
func TestFlips_refused(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]imsim.Fault{
		"no admin there":       {Kind: imsim.FaultNotAdmin},
		"forbidden on the way": {Kind: imsim.FaultStatus, Status: 403},
		"moved":                {Kind: imsim.FaultRedirect},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 400})
			w.set(1, 400, onWeb)
			e := w.engine(w.suspectSpec(openIMApp))
			app := e.app(openIMApp)
			w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
			withFault(f)(w)
			w.set(1, 400, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
			w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
			if diff := cmp.Diff(all(`online {"ios": "online"}`, 1, 400), w.snapshot(presenceTables, app.ID)); diff != "" {
				t.Errorf("snapshots (-want +got):\n%.2000s", diff)
			}
			if n := w.opinions(); n != 4 {
				t.Errorf("the server was asked %d times, want once for each page", n)
			}
			if lines := w.log.lines("the second opinion is refused"); len(lines) != 1 || !strings.Contains(lines[0], `"app":"`+app.Name) {
				t.Errorf("the log says that it is refused in %q", lines)
			}
			// It is asked for again, and settles what alternates.
			w.sim.ClearFaults()
			w.set(1, 400, onWeb, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
			w.fault(imsim.Fault{Kind: imsim.FaultFlip})
			w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
			if n := w.opinions(); n == 4 {
				t.Error("the server was not asked again")
			}
		})
	}
}

// TestOpinion_cost: when 5 % of the users change their platforms, and 5 % go
// offline, pages of the default size take one call more than the ten that they
// take anyway.
func TestOpinion_cost(t *testing.T) {
	t.Parallel()
	const users, page = 20_000, 5000
	w := setup(t, worldOptions{users: users})
	w.set(1, users, onWeb)
	s := w.suspectSpec(openIMApp)
	s.Range, s.Page = users, page
	e := w.engine(s)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	for n := 1; n <= users; n += 20 {
		w.set(n, n, onWeb, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
		w.set(n+1, n+1)
	}
	run := w.backfill(e, openIMApp, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	got := fmt.Sprintf("%d changed, %d calls, %d of them second opinions", run.Changed, run.Calls, w.opinions())
	if want := "2000 changed, 44 calls, 4 of them second opinions"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// contradictedUsers are the users who fail as contradicted, and since when.
func (w *world) contradictedUsers() map[string]time.Time {
	w.t.Helper()
	type row struct {
		UserID  string
		FirstAt time.Time
	}
	since := make(map[string]time.Time)
	for _, r := range query(w, pgx.RowToStructByPos[row], `SELECT user_id, first_at FROM syncer.user_failure WHERE code = 'contradicted'`) {
		since[r.UserID] = r.FirstAt
	}
	return since
}

// TestContradicted: users of a page are offline in one answer, and not in the
// second opinion. However many they are, they keep their values and are listed,
// since when, until both agree; all others are written; and the bracket of what
// was true in the end reaches back to when they were last known.
func TestContradicted(t *testing.T) {
	t.Parallel()
	const users = 900
	w := setup(t, worldOptions{users: users})
	w.set(1, users, onWeb)
	s := w.suspectSpec(openIMApp)
	s.Batch, s.Page, s.Range = 100, users, users
	e := w.engine(s)
	app, ids := e.app(openIMApp), userIDs(users)
	// sweep wants so many users to be contradicted and the others to be as they are.
	sweep := func(what string, changed int64, contradicted []string) repo.Run {
		t.Helper()
		run := w.backfill(e, openIMApp, imclient.KindPresence)
		status := repo.RunSucceeded
		if len(contradicted) > 0 {
			status = repo.RunPartial
		}
		w.ended(run, status)
		if run.Users != users || run.Changed != changed || run.Failed != int64(len(contradicted)) || run.Error != "" {
			t.Errorf("%s: run %+v, want %d changed and %d failed", what, run, changed, len(contradicted))
		}
		if diff := cmp.Diff(contradicted, slices.Sorted(maps.Keys(w.contradictedUsers())), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: contradicted users (-want +got):\n%.2000s", what, diff)
		}
		// A run that contradicts itself about some has looked at all all the same.
		counted := w.count(`SELECT sum(users)::bigint FROM syncer.presence_count WHERE run_id = $1 AND platform = 'all'`, run.ID)
		if complete := w.count(`SELECT count(*) FROM syncer.sync_run WHERE run_id = $1 AND complete`, run.ID); complete != 1 || counted != users {
			t.Errorf("%s: complete %d, %d users counted", what, complete, counted)
		}
		return run
	}
	sweep("at first", users, nil)

	// A gateway with a third of the users is lost; ten others leave.
	lost := w.fault(imsim.Fault{Kind: imsim.FaultGatewayLost, IDs: ids[:300]})
	w.set(301, 310)
	before := w.opinions()
	sweep("a gateway is lost", 10, ids[:300])
	if n := w.opinions() - before; n != 4 {
		t.Errorf("%d second opinions about 310 users, in batches of 100", n)
	}
	first := w.contradictedUsers()
	sweep("a gateway is still lost", 0, ids[:300])
	if diff := cmp.Diff(first, w.contradictedUsers()); diff != "" {
		t.Errorf("since when they are contradicted (-before +after):\n%.2000s", diff)
	}
	w.sim.ClearFault(lost)
	last := sweep("it is back", 0, nil)

	// A gateway with 346 users stops, and Redis keeps them; five others leave.
	w.fault(imsim.Fault{Kind: imsim.FaultGatewayStopped, IDs: ids[400:746], For: time.Hour})
	w.set(311, 315)
	sweep("a gateway has stopped", 5, ids[400:746])
	sweep("Redis still has its users", 0, ids[400:746])
	w.sim.ClearFaults()
	w.set(401, 746)
	sweep("they have expired", 346, nil)
	for id, rows := range w.history(presenceTables, app.ID) {
		row := rows[len(rows)-1]
		switch {
		case id <= ids[399] || id > ids[745]:
		case len(rows) != 2 || row.Value != nowhere || !row.NotBefore.Equal(last.StartedAt):
			t.Fatalf("%s has %d rows, the last one %+v; want offline after %s", id, len(rows), row, last.StartedAt)
		}
	}

	// So few are contradicted that no page would be suspect for them.
	w.fault(imsim.Fault{Kind: imsim.FaultGatewayLost, IDs: ids[800:821]})
	for range 3 {
		sweep("a small gateway is lost", 0, ids[800:821])
	}
	if lines := w.log.lines("users are offline in one answer and not in the second opinion"); len(lines) != 1 || !strings.Contains(lines[0], `"contradicted":300`) {
		t.Errorf("the log says of contradicted users: %q", lines)
	}
}

// TestSettle: what two opinions come to, the modes of a user's platforms, and the
// time of an answer that took two questions.
func TestSettle(t *testing.T) {
	t.Parallel()
	parse := func(stored string) imclient.Platforms {
		p, err := imclient.ParsePlatforms([]byte(stored))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	on := func(stored string) imclient.Presence {
		return imclient.Presence{State: imclient.StateOnline, Platforms: parse(stored)}
	}
	off := imclient.Presence{State: imclient.StateOffline}
	type observed = imclient.Observed[imclient.Presence]
	at := func(second int) time.Time { return time.Date(2026, 11, 22, 12, 0, second, 0, time.UTC) }
	type answer = imclient.Answer[imclient.Presence]
	silent := imclient.UserError{UserID: "g", Code: imclient.CodeMissing}
	opinions := map[string]opinion{
		"a": {value: on(`{"ios":"online","web":"online","linux":"online"}`), answeredAt: at(9)},
		"d": {value: off, answeredAt: at(8)},
		"e": {value: off, answeredAt: at(7)},
		"f": {value: on(`{"ios":"online"}`), answeredAt: at(7)},
		"g": {rejected: &silent},
		"h": {rejected: &imclient.UserError{UserID: "h", Code: imclient.CodeMissing}},
	}
	known := map[string]imclient.Platforms{"a": parse(`{"web":"background","ipad":"online"}`), "d": parse(`{"web":"online"}`)}
	got, contradicted := settle([]answer{
		{AskedAt: at(1), AnsweredAt: at(2), Observed: []observed{{UserID: "a", Value: on(`{"ios":"background"}`)}, {UserID: "b", Value: on(`{"ios":"online"}`)}}, Calls: 1},
		{AskedAt: at(3), AnsweredAt: at(4), Observed: []observed{{UserID: "c", Value: off}}, Rejected: []imclient.UserError{{UserID: "x"}}},
		{AskedAt: at(5), AnsweredAt: at(6), Observed: []observed{
			{UserID: "d", Value: on(`{"ios":"online"}`)}, {UserID: "e", Value: off}, {UserID: "f", Value: off}, {UserID: "g", Value: off}, {UserID: "h", Value: on(`{"web":"online"}`)}}},
	}, opinions, func(id string) imclient.Platforms { return known[id] })
	want := []answer{
		{AskedAt: at(1), AnsweredAt: at(2), Observed: []observed{{UserID: "b", Value: on(`{"ios":"online"}`)}}, Calls: 1},
		{AskedAt: at(3), AnsweredAt: at(4), Observed: []observed{{UserID: "c", Value: off}}, Rejected: []imclient.UserError{{UserID: "x"}}},
		{AskedAt: at(5), AnsweredAt: at(6), Observed: []observed{{UserID: "h", Value: on(`{"web":"online"}`)}}, Rejected: []imclient.UserError{silent}},
		{AskedAt: at(1), AnsweredAt: at(9), Observed: []observed{{UserID: "a", Value: on(`{"ios":"background","web":"background","linux":"online"}`)}}},
		// The second opinion takes nothing away, and turns no user offline.
		{AskedAt: at(5), AnsweredAt: at(8), Observed: []observed{{UserID: "d", Value: on(`{"ios":"online"}`)}, {UserID: "e", Value: off}}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"f"}, contradicted); diff != "" {
		t.Errorf("contradicted users (-want +got):\n%s", diff)
	}
}
