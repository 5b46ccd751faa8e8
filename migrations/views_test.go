package migrations_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// reported gives the rows of a query as lines: times of the day of the scenario
// without it, nothing as -.
func reported(t testing.TB, conn *pgx.Conn, query string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		words := make([]string, len(values))
		for i, value := range values {
			switch v := value.(type) {
			case nil:
				words[i] = "-"
			case time.Time:
				words[i] = strings.TrimPrefix(v.UTC().Format("2006-01-02T15:04:05.999999"), "2026-11-02T")
			default:
				words[i] = fmt.Sprint(v)
			}
		}
		return strings.Join(words, " "), err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	return lines
}

// expect compares the rows of a query with lines written by hand.
func expect(t testing.TB, conn *pgx.Conn, query string, want ...string) {
	t.Helper()
	for i := range want {
		want[i] = strings.Join(strings.Fields(want[i]), " ")
	}
	if diff := cmp.Diff(want, reported(t, conn, query)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", query, diff)
	}
}

// asOf sets the present of the reports.
func asOf(t testing.TB, conn *pgx.Conn, at string) {
	t.Helper()
	run(t, conn, `SELECT set_config('syncer.as_of', $1, false)`, at)
}

// Times are those of the scenario's day unless they say another.
const day = "2026-11-02 "

func at(clock string) any {
	switch {
	case clock == "":
		return nil
	case strings.Contains(clock, "-"):
		return clock + "+00"
	default:
		return day + clock + "+00"
	}
}

const addRunSQL = `
INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, max_gap, observed_from, observed_until)
VALUES ($1, $2, $2, 'backfill', 'succeeded', $3::text::timestamptz, $4::text::timestamptz, true, $5::text::interval, $3::text::timestamptz, $4::text::timestamptz)`

func addRun(t testing.TB, conn *pgx.Conn, app int, kind, from, until string, maxGap any) {
	t.Helper()
	run(t, conn, addRunSQL, app, kind, at(from), at(until), maxGap)
}

const addGapSQL = `
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id)
VALUES ($1, $2, $3::text::timestamptz, $4::text::timestamptz, $5::text::timestamptz, $6::text::timestamptz, 1)`

// addGap adds a gap: last seen from … until, seen again from … by.
func addGap(t testing.TB, conn *pgx.Conn, app int, kind, seenFrom, started, ended, seenBy string) {
	t.Helper()
	run(t, conn, addGapSQL, app, kind, at(started), at(ended), at(seenFrom), at(seenBy))
}

// bracket is after and by; a bracket without after is of what was first seen.
type bracket [2]string

const addStretchSQL = `
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since_after, prev_since)
VALUES ($1, $2, 'online', $3, '{}', $4::text::timestamptz, $5::text::timestamptz, 1, $6::text::timestamptz, $7::text::timestamptz)`

// addStretch adds the row that ends a stretch online: all of it is in there.
func addStretch(t testing.TB, conn *pgx.Conn, app int, user, state string, begun, ended bracket) {
	t.Helper()
	run(t, conn, addStretchSQL, app, user, state, at(ended[0]), at(ended[1]), at(begun[0]), at(begun[1]))
}

const addSnapshotSQL = `
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since_after, since)
VALUES ($1, $2, $3, '{"ios": "online"}', greatest($4::text::timestamptz, $6::text::timestamptz), $4::text::timestamptz, 1, $5::text::timestamptz, $6::text::timestamptz)`

func addSnapshot(t testing.TB, conn *pgx.Conn, app int, user, state, asked string, since bracket) {
	t.Helper()
	run(t, conn, addSnapshotSQL, app, user, state, at(asked), at(since[0]), at(since[1]))
}

const addFailureSQL = `
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times, known_at)
VALUES ($1, $2, $3, '70107', 'no such account', $4::text::timestamptz, $4::text::timestamptz, 1, $4::text::timestamptz)`

func addFailure(t testing.TB, conn *pgx.Conn, app int, kind, user, known string) {
	t.Helper()
	run(t, conn, addFailureSQL, app, kind, user, at(known))
}

