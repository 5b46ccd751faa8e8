package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
	"syncer/repo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// stay is a time online: from start until before end.
type stay struct{ start, end time.Time }

// people are users whose stays are known to the second.
type people map[string][]stay

func (p people) Imported(string, time.Time) bool { return true }

func (p people) AppendDevices(devices []imsim.Device, userID string, at time.Time) []imsim.Device {
	for _, s := range p[userID] {
		if !at.Before(s.start) && at.Before(s.end) {
			return append(devices, imsim.Device{Platform: imsim.IOS, Mode: imsim.Online})
		}
	}
	return devices
}

const week = 7 * 24 * time.Hour

// newPeople draws stays of three minutes to ten hours, and times between them.
func newPeople(n int, start time.Time) people {
	random := rand.New(rand.NewPCG(3, 7))
	between := func(low, high time.Duration) time.Duration {
		return low + time.Duration(random.Int64N(int64(high-low))).Truncate(time.Second)
	}
	p := make(people, n)
	for i := range n {
		id := userID(i + 1)
		for at := start.Add(-between(0, 12*time.Hour)); at.Before(start.Add(week)); {
			length := between(3*time.Minute, time.Hour)
			if random.IntN(3) == 0 {
				length = between(time.Hour, 10*time.Hour)
			}
			p[id] = append(p[id], stay{at, at.Add(length)})
			at = at.Add(length + between(time.Minute, 10*time.Hour))
		}
	}
	return p
}

func userID(i int) string { return fmt.Sprintf("user-%07d", i) }

// look is the time that a complete run took: every user was seen once in it.
type look struct{ from, until time.Time }

// overlap is how long a stay and a time have in common.
func (s stay) overlap(from, until time.Time) time.Duration {
	if s.start.After(from) {
		from = s.start
	}
	if s.end.Before(until) {
		until = s.end
	}
	return max(0, until.Sub(from))
}

// truth returns how long a user was online in observed time, and how much of
// that the brackets leave open: of each time between two looks in which the
// user came or went, nothing is known.
func (p people) truth(id string, looks []look, maxGap time.Duration) (online, open time.Duration) {
	for i := 1; i < len(looks); i++ {
		last, next := looks[i-1], looks[i]
		gap := next.from.Sub(last.until) > maxGap
		moved := false
		for _, s := range p[id] {
			if !gap {
				online += s.overlap(last.until, next.until)
			} else {
				online += s.overlap(next.from, next.until)
			}
			for _, at := range []time.Time{s.start, s.end} {
				moved = moved || at.After(last.from) && !at.After(next.until)
			}
		}
		switch {
		case gap:
			open += last.until.Sub(last.from) + next.until.Sub(next.from)
		case moved:
			open += next.until.Sub(last.from)
		}
	}
	return online, open
}

const (
	gapsSQL = `
SELECT app || ' ' || to_char(started_at AT TIME ZONE 'UTC', 'Dy HH24:MI') || ' to ' || to_char(ended_at AT TIME ZONE 'UTC', 'Dy HH24:MI')
FROM syncer.sync_gap
WHERE kind = 'presence'
ORDER BY app, started_at`

	looksSQL = `
SELECT observed_from, observed_until
FROM syncer.sync_run
JOIN syncer.app USING (app_id)
WHERE app.name = $1 AND kind = 'presence' AND complete
ORDER BY observed_from`

	dailySQL = `
SELECT user_id, sum(online_seconds)
FROM syncer.presence_daily($2, $3, 'UTC')
WHERE app = $1
GROUP BY user_id`

	countedInGapsSQL = `
SELECT count(*)
FROM syncer.presence_session AS s
JOIN syncer.sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence'
WHERE s.started_at < g.ended_at AND s.ended_after > g.started_at`
)

// TestWeek lets a week pass, with an outage of five hours, in which both APIs
// refuse everybody, and a gateway that is lost for two hours, of whose users
// OpenIM says with success that they are offline. They are contradicted, which is
// no gap. What the views then say of how
// long each user was online differs from the truth by no more than what came and
// went between two looks.
func TestWeek(t *testing.T) {
	const (
		users = 300
		every = 30 * time.Minute
	)
	ctx := t.Context()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) // a Monday
	all := newPeople(users, start)
	s, err := Open(ctx, Config{
		URL: url, Users: users, Start: start.Add(-time.Minute), Every: every, People: all, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()

	at := func(day, hour int) time.Time { return start.Add(time.Duration(24*day+hour) * time.Hour) }
	outage, lost := look{at(2, 10), at(2, 15)}, look{at(4, 18), at(4, 20)}
	for tick := start; tick.Before(start.Add(week)); tick = tick.Add(every) {
		want := []repo.RunStatus{repo.RunSucceeded, repo.RunSucceeded}
		s.Recover()
		switch {
		case !tick.Before(outage.from) && tick.Before(outage.until):
			must(t, s.Refuse())
			want = []repo.RunStatus{repo.RunFailed, repo.RunFailed}
		case !tick.Before(lost.from) && tick.Before(lost.until):
			must(t, s.LoseGateway())
			want[1] = repo.RunPartial
		}
		runs, err := s.Presence(ctx, tick)
		if err != nil {
			t.Fatal(err)
		}
		for i, run := range runs {
			if run.Status != want[i] {
				t.Fatalf("%s, %s: the run ended as %s (%s), want %s", tick.Format(time.DateTime), s.Apps[i].Name, run.Status, run.Error, want[i])
			}
		}
	}

	if _, err := conn.Exec(ctx, fmt.Sprintf(`SET syncer.as_of = '%s'`, start.Add(week).Format(time.RFC3339))); err != nil {
		t.Fatal(err)
	}
	gaps := rows(t, conn, pgx.RowTo[string], gapsSQL)
	want := []string{
		"openim Wed 09:30 to Wed 15:00", "tencent Wed 09:30 to Wed 15:00",
	}
	if diff := cmp.Diff(want, gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	if n := rows(t, conn, pgx.RowTo[int64], countedInGapsSQL)[0]; n != 0 {
		t.Errorf("%d sessions reach into a gap", n)
	}
	for _, app := range s.Apps {
		looks := rows(t, conn, func(row pgx.CollectableRow) (l look, err error) { return l, row.Scan(&l.from, &l.until) }, looksSQL, app.Name)
		got := make(map[string]time.Duration, users)
		for _, r := range rows(t, conn, pgx.RowToStructByPos[struct {
			UserID  string
			Seconds float64
		}], dailySQL, app.Name, start, start.Add(week)) {
			got[r.UserID] = time.Duration(r.Seconds * float64(time.Second))
		}
		var total, missed, allowed time.Duration
		for id := range all {
			online, open := all.truth(id, looks, 3*every)
			off := (got[id] - online).Abs()
			if off > open {
				t.Errorf("%s, %s: online for %s by presence_daily, in truth %s; the brackets allow %s", app.Name, id, got[id], online, open)
			}
			total, missed, allowed = total+online, missed+off, allowed+open
		}
		t.Logf("%s: %d users online for %.0f h in truth; the views are off by %.1f h in sum, and the brackets would allow %.0f h",
			app.Name, users, total.Hours(), missed.Hours(), allowed.Hours())
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func rows[T any](t testing.TB, conn *pgx.Conn, scan pgx.RowToFunc[T], statement string, args ...any) []T {
	t.Helper()
	found, err := conn.Query(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	all, err := pgx.CollectRows(found, scan)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return all
}
