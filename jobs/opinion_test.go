package jobs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"syncer/imclient"
	"syncer/imclient/imsim"
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
	s := w.doubtSpec(openIMApp)
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
	e := w.engine(w.doubtSpec(openIMApp))
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
			e := w.engine(w.doubtSpec(openIMApp))
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

// TestFlips_cost: when 5 % of the users change their platforms, pages of the
// default size take one call more than the ten that they take anyway.
func TestFlips_cost(t *testing.T) {
	t.Parallel()
	const users, page = 20_000, 5000
	w := setup(t, worldOptions{users: users})
	w.set(1, users, onWeb)
	s := w.doubtSpec(openIMApp)
	s.Range, s.Page = users, page
	e := w.engine(s)
	w.ended(w.backfill(e, openIMApp, imclient.KindPresence), repo.RunSucceeded)
	for n := 1; n <= users; n += 20 {
		w.set(n, n, onWeb, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
	}
	run := w.backfill(e, openIMApp, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	got := fmt.Sprintf("%d changed, %d calls, %d of them second opinions", run.Changed, run.Calls, w.opinions())
	if want := "1000 changed, 44 calls, 4 of them second opinions"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestMerge: the modes of a user's platforms, and the time of an answer that
// took two questions.
func TestMerge(t *testing.T) {
	t.Parallel()
	parse := func(stored string) imclient.Platforms {
		p, err := imclient.ParsePlatforms([]byte(stored))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	seen := func(id, stored string) imclient.Observed[imclient.Presence] {
		return imclient.Observed[imclient.Presence]{UserID: id, Value: imclient.Presence{State: imclient.StateOnline, Platforms: parse(stored)}}
	}
	at := func(second int) time.Time { return time.Date(2026, 11, 22, 12, 0, second, 0, time.UTC) }
	type answer = imclient.Answer[imclient.Presence]
	opinions := map[string]opinion{
		"a": {imclient.Presence{State: imclient.StateOnline, Platforms: parse(`{"ios":"online","web":"online","linux":"online"}`)}, at(9)},
		"d": {imclient.Presence{State: imclient.StateOffline}, at(8)},
	}
	known := map[string]imclient.Platforms{"a": parse(`{"web":"background","ipad":"online"}`), "d": parse(`{"web":"online"}`)}
	got := merge([]answer{
		{AskedAt: at(1), AnsweredAt: at(2), Observed: []imclient.Observed[imclient.Presence]{seen("a", `{"ios":"background"}`), seen("b", `{"ios":"online"}`)}, Calls: 1},
		{AskedAt: at(3), AnsweredAt: at(4), Observed: []imclient.Observed[imclient.Presence]{seen("c", `{}`)}, Rejected: []imclient.UserError{{UserID: "x"}}},
		{AskedAt: at(5), AnsweredAt: at(6), Observed: []imclient.Observed[imclient.Presence]{seen("d", `{"ios":"online"}`)}},
	}, opinions, func(id string) imclient.Platforms { return known[id] })
	want := []answer{
		{AskedAt: at(1), AnsweredAt: at(2), Observed: []imclient.Observed[imclient.Presence]{seen("b", `{"ios":"online"}`)}, Calls: 1},
		{AskedAt: at(3), AnsweredAt: at(4), Observed: []imclient.Observed[imclient.Presence]{seen("c", `{}`)}, Rejected: []imclient.UserError{{UserID: "x"}}},
		{AskedAt: at(5), AnsweredAt: at(6)},
		{AskedAt: at(1), AnsweredAt: at(9), Observed: []imclient.Observed[imclient.Presence]{seen("a", `{"ios":"background","web":"background","linux":"online"}`)}},
		// The second opinion takes nothing away.
		{AskedAt: at(5), AnsweredAt: at(8), Observed: []imclient.Observed[imclient.Presence]{seen("d", `{"ios":"online"}`)}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}