// scenario is a database with two apps. Of main, presence is looked at every ten
// minutes, for two minutes each, with a gap from 10:12 to 12:00:
//
//	09:50–09:52  10:00–10:02  10:10–10:12  gap  12:00–12:02  12:10–12:12
//
// other is looked at three times and has no gap.
func scenario(t testing.TB) *pgx.Conn {
	t.Helper()
	conn := connect(t, migrated(t))
	run(t, conn, `SET timezone = 'America/Los_Angeles'`) // must not matter
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01'), ('other', 'openim', '2026-10-01')`)
	for _, r := range [][2]string{{"09:50", "09:52"}, {"10:00", "10:02"}, {"10:10", "10:12"}, {"12:00", "12:02"}, {"12:10", "12:12"}} {
		addRun(t, conn, 1, "presence", r[0], r[1], "30 minutes")
	}
	addGap(t, conn, 1, "presence", "10:10", "10:12", "12:00", "12:02")
	for _, r := range [][2]string{{"09:00", "09:01"}, {"12:00", "12:01"}, {"12:15", "12:16"}} {
		addRun(t, conn, 2, "presence", r[0], r[1], "5 hours")
	}
	asOf(t, conn, "2026-11-02 12:20+00")

	addStretch(t, conn, 1, "ended", "offline", bracket{"09:40", "09:50"}, bracket{"10:00", "10:10"})
	addStretch(t, conn, 1, "first seen", "push_online", bracket{"", "09:50"}, bracket{"10:00", "10:10"})
	addStretch(t, conn, 1, "removed", "removed", bracket{"09:40", "09:50"}, bracket{"10:00", "10:10"})
	addStretch(t, conn, 1, "rejected", "rejected", bracket{"09:40", "09:50"}, bracket{"09:50", "10:10"})
	addStretch(t, conn, 1, "over", "offline", bracket{"09:50", "10:00"}, bracket{"12:00", "12:10"})
	addStretch(t, conn, 1, "ends inside", "offline", bracket{"09:50", "10:00"}, bracket{"10:10", "12:01"})
	addStretch(t, conn, 1, "begins inside", "offline", bracket{"10:10", "12:01"}, bracket{"12:01", "12:11"})
	addStretch(t, conn, 1, "inside", "offline", bracket{"10:30", "10:40"}, bracket{"10:50", "11:00"})
	addStretch(t, conn, 1, "dropped beginning", "offline", bracket{"2026-10-19 23:50", "2026-10-20 00:00"}, bracket{"10:00", "10:10"})

	// A change of platforms alone is a row, but ends nothing.
	addStretch(t, conn, 1, "platforms", "offline", bracket{"09:40", "09:50"}, bracket{"10:01", "10:11"})
	run(t, conn, `INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since_after, prev_since)
SELECT app_id, user_id, 'online', 'online', '{"web": "online"}', prev_since, not_before, 1, prev_since_after, prev_since FROM presence_history WHERE user_id = 'platforms'`)
	// And one who was never online.
	run(t, conn, `INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since)
VALUES (1, 'push', 'push_online', 'offline', '{}', '2026-11-02 10:00+00', '2026-11-02 10:10+00', 1, '2026-11-02 09:50+00')`)

	addSnapshot(t, conn, 1, "open", "online", "12:10:29", bracket{"12:00", "12:10:30"})
	addSnapshot(t, conn, 1, "open over", "online", "10:00", bracket{"09:50", "10:00"})
	addSnapshot(t, conn, 1, "failing", "online", "09:50", bracket{"09:40", "09:50"})
	addFailure(t, conn, 1, "presence", "failing", "10:00")
	addSnapshot(t, conn, 1, "ended", "offline", "10:09", bracket{"10:00", "10:10"})

	addStretch(t, conn, 2, "ended", "offline", bracket{"09:00", "09:00:30"}, bracket{"12:00", "12:15"})
	return conn
}

const sessionsSQL = `
SELECT app, user_id || ':', started_after, started_at, ended_after, ended_at, known_seconds, estimated_seconds, ended_by
FROM presence_session
ORDER BY app, user_id, started_at`

