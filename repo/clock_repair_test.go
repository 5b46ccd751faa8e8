package repo_test

import (
	"testing"

	"syncer/internal/pg"
	"syncer/repo"
)

// lateSQL is what stands in all tables after the clock was three years ahead for a
// while: t is a time by the right clock, f one by the wrong one.
const lateSQL = `
DO $$
DECLARE
    t timestamptz := date_trunc('second', now() - interval '3 hours');
    f timestamptz := date_trunc('second', now() + interval '3 years');
    hour interval := '1 hour';
BEGIN
INSERT INTO sync_run (run_id, app_id, job, kind, trigger, status, complete, started_at, finished_at, observed_from, observed_until, tick, max_gap)
OVERRIDING SYSTEM VALUE VALUES
    (1, 1, 'p', 'presence', 'cron', 'succeeded', true, t, t + '1 min', t, t + '1 min', t, '5 min'),
    (2, 1, 'p', 'presence', 'cron', 'succeeded', true, t + hour, f, f, f, t + hour, '5 min'),
    (3, 1, 'p', 'presence', 'cron', 'succeeded', true, f + hour, f + hour, f + hour, f + hour, f + hour, '5 min'),
    (4, 1, 'p', 'presence', 'cron', 'running', false, f + 2 * hour, NULL, f + 2 * hour, NULL, f + 2 * hour, '5 min'),
    (5, 1, 'a', 'accounts', 'cron', 'succeeded', true, t, t + '1 min', t, t + '1 min', t, '5 min'),
    (6, 1, 'a', 'accounts', 'cron', 'running', false, t + hour, NULL, f, NULL, t + hour, '5 min');
UPDATE sync_run SET failures_recorded_at = started_at, plan_beat_at = started_at;
INSERT INTO sync_range (run_id, range_no, status, page_at, beat_at, recheck_after) VALUES (3, 1, 'done', f, f, f), (6, 1, 'running', f, f, f);
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after) VALUES
    (1, 'alice', NULL, 'online', '{"ios": "online"}', NULL, t, 1, NULL, NULL),
    (1, 'alice', 'online', 'online', '{"web": "online"}', t, t + '1 min', 1, t, NULL),
    (1, 'alice', 'online', 'offline', '{}', t + hour, f, 2, t, NULL),
    (1, 'alice', 'offline', 'online', '{"ios": "online"}', f, f + hour, 3, f, t + hour),
    (1, 'bob', NULL, 'online', '{}', NULL, f, 2, NULL, NULL),
    (1, 'carol', NULL, 'offline', '{}', NULL, t, 1, NULL, NULL),
    (1, 'carol', 'offline', 'removed', '{}', t, f, 2, t, NULL),
    (1, 'dave', NULL, 'online', '{}', NULL, t, 1, NULL, NULL),
    (1, 'ivan', NULL, 'online', '{}', NULL, t - hour, 1, NULL, NULL),
    (1, 'ivan', 'online', 'push_online', '{}', t - '30 min'::interval, t, 1, t - hour, NULL),
    (1, 'ivan', 'push_online', 'online', '{}', t + hour, f, 2, t, t - '30 min'::interval),
    (1, 'judy', NULL, 'online', '{}', NULL, t - hour, 1, NULL, NULL),
    (1, 'judy', 'online', 'rejected', '{}', t - hour, t - '30 min'::interval, 1, t - hour, NULL),
    (1, 'judy', NULL, 'offline', '{}', NULL, t, 1, NULL, NULL),
    (1, 'judy', 'offline', 'online', '{}', t, f, 2, t, NULL),
    (1, 'erin', 'push_online', 'offline', '{}', f, f + hour, 3, t, t - hour); -- retention has dropped what came before
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after) VALUES
    (1, 'alice', 'online', '{"ios": "online"}', f + hour, f + hour, 3, f + hour, f),
    (1, 'bob', 'online', '{}', f, f, 2, f, NULL),
    (1, 'dave', 'online', '{}', t, t, 1, t, NULL),
    (1, 'ivan', 'online', '{}', f, f, 2, f, t + hour),
    (1, 'judy', 'online', '{}', f, f, 2, f, t),
    (1, 'erin', 'offline', '{}', f + hour, f + hour, 3, f + hour, f);
INSERT INTO account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id) VALUES
    (1, 'alice', NULL, 'not_imported', NULL, t, 5),
    (1, 'alice', 'not_imported', 'imported', t, f, 6),
    (1, 'bob', NULL, 'imported', NULL, f, 6),
    (1, 'erin', 'imported', 'not_imported', t, f, 6),
    (1, 'frank', 'imported', 'removed', f, f + hour, 6);
INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES
    (1, 'alice', 'imported', f, f, 6), (1, 'bob', 'imported', f, f, 6), (1, 'erin', 'not_imported', f, f, 6);
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users) VALUES (1, 1, t, 'online', 'all', 2), (1, 2, f, 'online', 'all', 2);
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id) VALUES
    (1, 'presence', t - hour, t, t - 2 * hour, t + '1 min', 1), (1, 'presence', t + '1 min', f, t, f, 2);
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times, known_at) VALUES
    (1, 'presence', 'gina', '1', '', t, f, 2, t), (1, 'presence', 'hank', '1', '', f, f, 1, f);
INSERT INTO api_quota (app_id, api, rate, next_at, throttled_at, answered_at) VALUES (1, 'presence', 10, f, f, f), (1, 'accounts', 10, t, t, t);
INSERT INTO presence_rollup (app_id, zone, until_day, kept_from, seen_until, gaps, first_at)
VALUES (1, 'UTC', (f AT TIME ZONE 'UTC')::date - 1, t - 30 * 24 * hour, f, tstzmultirange(tstzrange(t - hour, t), tstzrange(t + '1 min', f)), t - 30 * 24 * hour);
INSERT INTO presence_day (app_id, user_id, day, online_seconds, sessions, first_online, last_online) VALUES
    (1, 'dave', (t AT TIME ZONE 'UTC')::date - 2, 1, 1, t - 48 * hour, t - 48 * hour),
    (1, 'dave', (t AT TIME ZONE 'UTC')::date, 1, 1, t, t),
    (1, 'dave', (f AT TIME ZONE 'UTC')::date - 1, 1, 1, f, f);
INSERT INTO river_job (kind, args, max_attempts, state, scheduled_at, created_at, finalized_at) VALUES
    ('syncer_range', '{}', 7, 'retryable', f, f, NULL), ('syncer_plan', '{}', 7, 'completed', f, f, f), ('syncer_plan', '{}', 7, 'completed', t, t, t);
INSERT INTO river_queue (name, created_at, updated_at) VALUES ('app1_presence', f, f);
INSERT INTO river_leader (elected_at, expires_at, leader_id) VALUES (f, f, 'p');
INSERT INTO river_notification (created_at, payload, topic) VALUES (f, '', 'x');
UPDATE app SET created_at = f;
END $$`

