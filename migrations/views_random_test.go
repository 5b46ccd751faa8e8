package migrations_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// world makes a history as sweeps make it: some fail, some are resumed later,
// some never come, users fail for a while or leave.
type world struct {
	t     testing.TB
	conn  *pgx.Conn
	rand  *rand.Rand
	app   int
	now   time.Time
	users []worldUser

	prevFrom, prevUntil time.Time // of the last complete run
}

type worldUser struct {
	id           string
	state        string // "": not seen yet
	since, asked time.Time
	sinceAfter   *time.Time
	known        *time.Time // last known before the user failed
}

// worldSchedule is how far runs are apart; a gap is more than two missed.
const (
	worldSchedule = 2 * time.Hour
	worldMaxGap   = 5 * time.Hour
)

func newWorld(t testing.TB, conn *pgx.Conn, seed uint64, name string) *world {
	t.Helper()
	w := &world{t: t, conn: conn, rand: rand.New(rand.NewPCG(seed, 7)), now: time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC)}
	w.app = column[int](t, conn, `INSERT INTO app (name, provider, created_at) VALUES ($1, 'tencent', $2) RETURNING app_id::int`, name, w.now)[0]
	for i := range 8 {
		w.users = append(w.users, worldUser{id: fmt.Sprintf("user%d", i)})
	}
	return w
}

func (w *world) chance(p float64) bool { return w.rand.Float64() < p }

// later is a time within a minute.
func (w *world) later(at time.Time) time.Time {
	return at.Add(time.Duration(w.rand.IntN(60_000_000)) * time.Microsecond)
}

const startRunSQL = `
INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, observed_from, max_gap)
VALUES ($1, 'presence', 'presence', 'cron', 'running', $2, $2, '5 hours')
RETURNING run_id`

// sweep is a run whose second half comes after what happens between the two.
func (w *world) sweep(between func()) {
	w.t.Helper()
	started := w.now
	runID := column[int64](w.t, w.conn, startRunSQL, w.app, started)[0]
	prevFrom := w.prevFrom
	half := len(w.users) / 2
	for i := range w.users[:half] {
		w.look(&w.users[i], w.later(started), prevFrom)
	}
	switch {
	case w.chance(0.1): // it fails half way
		w.close(runID, "failed", false, started)
		return
	case w.chance(0.05): // and this one is resumed much later, after others
		w.close(runID, "failed", false, started)
		for range 1 + w.rand.IntN(20) {
			w.pause()
			w.sweep(func() {})
		}
		run(w.t, w.conn, `UPDATE sync_run SET status = 'running', finished_at = NULL WHERE run_id = $1`, runID)
		w.pause()
	}
	between()
	resumed := w.now
	for i := range w.users[half:] {
		w.look(&w.users[half+i], w.later(resumed.Add(time.Minute)), prevFrom)
	}
	w.now = resumed.Add(3 * time.Minute)
	w.close(runID, "succeeded", true, resumed)
}

func (w *world) pause() {
	skipped := 0
	if w.chance(0.1) {
		skipped = w.rand.IntN(8)
	}
	w.now = w.now.Truncate(worldSchedule).Add(time.Duration(1+skipped) * worldSchedule)
}

func (w *world) close(runID int64, status string, complete bool, from time.Time) {
	w.t.Helper()
	until := w.now
	if complete {
		if !w.prevUntil.IsZero() && from.Sub(w.prevUntil) > worldMaxGap {
			run(w.t, w.conn, `INSERT INTO observation_gap VALUES ($1, 'presence', $2, $3, $4, $5, $6)`, w.app, w.prevUntil, from, w.prevFrom, until, runID)
		}
		w.prevFrom, w.prevUntil = from, until
	}
	run(w.t, w.conn, `UPDATE sync_run SET status = $2, complete = $3, observed_from = $4, observed_until = $5, finished_at = $5 WHERE run_id = $1`, runID, status, complete, from, until)
}

