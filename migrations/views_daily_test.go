package migrations_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const dailySQL = `
SELECT app, user_id || ':', day::text, online_seconds, sessions, first_online, last_online
FROM presence_daily('2026-11-02', '2026-11-02', 'UTC')
ORDER BY app, user_id`

func TestPresenceDaily(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	want := []string{
		"main begins inside: 2026-11-02 360 1 12:00:00 12:06:00",
		"main dropped beginning: 2026-11-02 36300 1 00:00:00 10:05:00",
		"main ended: 2026-11-02 1200 1 09:45:00 10:05:00",
		"main ends inside: 2026-11-02 1020 1 09:55:00 10:12:00",
		"main failing: 2026-11-02 2340 2 09:45:00 12:12:00",
		"main first seen: 2026-11-02 900 1 09:50:00 10:05:00",
		"main open: 2026-11-02 405 1 12:05:15 12:12:00",
		"main open over: 2026-11-02 1740 2 09:55:00 12:12:00",
		"main over: 2026-11-02 1320 2 09:55:00 12:05:00",
		"main platforms: 2026-11-02 1260 1 09:45:00 10:06:00",
		"main rejected: 2026-11-02 300 1 09:45:00 09:50:00",
		"main removed: 2026-11-02 1200 1 09:45:00 10:05:00",
		"other ended: 2026-11-02 11235 1 09:00:15 12:07:30",
	}
	expect(t, conn, dailySQL, want...)
	expect(t, conn, `SELECT user_id || ':', day::text, online_seconds, sessions, first_online, last_online FROM presence_daily('2026-10-18', '2026-10-21', 'UTC') ORDER BY day`,
		"dropped beginning: 2026-10-19 300 1 2026-10-19T23:55:00 2026-10-20T00:00:00",
		"dropped beginning: 2026-10-20 86400 1 2026-10-20T00:00:00 2026-10-21T00:00:00",
		"dropped beginning: 2026-10-21 86400 1 2026-10-21T00:00:00 2026-10-22T00:00:00",
	)
	expect(t, conn, `SELECT count(*) FROM presence_daily('2026-11-03', '2026-11-30', 'UTC')`, "0")
	expect(t, conn, `SELECT count(*) FROM presence_daily('2026-11-02', '2026-11-01', 'UTC')`, "0")
}

// Midnight belongs to the day that it begins; so does a session that lasts no
// time, because the only look that saw it is the last there was.
func TestMidnight(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01')`)
	addRun(t, conn, 1, "presence", "2026-11-02 00:00", "2026-11-03 00:00", "1 day")
	asOf(t, conn, "2026-11-03 00:00+00")
	addStretch(t, conn, 1, "until", "offline", bracket{"", "2026-11-02 12:00"}, bracket{"2026-11-03 00:00", "2026-11-03 00:00"})
	addStretch(t, conn, 1, "from", "offline", bracket{"", "2026-11-02 00:00"}, bracket{"2026-11-02 12:00", "2026-11-02 12:00"})
	addSnapshot(t, conn, 1, "no time", "online", "2026-11-03 00:00", bracket{"", "2026-11-03 00:00"})
	expect(t, conn, `SELECT user_id, day::text, online_seconds, sessions FROM presence_daily('2026-11-01', '2026-11-04', 'UTC') ORDER BY user_id`,
		"from 2026-11-02 43200 1", "no time 2026-11-03 0 1", "until 2026-11-02 43200 1")
	expect(t, conn, `SELECT user_id, estimated_seconds FROM presence_session WHERE ended_at IS NULL`, "no time 0")
}