// futureSQL makes a statement that lists the columns of all tables that hold a time in
// the future.
const futureSQL = `
SELECT coalesce(string_agg(format('SELECT %L::text WHERE EXISTS (SELECT FROM %s WHERE %I::text::timestamptz > now() AND %I::text <> ''infinity'')',
    c.relname || '.' || a.attname, c.oid::regclass, a.attname, a.attname), ' UNION ALL ' ORDER BY 1), '') || ' ORDER BY 1'
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = 'syncer'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.atttypid IN ('timestamptz'::regtype, 'date'::regtype, 'timestamp'::regtype) AND a.attnum > 0 AND NOT a.attisdropped`

// TestRepairClock: after a repair no time in any table is in the future, and what was
// known before is known again.
func TestRepairClock(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "repair"})
	other := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "other"})
	_, err := store.RepairClock(t.Context(), true)
	wantErr(t, "RepairClock of nothing", err, repo.ErrNothingToRepair)
	exec(t, b.conn, `SELECT make_history_partitions('month', now(), now() + interval '1 month')`)
	exec(t, b.conn, `SELECT make_history_partitions('day', now() + interval '3 years', now() + interval '3 years 5 days')`)
	exec(t, b.conn, lateSQL)
	wantErr(t, "CheckClock before", other.CheckClock(t.Context()), pg.ErrClockBehind)
	wrong := lines(t, b.conn, value[string](t, b.conn, futureSQL))
	if len(wrong) < 25 {
		t.Errorf("only %d columns hold a time in the future: %s", len(wrong), wrong)
	}
	plan, err := store.RepairClock(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Connected) != 2 || plan.Connected[1] != "syncer other" { // and the bench's
		t.Errorf("connected are %q", plan.Connected)
	}
	wantLines(t, b.conn, "columns after looking", value[string](t, b.conn, futureSQL), wrong...)
	done, err := store.RepairClock(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Rows != done.Rows || plan.Runs != done.Runs || done.Rows != 11 || done.Runs != 4 || done.Restored != 7 || done.Forgotten != 2 || done.Partitions == 0 {
		t.Errorf("planned %+v, done %+v", plan, done)
	}
	wantLines(t, b.conn, "columns with a time in the future", value[string](t, b.conn, futureSQL))
	const since = `extract(epoch FROM since - (SELECT min(started_at) FROM sync_run))::int`
	wantLines(t, b.conn, "presence", `SELECT user_id, state::text, platforms::text, `+since+`, extract(epoch FROM changed_at - since)::int, asked_at <= changed_at FROM presence_snapshot ORDER BY user_id`,
		`alice online {"web": "online"} 0 60 true`, `carol offline {} 0 0 true`, `dave online {} 0 0 true`, `erin push_online {} 0 0 true`,
		`ivan push_online {} 0 0 true`, `judy offline {} 0 0 true`)
	wantLines(t, b.conn, "who was online before", `SELECT user_id, last_online_at = since, last_online_after = since_after FROM presence_snapshot WHERE last_online_at IS NOT NULL`, "ivan true true")
	wantLines(t, b.conn, "accounts", `SELECT user_id, status::text FROM account_snapshot ORDER BY user_id`, "alice not_imported", "erin imported")
	wantLines(t, b.conn, "runs", `SELECT run_id, status, complete FROM sync_run ORDER BY run_id`, "1 succeeded true", "2 cancelled false", "5 succeeded true", "6 cancelled false")
	wantLines(t, b.conn, "failures", `SELECT user_id, last_at = first_at FROM user_failure`, "gina true")
	wantLines(t, b.conn, "gaps", `SELECT run_id FROM observation_gap`, "1")
	wantLines(t, b.conn, "days", `SELECT count(*) FROM presence_day`, "1")
	wantLines(t, b.conn, "queues that are paused", `SELECT name FROM river_queue WHERE paused_at IS NOT NULL`)
	wantLines(t, b.conn, "jobs", `SELECT kind FROM river_job`, "syncer_plan")
	if err := store.CheckClock(t.Context()); err != nil {
		t.Errorf("CheckClock after: %v", err)
	}
	if err := store.RollUp(t.Context(), noon.Location(), noon); err != nil {
		t.Error(err)
	}
	_, err = store.RepairClock(t.Context(), true)
	wantErr(t, "a second RepairClock", err, repo.ErrNothingToRepair)
}