func TestPresenceSession(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	expect(t, conn, sessionsSQL,
		"main begins inside: 10:10:00 12:01:00 12:01:00 12:11:00 0 360 observed",
		"main dropped beginning: 2026-10-19T23:50:00 2026-10-20T00:00:00 10:00:00 10:10:00 1.1592e+06 1.1598e+06 observed",
		"main ended: 09:40:00 09:50:00 10:00:00 10:10:00 600 1200 observed",
		"main ends inside: 09:50:00 10:00:00 10:10:00 12:01:00 600 1020 gap",
		"main failing: 09:40:00 09:50:00 10:00:00 12:00:00 600 1620 gap",
		"main failing: 10:12:00 12:02:00 10:00:00 - 0 720 open",
		"main first seen: - 09:50:00 10:00:00 10:10:00 600 900 observed",
		"main open: 12:00:00 12:10:30 12:10:29 - 0 405 open",
		"main open over: 09:50:00 10:00:00 10:10:00 12:00:00 600 1020 gap",
		"main open over: 10:12:00 12:02:00 12:10:00 - 480 720 open",
		"main over: 09:50:00 10:00:00 10:10:00 12:00:00 600 1020 gap",
		"main over: 10:12:00 12:02:00 12:00:00 12:10:00 0 300 observed",
		"main platforms: 09:40:00 09:50:00 10:01:00 10:11:00 660 1260 observed",
		"main rejected: 09:40:00 09:50:00 09:50:00 10:10:00 0 300 rejected",
		"main removed: 09:40:00 09:50:00 10:00:00 10:10:00 600 1200 observed",
		"other ended: 09:00:00 09:00:30 12:00:00 12:15:00 10770 11235 observed",
	)
}

// An open gap closes what was open, and what came to light within it is not
// counted before it ends.
func TestOpenGap(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	// Seen by a run that was not complete.
	addSnapshot(t, conn, 1, "seen in the gap", "online", "12:50", bracket{"12:10", "12:50"})
	addSnapshot(t, conn, 1, "asked again", "online", "12:50", bracket{"12:00", "12:10"})
	const open = sessionsOpenSQL
	expect(t, conn, open,
		"asked again: 12:00:00 12:10:00 12:20:00 - 600 900 open",
		"failing: 10:12:00 12:02:00 10:00:00 - 0 720 open",
		"open: 12:00:00 12:10:30 12:10:29 - 0 405 open",
		"open over: 10:12:00 12:02:00 12:10:00 - 480 720 open",
		"seen in the gap: 12:10:00 12:50:00 12:20:00 - 0 0 open",
	)
	asOf(t, conn, "2026-11-02 12:42+00") // max_gap later: not yet
	expect(t, conn, `SELECT count(*) FROM sync_gap WHERE ended_at IS NULL`, "0")
	asOf(t, conn, "2026-11-02 13:00+00")
	expect(t, conn, `SELECT app, kind, started_at, ended_at, seconds, last_seen_from, next_seen_by FROM sync_gap ORDER BY app_id, kind, started_at`,
		"main presence 10:12:00 12:00:00 6480 10:10:00 12:02:00",
		"main presence 12:12:00 - 2880 12:10:00 -",
	)
	expect(t, conn, open,
		"asked again: 12:00:00 12:10:00 12:10:00 - 0 420 gap",
		"failing: 10:12:00 12:02:00 10:00:00 - 0 720 gap",
		"open: 12:00:00 12:10:30 12:10:29 - 0 405 gap",
		"open over: 10:12:00 12:02:00 12:10:00 - 480 720 gap",
	)
	expect(t, conn, `SELECT user_id, stale FROM presence_current WHERE app = 'main' ORDER BY user_id`,
		"asked again true", "ended true", "failing true", "open true", "open over true", "seen in the gap true")
	// Without max_gap any time counts.
	run(t, conn, `UPDATE sync_run SET max_gap = NULL WHERE app_id = 2`)
	asOf(t, conn, "2026-11-02 12:16:01+00")
	expect(t, conn, `SELECT app, started_at, seconds FROM sync_gap WHERE ended_at IS NULL`, "other 12:16:00 1")
}

const sessionsOpenSQL = `
SELECT user_id || ':', started_after, started_at, ended_after, ended_at, known_seconds, estimated_seconds, ended_by
FROM presence_session
WHERE ended_at IS NULL
ORDER BY user_id`

// Gaps that overlap, or touch, cut once.
func TestOverlappingGaps(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	addGap(t, conn, 1, "presence", "11:00", "11:30", "12:00", "12:01")
	addGap(t, conn, 1, "presence", "10:01", "10:02", "10:12", "10:12")
	expect(t, conn, sessionsSQL+` LIMIT 2`,
		"main begins inside: 10:10:00 12:01:00 12:01:00 12:11:00 0 360 observed",
		"main dropped beginning: 2026-10-19T23:50:00 2026-10-20T00:00:00 10:00:00 10:10:00 1.1592e+06 1.15962e+06 gap",
	)
	expect(t, conn, `SELECT count(*), sum(estimated_seconds) FROM presence_session WHERE user_id = 'over'`, "2 720")
}