func TestLocalDays(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, `SET timezone = 'Australia/Lord_Howe'`) // must not matter
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-01-01')`)
	addRun(t, conn, 1, "presence", "2026-03-01 00:00", "2026-03-01 00:01", "1 year")
	addRun(t, conn, 1, "presence", "2026-12-01 00:00", "2026-12-01 00:01", "1 year")
	asOf(t, conn, "2026-12-01 00:02+00")
	// Not middles: the brackets are as short as can be.
	addStretch(t, conn, 1, "autumn", "offline", bracket{"", "2026-10-24 21:00"}, bracket{"2026-10-26 00:00", "2026-10-26 00:00"})
	addStretch(t, conn, 1, "spring", "offline", bracket{"", "2026-03-08 04:00"}, bracket{"2026-03-09 06:00", "2026-03-09 06:00"})
	const daily = `SELECT day::text, online_seconds, first_online, last_online FROM presence_daily('2026-10-20', '2026-10-30', $1) ORDER BY day`
	expect(t, conn, strings.Replace(daily, "$1", "'Europe/Berlin'", 1),
		"2026-10-24 3600 2026-10-24T21:00:00 2026-10-24T22:00:00",
		"2026-10-25 90000 2026-10-24T22:00:00 2026-10-25T23:00:00", // 25 hours
		"2026-10-26 3600 2026-10-25T23:00:00 2026-10-26T00:00:00",
	)
	expect(t, conn, strings.Replace(daily, "$1", "'Asia/Kolkata'", 1),
		"2026-10-25 77400 2026-10-24T21:00:00 2026-10-25T18:30:00",
		"2026-10-26 19800 2026-10-25T18:30:00 2026-10-26T00:00:00",
	)
	expect(t, conn, `SELECT day::text, online_seconds, first_online, last_online FROM presence_daily('2026-03-01', '2026-03-30', 'America/New_York') ORDER BY day`,
		"2026-03-07 3600 2026-03-08T04:00:00 2026-03-08T05:00:00",
		"2026-03-08 82800 2026-03-08T05:00:00 2026-03-09T04:00:00", // 23 hours
		"2026-03-09 7200 2026-03-09T04:00:00 2026-03-09T06:00:00",
	)
	expect(t, conn, `SELECT day::text, daily, observed_seconds FROM active_users('2026-10-24', '2026-10-26', 'Europe/Berlin') ORDER BY day`,
		"2026-10-24 1 86400", "2026-10-25 1 90000", "2026-10-26 1 86400")
}

// The error is Postgres' own, whether there is anything to report or not.
func TestUnknownTimeZone(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	check := func() {
		t.Helper()
		for _, function := range []string{"presence_daily", "active_users"} {
			rows, err := conn.Query(t.Context(), `SELECT * FROM `+function+`($1::text::date, '2026-11-03', $2)`, "2026-11-02", "Mars/Olympus")
			if err == nil {
				rows.Close()
				err = rows.Err()
			}
			if want := `ERROR: time zone "Mars/Olympus" not recognized (SQLSTATE 22023)`; err == nil || err.Error() != want {
				t.Errorf("%s: %v; want %s", function, err, want)
			}
		}
	}
	check()
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01')`)
	check()
	addRun(t, conn, 1, "presence", "09:00", "09:01", "1 hour")
	check()
}

func TestActiveUsers(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01'), ('other', 'tencent', '2026-10-01')`)
	addRun(t, conn, 1, "presence", "2026-11-01 06:00", "2026-11-01 06:01", "1 year")
	addRun(t, conn, 1, "presence", "2026-12-08 11:00", "2026-12-08 12:00", "1 year")
	addRun(t, conn, 2, "presence", "2026-12-07 06:00", "2026-12-07 06:01", "1 year")
	addGap(t, conn, 1, "presence", "2026-11-03 06:00", "2026-11-03 06:00", "2026-11-03 07:30", "2026-11-03 07:30")
	asOf(t, conn, "2026-12-08 20:00+00")
	online := func(app int, user, day string) {
		t.Helper()
		addStretch(t, conn, app, user, "offline", bracket{"", day + " 10:00"}, bracket{day + " 11:00", day + " 11:00"})
	}
	online(1, "one", "2026-11-01")
	online(1, "one", "2026-11-08")
	online(1, "two", "2026-11-02")
	online(2, "one", "2026-12-07")
	expect(t, conn, `SELECT app, day::text, daily, weekly, monthly, observed_seconds FROM active_users('2026-10-30', '2027-01-31', 'UTC')
WHERE day IN ('2026-11-01', '2026-11-02', '2026-11-03', '2026-11-07', '2026-11-08', '2026-11-09', '2026-11-14', '2026-11-15', '2026-12-01', '2026-12-02') OR day > '2026-12-06'
ORDER BY app, day`,
		"main 2026-11-01 1 1 1 64800", // from the first run on
		"main 2026-11-02 1 2 2 86400",
		"main 2026-11-03 0 2 2 81000", // the gap
		"main 2026-11-07 0 2 2 86400", // one: the 1st is the seventh day back
		"main 2026-11-08 1 2 2 86400",
		"main 2026-11-09 0 1 2 86400", // two: the 2nd is the eighth
		"main 2026-11-14 0 1 2 86400",
		"main 2026-11-15 0 0 2 86400",
		"main 2026-12-01 0 0 2 86400", // two: the 2nd is the 30th day back
		"main 2026-12-02 0 0 1 86400",
		"main 2026-12-07 0 0 1 86400", // one: the 8th is
		"main 2026-12-08 0 0 0 43200", // until the last look
		"other 2026-12-07 1 1 1 60",
		"other 2026-12-08 0 1 1 0",
	)
	expect(t, conn, `SELECT count(*), min(day)::text, max(day)::text FROM active_users('2026-10-30', '2027-01-31', 'UTC') WHERE app = 'main'`,
		"38 2026-11-01 2026-12-08")
	// What lies before the days asked for counts in them all the same.
	expect(t, conn, `SELECT daily, weekly, monthly FROM active_users('2026-11-09', '2026-11-09', 'UTC') WHERE app = 'main'`, "0 1 2")
}