// look is one answer about a user: also none, or that it has left.
func (w *world) look(u *worldUser, at, prevFrom time.Time) {
	w.t.Helper()
	asked := at.Add(-100 * time.Millisecond)
	if w.chance(0.05) && u.known == nil || u.known != nil && w.chance(0.8) {
		if u.known == nil && u.state != "" {
			known := u.asked
			if prevFrom.After(known) {
				known = prevFrom
			}
			u.known = &known
			run(w.t, w.conn, `INSERT INTO user_failure VALUES ($1, 'presence', $2, 'x', 'x', $3, $3, 1, $4)`, w.app, u.id, at, known)
		}
		return
	}
	notBefore := u.asked
	if prevFrom.After(notBefore) {
		notBefore = prevFrom
	}
	if u.known != nil {
		notBefore = *u.known
		u.known = nil
		run(w.t, w.conn, `DELETE FROM user_failure WHERE app_id = $1 AND user_id = $2`, w.app, u.id)
	}
	state := []string{"online", "online", "push_online", "offline", u.state}[w.rand.IntN(5)]
	if u.state != "" && w.chance(0.02) {
		state = []string{"removed", "rejected"}[w.rand.IntN(2)]
	}
	if state == "" || state == u.state && w.chance(0.7) {
		return // nothing changed
	}
	platforms := map[string]string{"online": `{"ios": "online", "web": "push_online"}`}[state]
	if platforms == "" {
		platforms = "{}"
	}
	if u.state == "" {
		run(w.t, w.conn, `INSERT INTO presence_history (app_id, user_id, state, platforms, observed_at, run_id) VALUES ($1, $2, $3, $4, $5, 1)`, w.app, u.id, state, platforms, at)
		u.since, u.sinceAfter = at, nil
	} else {
		run(w.t, w.conn, `INSERT INTO presence_history (app_id, user_id, prev_state, prev_since, prev_since_after, state, platforms, not_before, observed_at, run_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1)`, w.app, u.id, u.state, u.since, u.sinceAfter, state, platforms, notBefore, at)
		if state != u.state {
			u.since, u.sinceAfter = at, &notBefore
		}
	}
	u.state, u.asked = state, asked
	run(w.t, w.conn, `DELETE FROM presence_snapshot WHERE app_id = $1 AND user_id = $2`, w.app, u.id)
	if state == "removed" || state == "rejected" {
		u.state = ""
		return
	}
	run(w.t, w.conn, `INSERT INTO presence_snapshot VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8)`, w.app, u.id, state, platforms, at, asked, u.since, u.sinceAfter)
}

// Whatever the history, days add up to sessions, no session is known to last
// longer than estimated, and no second of a gap is in any of them.
func TestReportsAgreeOnRandomHistories(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	for seed := range uint64(4) {
		w := newWorld(t, conn, seed, fmt.Sprintf("app%d", seed))
		for range 150 {
			w.sweep(func() {})
			w.pause()
		}
	}
	asOf(t, conn, "2026-12-31 00:00+00")
	if n := column[int](t, conn, `SELECT count(*)::int FROM presence_session WHERE ended_by = 'gap'`)[0]; n < 100 {
		t.Errorf("only %d sessions are cut: the histories are too tame", n)
	}
	for _, zone := range []string{"UTC", "America/New_York", "Asia/Kolkata"} {
		// Microseconds: sums of seconds are not exact.
		got := reported(t, conn, `
SELECT s.app, s.user_id, s.seconds, d.seconds FROM
    (SELECT app, user_id, round(sum(estimated_seconds)::numeric, 5) AS seconds FROM presence_session GROUP BY 1, 2) AS s
    FULL JOIN (SELECT app, user_id, round(sum(online_seconds)::numeric, 5) AS seconds FROM presence_daily('2026-10-01', '2027-01-01', $1) GROUP BY 1, 2) AS d USING (app, user_id)
WHERE s.seconds IS DISTINCT FROM d.seconds`, zone)
		if len(got) > 0 {
			t.Errorf("%s: sessions and days differ: %s", zone, got)
		}
	}
	if got := reported(t, conn, `SELECT * FROM presence_session WHERE known_seconds > estimated_seconds + 1e-6 OR known_seconds < 0`); len(got) > 0 {
		t.Errorf("known for longer than estimated: %s", got)
	}
	if got := reported(t, conn, `SELECT * FROM presence_session WHERE ended_at < started_at OR started_after > started_at`); len(got) > 0 {
		t.Errorf("brackets the wrong way round: %s", got)
	}
	// All of them are online on the same platform.
	if got := reported(t, conn, differentSQL); len(got) > 0 {
		t.Errorf("sessions on the platform differ: %s", got)
	}
	if got := reported(t, conn, differentDaysSQL); len(got) > 0 {
		t.Errorf("days on the platform differ: %s", got)
	}
	agree(t, conn, "estimated_seconds", referenceSQL, `SELECT app_id::int AS app_id, user_id, sum(estimated_seconds) AS seconds FROM presence_session GROUP BY 1, 2`)
}