// Two gaps cut a stretch into three.
func TestTwoGaps(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	addGap(t, conn, 1, "presence", "09:30", "09:31", "09:45", "09:46")
	addStretch(t, conn, 1, "over both", "offline", bracket{"09:10", "09:20"}, bracket{"12:00", "12:10"})
	expect(t, conn, `SELECT started_after, started_at, ended_after, ended_at, known_seconds, estimated_seconds, ended_by FROM presence_session WHERE user_id = 'over both' ORDER BY 2`,
		"09:10:00 09:20:00 09:30:00 09:45:00 600 960 gap",
		"09:31:00 09:46:00 10:10:00 12:00:00 1440 1620 gap",
		"10:12:00 12:02:00 12:00:00 12:10:00 0 300 observed",
	)
}

func TestPresenceCurrent(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	addSnapshot(t, conn, 2, "open", "push_online", "12:15:30", bracket{"", "12:15:31"})
	expect(t, conn, `SELECT app_id, app, user_id, state, platforms, since_after, since, last_checked_at, stale FROM presence_current ORDER BY app, user_id`,
		"1 main ended offline map[ios:online] 10:00:00 10:10:00 12:10:00 false",
		"1 main failing online map[ios:online] 09:40:00 09:50:00 10:00:00 true",
		"1 main open online map[ios:online] 12:00:00 12:10:30 12:10:29 false",
		"1 main open over online map[ios:online] 09:50:00 10:00:00 12:10:00 false",
		"2 other open push_online map[ios:online] - 12:15:31 12:15:30 false",
	)
}

// TestLastChecked_overtaken: answers that came after the newest complete run began, to
// questions from before, may have overtaken what the run saw. The users were last seen in
// these states when the questions were sent.
func TestLastChecked_overtaken(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	addRun(t, conn, 1, "accounts", "08:00", "08:05", "3 days")
	const asked, began, later = "12:09:59.9", "12:10", "12:10:00.1"
	addSnapshot(t, conn, 1, "overtaken", "online", asked, bracket{"12:00", later})
	addSnapshot(t, conn, 1, "at the start", "online", asked, bracket{"12:00", began})
	run(t, conn, `INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES
(1, 'overtaken', 'imported', '2026-11-02 08:00:00.1+00', '2026-11-02 07:59:59.9+00', 1),
(1, 'at the start', 'imported', '2026-11-02 08:00+00', '2026-11-02 07:59:59.9+00', 1)`)
	const users = ` WHERE user_id IN ('overtaken', 'at the start') ORDER BY user_id`
	expect(t, conn, `SELECT user_id || ':', last_checked_at FROM presence_current`+users, "at the start: 12:10:00", "overtaken: 12:09:59.9")
	expect(t, conn, `SELECT user_id || ':', last_checked_at FROM account_current`+users, "at the start: 08:00:00", "overtaken: 07:59:59.9")
	expect(t, conn, `SELECT user_id || ':', ended_after FROM presence_session`+users, "at the start: 12:10:00", "overtaken: 12:09:59.9")
}

// An app without a complete run goes stale by the max_gap of the run that looks, or
// looked, last.
func TestStaleWithoutCompleteRun(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01')`)
	run(t, conn, `INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, observed_from, finished_at, max_gap) VALUES
(1, 'presence', 'presence', 'backfill', 'failed', '2026-11-02 08:00+00', '2026-11-02 08:00+00', '2026-11-02 08:30+00', '1 hour'),
(1, 'presence', 'presence', 'backfill', 'running', '2026-11-02 09:00+00', '2026-11-02 09:00+00', NULL, '30 minutes')`)
	run(t, conn, `INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, observed_from, finished_at) VALUES
(1, 'presence', 'presence', 'cron', '2026-11-02 09:10+00', 'skipped', '2026-11-02 09:10+00', '2026-11-02 09:10+00', '2026-11-02 09:10+00')`)
	addSnapshot(t, conn, 1, "early", "online", "08:10", bracket{"", "08:10"})
	addSnapshot(t, conn, 1, "late", "online", "09:10", bracket{"", "09:10"})
	run(t, conn, `INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES (1, 'late', 'imported', '2026-11-02 09:10+00', '2026-11-02 09:10+00', 1)`)
	const current = `SELECT user_id, stale FROM presence_current ORDER BY user_id`
	asOf(t, conn, "2026-11-02 09:20+00")
	expect(t, conn, current, "early true", "late false")
	asOf(t, conn, "2026-11-02 09:41+00")
	expect(t, conn, current, "early true", "late true")
	expect(t, conn, `SELECT user_id, stale FROM account_current`, "late true") // no run of accounts says for how long it holds
}