// The objects of each schema are about its own tables, whatever the search_path.
func TestReportsOfTwoSchemas(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	url := conn.Config().ConnString()
	up(t, open(t, url, "im_status"))
	theirs := connect(t, url)
	run(t, theirs, `SET search_path = im_status`)
	run(t, theirs, `INSERT INTO app (name, provider, created_at) VALUES ('theirs', 'tencent', '2026-10-01')`)
	addRun(t, theirs, 1, "presence", "09:00", "09:01", "5 hours")
	addStretch(t, theirs, 1, "one", "offline", bracket{"", "08:00"}, bracket{"08:30", "08:30"})
	for _, path := range []string{"im_status", "syncer", "public"} {
		run(t, conn, `SET search_path = `+path)
		expect(t, conn, `SELECT app, user_id, online_seconds FROM im_status.presence_daily('2026-11-02', '2026-11-02', 'UTC')`, "theirs one 1800")
		expect(t, conn, `SELECT app, daily FROM im_status.active_users('2026-11-02', '2026-11-02', 'UTC')`, "theirs 1")
		expect(t, conn, `SELECT app, user_id, estimated_seconds FROM im_status.presence_session`, "theirs one 1800")
		expect(t, conn, `SELECT app, daily FROM syncer.active_users('2026-11-02', '2026-11-02', 'UTC') ORDER BY app`, "main 12", "other 1")
		expect(t, conn, `SELECT count(*) FROM syncer.presence_session`, "16")
		run(t, conn, `SELECT im_status.roll_up_presence(1::smallint, 'UTC', '-infinity')`)
	}
	expect(t, conn, `SELECT count(*) FROM syncer.presence_rollup`, "0")
	expect(t, conn, `SELECT until_day::text FROM im_status.presence_rollup`, "2026-10-21") // three weeks, a call each
}

// A role that may read needs no more than SELECT and EXECUTE.
func TestReader(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	role := readerRole(t, conn)
	run(t, conn, `SET ROLE `+role)
	for _, query := range []string{
		"sync_gap", "presence_current", "presence_session", "presence_concurrency", "account_current", "account_coverage",
		"presence_daily('2026-11-02', '2026-11-02', 'UTC')", "active_users('2026-11-02', '2026-11-02', 'UTC')",
	} {
		run(t, conn, `SELECT * FROM `+query)
	}
	if _, err := conn.Exec(t.Context(), `SELECT roll_up_presence(1::smallint, 'UTC', '-infinity')`); err == nil {
		t.Error("the reader rolled up")
	}
}

// readerTables are what a reader needs besides the views.
var readerTables = []string{
	"app", "sync_run", "observation_gap", "user_failure", "presence_history", "presence_snapshot", "presence_day", "presence_rollup",
}

// readerRole makes a role that may read what reports are made of.
func readerRole(t testing.TB, conn *pgx.Conn) string {
	t.Helper()
	role := "reader_of_" + conn.Config().Database
	run(t, conn, `CREATE ROLE `+role)
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), `RESET ROLE; DROP OWNED BY `+role+`; DROP ROLE `+role); err != nil {
			t.Error(err)
		}
	})
	run(t, conn, `GRANT USAGE ON SCHEMA syncer TO `+role)
	views := column[string](t, conn, `SELECT viewname FROM pg_views WHERE schemaname = 'syncer'`)
	run(t, conn, `GRANT SELECT ON `+strings.Join(append(views, readerTables...), ", ")+` TO `+role)
	return role
}
