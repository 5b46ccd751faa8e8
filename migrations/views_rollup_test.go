package migrations_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// tenDays is a history with a user who is online from 10 to 11 each day from the
// 1st to the 10th, and one who has been online since the 2nd.
func tenDays(t testing.TB) *pgx.Conn {
	t.Helper()
	conn := connect(t, migrated(t))
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-11-01')`)
	addRun(t, conn, 1, "presence", "2026-11-01 00:00", "2026-11-10 11:30", "1 year")
	for day := range 10 {
		date := []string{"01", "02", "03", "04", "05", "06", "07", "08", "09", "10"}[day]
		addStretch(t, conn, 1, "daily", "offline", bracket{"", "2026-11-" + date + " 10:00"}, bracket{"2026-11-" + date + " 11:00", "2026-11-" + date + " 11:00"})
	}
	addSnapshot(t, conn, 1, "always", "online", "2026-11-02 12:00", bracket{"", "2026-11-02 12:00"})
	asOf(t, conn, "2026-11-10 12:00+00")
	return conn
}

// closed adds a complete run that begins when the given day ends.
func closed(t testing.TB, conn *pgx.Conn, after string) {
	t.Helper()
	addRun(t, conn, 1, "presence", after, after, "1 year")
}

func rollUp(t testing.TB, conn *pgx.Conn, zone, historyFrom string) {
	t.Helper()
	for column[bool](t, conn, `SELECT roll_up_presence(1::smallint, $1, $2::text::timestamptz)`, zone, historyFrom)[0] {
	}
}

const rolledSQL = `
SELECT p.day::text, string_agg(user_id || ' ' || online_seconds, ', ' ORDER BY user_id)
FROM presence_day AS p
JOIN presence_rollup AS r USING (app_id)
WHERE p.day <= r.until_day
GROUP BY p.day
ORDER BY p.day`

// A day is closed when a complete run has begun after it: no gap can begin in it
// any more.
func TestRollUpOfClosedDays(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	rollUp(t, conn, "UTC", "-infinity")
	expect(t, conn, `SELECT until_day::text FROM presence_rollup`, "2026-10-31")
	closed(t, conn, "2026-11-02 23:59:59.999999")
	rollUp(t, conn, "UTC", "-infinity")
	expect(t, conn, rolledSQL, "2026-11-01 daily 3600")
	closed(t, conn, "2026-11-03 00:00")
	rollUp(t, conn, "UTC", "-infinity")
	expect(t, conn, rolledSQL, "2026-11-01 daily 3600", "2026-11-02 always 43200, daily 3600")
	// In a zone to the east the 3rd has not begun any later.
	rollUp(t, conn, "Asia/Kolkata", "-infinity")
	expect(t, conn, `SELECT zone, until_day::text FROM presence_rollup`, "Asia/Kolkata 2026-11-02")
	expect(t, conn, rolledSQL, "2026-11-01 daily 3600", "2026-11-02 always 23400, daily 3600")
	rollUp(t, conn, "America/New_York", "-infinity")
	expect(t, conn, `SELECT zone, until_day::text FROM presence_rollup`, "America/New_York 2026-11-01")
	expect(t, conn, rolledSQL, "2026-11-01 daily 3600")
}

// An earlier present than what is rolled up sees only its own past.
func TestRollUpAndAnEarlierPresent(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	closed(t, conn, "2026-11-10 00:00")
	rollUp(t, conn, "UTC", "-infinity")
	const always = `SELECT day::text, online_seconds FROM presence_daily('2026-11-04', '2026-11-06', 'UTC') WHERE user_id = 'always' ORDER BY day`
	expect(t, conn, always, "2026-11-04 86400", "2026-11-05 86400", "2026-11-06 86400")
	asOf(t, conn, "2026-11-05 06:00+00")
	expect(t, conn, always, "2026-11-04 86400", "2026-11-05 21600")
}