func TestPresenceConcurrency(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	run(t, conn, `INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users) VALUES
(1, 1, '2026-11-02 09:52+00', 'online', 'all', 12), (1, 1, '2026-11-02 09:52+00', 'online', 'ios', 9), (1, 1, '2026-11-02 09:52+00', 'online', 'web', 5),
(1, 1, '2026-11-02 09:52+00', 'push_online', 'all', 3), (1, 1, '2026-11-02 09:52+00', 'push_online', 'ios', 3),
(1, 1, '2026-11-02 09:52+00', 'offline', 'all', 85),
(1, 2, '2026-11-02 10:02+00', 'offline', 'all', 100),
(1, 3, '2026-11-02 10:12+00', 'offline', 'all', 0),
(1, 4, '2026-11-02 12:02+00', 'rejected', 'all', 100),
(2, 6, '2026-11-02 09:01+00', 'online', 'all', 1)`)
	expect(t, conn, `SELECT app_id, app, run_id, observed_at, users, online, push_online, offline, platforms FROM presence_concurrency ORDER BY run_id`,
		"1 main 1 09:52:00 100 12 3 85 map[ios:9 web:5]",
		"1 main 2 10:02:00 100 0 0 100 map[]",
		"1 main 3 10:12:00 0 0 0 0 map[]", // no users
		"1 main 4 12:02:00 0 - - - map[]", // all of them failed
		"2 other 6 09:01:00 1 1 0 0 map[]",
	)
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	addRun(t, conn, 1, "accounts", "08:00", "08:05", "3 days")
	addRun(t, conn, 1, "accounts", "2026-11-01 08:00", "2026-11-01 08:05", "3 days")
	run(t, conn, `INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES
(1, 'ended', 'imported', '2026-11-01 08:01+00', '2026-11-01 08:00:59+00', 1),
(1, 'failing', 'not_imported', '2026-11-01 08:01+00', '2026-11-01 08:00:59+00', 1),
(1, 'new', 'imported', '2026-11-02 08:02+00', '2026-11-02 08:01:59+00', 1)`)
	addFailure(t, conn, 1, "accounts", "failing", "2026-11-01 09:00")
	addFailure(t, conn, 1, "accounts", "never answered", "08:00")
	addFailure(t, conn, 1, "accounts", "", "08:00") // rows without an id
	addFailure(t, conn, 2, "presence", "open", "12:00")
	expect(t, conn, `SELECT app_id, app, user_id, status, since, last_checked_at, stale FROM account_current ORDER BY app, user_id`,
		"1 main ended imported 2026-11-01T08:01:00 08:00:00 false",
		"1 main failing not_imported 2026-11-01T08:01:00 2026-11-01T09:00:00 true",
		"1 main new imported 08:02:00 08:01:59 false",
	)
	// Of main: open and open over, and who never answered; all of other's.
	expect(t, conn, `SELECT app_id, app, imported, not_imported, never_checked, last_checked_at FROM account_coverage ORDER BY app`,
		"1 main 2 1 3 08:00:00", "2 other 0 0 1 -")
	asOf(t, conn, "2026-11-06 12:00+00")
	expect(t, conn, `SELECT user_id, stale FROM account_current ORDER BY user_id`, "ended true", "failing true", "new true")
	expect(t, conn, `SELECT app, kind, started_at, last_seen_from FROM sync_gap WHERE kind = 'accounts'`, "main accounts 08:05:00 08:00:00")
}

func TestAsOf(t *testing.T) {
	t.Parallel()
	conn := scenario(t)
	run(t, conn, `SET timezone = 'UTC'`)
	expect(t, conn, `SELECT as_of()`, "12:20:00")
	asOf(t, conn, "")
	expect(t, conn, `SELECT as_of() = now()`, "true")
	run(t, conn, `RESET syncer.as_of`)
	expect(t, conn, `SELECT as_of() = now()`, "true")
}