const sameColumns = `app, user_id, started_after, started_at, ended_after, ended_at, known_seconds, estimated_seconds, ended_by`

const differentSQL = `
(SELECT 'platform', ` + sameColumns + ` FROM presence_platform_session WHERE platform = 'ios' EXCEPT ALL SELECT 'platform', ` + sameColumns + ` FROM presence_session)
UNION ALL
(SELECT 'session', ` + sameColumns + ` FROM presence_session EXCEPT ALL SELECT 'session', ` + sameColumns + ` FROM presence_platform_session)`

const differentDaysSQL = `
SELECT * FROM presence_platform_daily('2026-10-01', '2027-01-01', 'Asia/Kolkata') AS p
FULL JOIN presence_daily('2026-10-01', '2027-01-01', 'Asia/Kolkata') AS d USING (app, user_id, day)
WHERE (p.online_seconds, p.sessions) IS DISTINCT FROM (d.online_seconds, d.sessions)`

// referenceSQL is the estimate another way: with ranges, from the tables alone.
const referenceSQL = `
WITH gap AS (
    SELECT app_id, range_agg(tstzrange(started_at, ended_at)) AS gaps FROM sync_gap WHERE kind = 'presence' GROUP BY app_id
), middle AS (
    SELECT app_id, user_id, coalesce(to_timestamp((extract(epoch FROM prev_since_after) + extract(epoch FROM prev_since)) / 2), prev_since) AS begun,
           CASE WHEN state = 'rejected' THEN not_before
                ELSE to_timestamp((extract(epoch FROM not_before) + extract(epoch FROM observed_at)) / 2) END AS ended
    FROM presence_history WHERE prev_state = 'online' AND state <> 'online'
    UNION ALL
    SELECT app_id, user_id, coalesce(to_timestamp((extract(epoch FROM since_after) + extract(epoch FROM since)) / 2), since),
           (SELECT max(observed_until) FROM sync_run AS u WHERE u.app_id = s.app_id AND u.complete)
    FROM presence_snapshot AS s WHERE state = 'online'
), observed AS (
    SELECT m.app_id, m.user_id, unnest(tstzmultirange(tstzrange(m.begun, greatest(m.begun, m.ended))) - coalesce(g.gaps, '{}')) AS piece
    FROM middle AS m LEFT JOIN gap AS g USING (app_id)
)
SELECT app_id::int AS app_id, user_id, sum(extract(epoch FROM upper(piece) - lower(piece)))::double precision AS seconds FROM observed GROUP BY 1, 2`

