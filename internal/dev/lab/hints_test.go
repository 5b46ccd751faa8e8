package lab

import (
	"context"
	"flag"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
)

var wholeDay = flag.Bool("day", false, "let TestHints simulate a whole day, which takes minutes")

// newVisitors draws users with sessions of six minutes in the median and twenty on average,
// 5.6 a day; after 40 % of them the user is back within minutes.
func newVisitors(n int, from, until time.Time) people {
	random := rand.New(rand.NewPCG(5, 11))
	after := func(mean time.Duration) time.Duration { return time.Duration(random.ExpFloat64() * float64(mean)) }
	length := func() time.Duration {
		return time.Duration(math.Exp(1.55*random.NormFloat64()) * float64(6*time.Minute))
	}
	p := make(people, n)
	for i := range n {
		id := userID(i + 1)
		for at := from.Add(-24 * time.Hour).Add(after(4 * time.Hour)); at.Before(until); {
			s := stay{at.Truncate(time.Millisecond), at.Add(length()).Truncate(time.Millisecond)}
			p[id] = append(p[id], s)
			if random.IntN(5) < 2 {
				at = s.end.Add(time.Second + after(3*time.Minute))
			} else {
				at = s.end.Add(time.Second + after(390*time.Minute))
			}
		}
	}
	return p
}

// heard is a hook and when it arrives.
type heard struct {
	at   time.Time
	hook imclient.Hook
}