// A gap that comes to light later, and one that turns out to be none.
func TestRollUpOfChangedGaps(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	closed(t, conn, "2026-11-10 00:00")
	rollUp(t, conn, "UTC", "-infinity")
	addGap(t, conn, 1, "presence", "2026-11-06 10:30", "2026-11-06 10:30", "2026-11-06 12:00", "2026-11-06 12:00")
	rollUp(t, conn, "UTC", "-infinity")
	want := []string{"2026-11-05 always 86400, daily 3600", "2026-11-06 always 81000, daily 1800", "2026-11-07 always 86400, daily 3600"}
	const middle = `SELECT * FROM (` + rolledSQL + `) AS r WHERE day BETWEEN '2026-11-05' AND '2026-11-07'`
	expect(t, conn, middle, want...)
	run(t, conn, `DELETE FROM observation_gap`)
	rollUp(t, conn, "UTC", "-infinity")
	expect(t, conn, middle, "2026-11-05 always 86400, daily 3600", "2026-11-06 always 86400, daily 3600", "2026-11-07 always 86400, daily 3600")
}

// What retention has dropped is not done again, whatever comes: not for a gap
// that went with it, not for another zone, not for a late row.
func TestRollUpOfDroppedDays(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	closed(t, conn, "2026-11-10 00:00")
	addGap(t, conn, 1, "presence", "2026-11-03 10:30", "2026-11-03 10:30", "2026-11-03 12:00", "2026-11-03 12:00")
	rollUp(t, conn, "UTC", "-infinity")
	run(t, conn, `DELETE FROM presence_history WHERE observed_at < '2026-11-08 00:00+00'`)
	run(t, conn, `DELETE FROM observation_gap`)
	addStretch(t, conn, 1, "late", "offline", bracket{"", "2026-11-10 11:20"}, bracket{"2026-11-10 11:29:30", "2026-11-10 11:29:30"})
	run(t, conn, `INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since)
VALUES (1, 'late', 'offline', 'online', '{}', '2026-11-04 00:00+00', '2026-11-10 11:31+00', 1, '2026-11-04 00:00+00')`)
	rollUp(t, conn, "UTC", "2026-11-08 00:00+00")
	want := []string{
		"2026-11-01 daily 3600", "2026-11-02 always 43200, daily 3600", "2026-11-03 always 81000, daily 1800",
		"2026-11-04 always 86400, daily 3600", "2026-11-05 always 86400, daily 3600", "2026-11-06 always 86400, daily 3600",
		"2026-11-07 always 86400, daily 3600", "2026-11-08 always 86400, daily 3600", "2026-11-09 always 86400, daily 3600",
	}
	expect(t, conn, rolledSQL, want...)
	// Berlin's 8th began before the history does. In the days before, and in it, UTC's remain.
	rollUp(t, conn, "Europe/Berlin", "2026-11-08 00:00+00")
	expect(t, conn, `SELECT zone, until_day::text FROM presence_rollup`, "Europe/Berlin 2026-11-09")
	expect(t, conn, rolledSQL, want...)
	// The time once given holds, also when nothing is to be dropped any more.
	rollUp(t, conn, "UTC", "-infinity")
	expect(t, conn, rolledSQL, want...)
	expect(t, conn, `SELECT daily, monthly FROM active_users('2026-11-01', '2026-11-10', 'UTC') WHERE day IN ('2026-11-01', '2026-11-09') ORDER BY day`, "1 1", "2 2")
	// In another zone what is rolled up tells too: of days whose history is dropped.
	expect(t, conn, `SELECT day::text, daily, weekly, monthly, observed_seconds FROM active_users('2026-11-01', '2026-11-09', 'Asia/Kolkata') ORDER BY day`,
		"2026-11-01 1 1 1 66600", "2026-11-02 2 2 2 86400", "2026-11-03 2 2 2 86400", "2026-11-04 2 2 2 86400", "2026-11-05 2 2 2 86400",
		"2026-11-06 2 2 2 86400", "2026-11-07 2 2 2 86400", "2026-11-08 2 2 2 86400", "2026-11-09 2 2 2 86400")
}

// Two at once: the second leaves it to the first.
func TestRollUpAtOnce(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	closed(t, conn, "2026-11-10 00:00")
	other := connect(t, conn.Config().ConnString())
	run(t, other, `BEGIN`)
	run(t, other, `SELECT roll_up_presence(1::smallint, 'UTC', '-infinity')`)
	expect(t, conn, `SELECT roll_up_presence(1::smallint, 'UTC', '-infinity')`, "false")
	run(t, other, `COMMIT`)
	expect(t, conn, `SELECT until_day::text FROM presence_rollup`, "2026-11-07")
}