// agree compares two queries of app_id, user_id, seconds.
func agree(t testing.TB, conn *pgx.Conn, what, first, second string) {
	t.Helper()
	differ := reported(t, conn, `SELECT * FROM (`+first+`) AS a FULL JOIN (`+second+`) AS b USING (app_id, user_id)
WHERE abs(a.seconds - b.seconds) > 1e-3 OR (a.seconds IS NULL AND b.seconds > 0) OR (b.seconds IS NULL AND a.seconds > 0)`)
	if len(differ) > 0 {
		t.Errorf("%s: %s", what, differ)
	}
}

// rolledUp compares the days of an app with those computed from the history.
func rolledUp(t testing.TB, conn *pgx.Conn, app int, zone string) {
	t.Helper()
	const days = `SELECT app_id, user_id, day, online_seconds, sessions, first_online, last_online FROM `
	query := func(source string) []string {
		return reported(t, conn, days+source+` WHERE app_id = $2 ORDER BY 3, 2`, zone, app)
	}
	if diff := cmp.Diff(query(`presence_daily_from_history('2026-10-01', '2027-01-01', $1, false, false)`), query(`presence_daily('2026-10-01', '2027-01-01', $1)`)); diff != "" {
		t.Fatalf("days in %s (-from the history +rolled up):\n%s", zone, diff)
	}
}

func (w *world) rollUp(zone string) {
	w.t.Helper()
	for column[bool](w.t, w.conn, `SELECT roll_up_presence($1::int::smallint, $2, '-infinity')`, w.app, zone)[0] {
	}
}

// Days rolled up agree with the history at any time, also when it is written to
// behind them.
func TestRollUpAgreesWithTheHistory(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	asOf(t, conn, "2026-12-31 00:00+00")
	zone := "Asia/Kolkata"
	var worlds []*world
	for seed := range uint64(2) {
		worlds = append(worlds, newWorld(t, conn, 10+seed, fmt.Sprintf("app%d", seed)))
	}
	for i := range 120 {
		for _, w := range worlds {
			between := func() {}
			if w.chance(0.2) {
				between = func() { w.rollUp(zone) }
			}
			w.sweep(between)
			if w.chance(0.3) {
				w.rollUp(zone)
				rolledUp(t, conn, w.app, zone)
			}
			w.pause()
		}
		if i == 60 {
			zone = "America/New_York"
		}
	}
	for _, w := range worlds {
		w.rollUp(zone)
		rolledUp(t, conn, w.app, zone)
		rolledUp(t, conn, w.app, "UTC") // another zone
	}
	// Also in zones where days of 25 hours, of the zone rolled up and of another, touch
	// three, and in one that is behind all others.
	for _, zone := range []string{zone, "UTC", "Atlantic/Azores", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Pago_Pago"} {
		if got := reported(t, conn, miscountedSQL, zone); len(got) > 0 {
			t.Errorf("active users in %s: %s", zone, got)
		}
	}
	if n := column[int](t, conn, `SELECT count(*)::int FROM presence_day`)[0]; n < 100 {
		t.Errorf("only %d days are rolled up", n)
	}
}

// miscountedSQL gives the days of active_users that are not what counting says.
const miscountedSQL = `
WITH days AS MATERIALIZED (SELECT * FROM presence_daily_from_history('2026-09-01', '2027-01-01', $1, false, false))
SELECT a.*, c.*
FROM active_users('2026-10-25', '2026-12-20', $1) AS a
CROSS JOIN LATERAL (
    SELECT count(DISTINCT user_id) FILTER (WHERE d.day = a.day) AS daily, count(DISTINCT user_id) FILTER (WHERE d.day > a.day - 7) AS weekly, count(DISTINCT user_id) AS monthly
    FROM days AS d
    WHERE d.app_id = a.app_id AND d.day <= a.day AND d.day > a.day - 30
) AS c
WHERE (a.daily, a.weekly, a.monthly) IS DISTINCT FROM (c.daily, c.weekly, c.monthly)`