// hooksOf are the hooks about users' sessions within a time, of which a share is lost and a
// few are late or doubled, in the order of their arrival.
func hooksOf(p people, from, until time.Time, lost float64) (all []heard) {
	random := rand.New(rand.NewPCG(13, 17))
	for i := range len(p) {
		id := userID(i + 1)
		for _, s := range p[id] {
			for _, hook := range []imclient.Hook{
				{UserID: id, State: imclient.StateOnline, Platform: imclient.PlatformIOS, ToldAt: s.start},
				{UserID: id, State: imclient.StateOffline, Platform: imclient.PlatformIOS, Logout: true, ToldAt: s.end},
			} {
				delay := 200*time.Millisecond + time.Duration(random.ExpFloat64()*float64(100*time.Millisecond))
				copies := 1
				switch draw := random.Float64(); {
				case draw < lost:
					continue
				case draw < lost+0.01:
					delay += 5 * time.Second
				case draw < lost+0.02:
					copies = 2
				}
				for at := hook.ToldAt.Add(delay); copies > 0; copies, at = copies-1, at.Add(time.Second) {
					if at.After(from) && at.Before(until) {
						all = append(all, heard{at, hook})
					}
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b heard) int { return a.at.Compare(b.at) })
	return all
}

// sights is how well sessions were seen.
type sights struct {
	Sessions, Missed int
	Bracket, Error   float64 // seconds on average, of the beginnings that were seen
}

const seenSQL = `
SELECT user_id, started_after, started_at, ended_at, estimated_start
FROM syncer.presence_session
WHERE app_id = $1 AND started_after IS NOT NULL
ORDER BY user_id, started_at`

// seen compares the sessions that began within a time with those on record.
func seen(t *testing.T, db *pgx.Conn, app int16, p people, from, until time.Time) (s sights) {
	t.Helper()
	type session struct {
		UserID              string
		StartedAfter, Start time.Time
		EndedAt             *time.Time
		Estimate            time.Time
	}
	rows, err := db.Query(t.Context(), seenSQL, app)
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := pgx.CollectRows(rows, pgx.RowToStructByPos[session])
	if err != nil {
		t.Fatal(err)
	}
	byUser := make(map[string][]session)
	for _, r := range recorded {
		byUser[r.UserID] = append(byUser[r.UserID], r)
	}
	n := 0
	for id, stays := range p {
		for _, stay := range stays {
			if stay.start.Before(from) || !stay.start.Before(until) {
				continue
			}
			s.Sessions++
			at := slices.IndexFunc(byUser[id], func(r session) bool {
				return !r.Start.Before(stay.start) && r.Start.Before(stay.end.Add(time.Second)) ||
					r.Start.Before(stay.start) && (r.EndedAt == nil || r.EndedAt.After(stay.start))
			})
			if at < 0 {
				s.Missed++
				continue
			}
			r := byUser[id][at]
			if r.StartedAfter.Before(stay.start) && !r.Start.Before(stay.start) {
				n++
				s.Bracket += r.Start.Sub(r.StartedAfter).Seconds()
				s.Error += r.Estimate.Sub(stay.start).Abs().Seconds()
			}
		}
	}
	s.Bracket /= float64(n)
	s.Error /= float64(n)
	return s
}

// TestHints: the same users in two apps, swept once a minute. Of one app 95 % of the hooks
// arrive, of the other none.
func TestHints(t *testing.T) {
	t.Parallel()
	users, length := 5000, 20*time.Minute
	if *wholeDay {
		users, length = 2000, 24*time.Hour
	}
	start := time.Date(2026, 3, 2, 18, 0, 0, 0, time.UTC)
	end := start.Add(length)
	p := newVisitors(users, start, end)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	url := pgtest.Database(t)
	s, err := Open(ctx, Config{URL: url, Users: users, Start: start.Add(-time.Second), Every: time.Minute, People: p, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	hooks := hooksOf(p, start.Add(time.Second), end, 0.05)
	for at := start; !at.After(end); at = at.Add(time.Minute) {
		tick := at
		if now := s.Clock.Now(); !now.Before(at) {
			tick = now.Add(10 * time.Second) // the machine is slower than what it simulates
		}
		if _, err := s.Presence(ctx, tick); err != nil {
			t.Fatal(err)
		}
		for len(hooks) > 0 && hooks[0].at.Before(at.Add(59*time.Second)) {
			// Those of one collection share a look.
			first, n := hooks[0].at, 0
			var batch []imclient.Hook
			for n < len(hooks) && hooks[n].at.Sub(first) < 200*time.Millisecond {
				batch = append(batch, hooks[n].hook)
				n++
			}
			hooks = hooks[n:]
			if err := s.Hear(ctx, s.Apps[0], first.Add(200*time.Millisecond), batch); err != nil {
				t.Fatal(err)
			}
		}
		for len(hooks) > 0 && hooks[0].at.Before(at.Add(time.Minute)) {
			hooks = hooks[1:] // they would be overtaken by the next sweep
		}
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	with, without := seen(t, conn, s.Apps[0].ID, p, start, end.Add(-time.Minute)), seen(t, conn, s.Apps[1].ID, p, start, end.Add(-time.Minute))
	var extra float64
	if err := conn.QueryRow(ctx, `SELECT sum(users) FILTER (WHERE trigger = 'hint') / sum(users) FILTER (WHERE trigger <> 'hint') FROM syncer.sync_run WHERE app_id = $1`,
		s.Apps[0].ID).Scan(&extra); err != nil {
		t.Fatal(err)
	}
	share := func(s sights) float64 { return 100 * float64(s.Missed) / float64(s.Sessions) }
	t.Logf("with hints: %d sessions, %.2f %% missed, bracket %.1f s, error %.1f s, %.2f %% more questions", with.Sessions, share(with), with.Bracket, with.Error, 100*extra)
	t.Logf("without:    %d sessions, %.2f %% missed, bracket %.1f s, error %.1f s", without.Sessions, share(without), without.Bracket, without.Error)
	// A machine that is slower than the simulated time sweeps late and hears late, so only
	// the whole day, which is run by hand, is held to figures.
	if with.Sessions < 200 || share(with) > share(without)/3 || with.Error > without.Error/3 || with.Bracket > 0.75*without.Bracket {
		t.Error("hints do not do what they are for")
	}
	if *wholeDay && (share(with) > 0.3 || with.Error > 2 || extra > 0.02) {
		t.Error("the figures of docs/hooks.md are missed")
	}
}
