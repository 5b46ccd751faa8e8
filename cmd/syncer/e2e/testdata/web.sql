-- What the live page shows beside the week of report_week.sql: a second app whose API
-- does not answer at present, a running run, users who fail. All times are UTC; it is
-- read at 2026-10-25 21:40.
BEGIN;
SET LOCAL search_path = syncer;
SET LOCAL timezone = 'UTC';

-- The failed run of the week is the first one.
DELETE FROM sync_run WHERE status = 'failed';
INSERT INTO sync_run (run_id, app_id, job, kind, trigger, tick, status, started_at, finished_at, error, calls, retries, observed_from) OVERRIDING SYSTEM VALUE VALUES
    (0, 1, 'presence', 'presence', 'cron', '2026-10-22 13:10', 'failed', '2026-10-22 13:10', '2026-10-22 13:15', 'the API cannot be reached: connection refused', 30, 29, '2026-10-22 13:10');
UPDATE sync_run SET failed = 140 WHERE run_id = (SELECT max(run_id) FROM sync_run WHERE app_id = 1 AND kind = 'accounts');

INSERT INTO app (name, provider, created_at) VALUES ('chat', 'openim', '2026-10-19 00:00'), ('support', 'openim', '2026-10-25 00:00');

INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, changed, failed, calls, retries, max_gap, observed_from, observed_until)
SELECT 2, 'presence', 'presence', 'cron', at, CASE WHEN extract(hour FROM at) IN (3, 4) THEN 'partial' ELSE 'succeeded' END, at, at + '95 s', true, 48200, 2100,
       CASE WHEN extract(hour FROM at) IN (3, 4) THEN 12 ELSE 0 END, 482, 3, '45 min', at, at + '95 s'
FROM generate_series('2026-10-19 00:00'::timestamptz, '2026-10-25 20:45', '15 min') AS at
WHERE NOT (at > '2026-10-24 21:00' AND at < '2026-10-25 00:30');
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id)
SELECT 2, 'presence', l.observed_until, n.observed_from, l.observed_from, n.observed_until, n.run_id
FROM sync_run AS l, sync_run AS n
WHERE l.app_id = 2 AND l.started_at = '2026-10-24 21:00' AND n.app_id = 2 AND n.started_at = '2026-10-25 00:30';
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, observed_from)
SELECT 2, 'presence', 'presence', 'cron', at, 'skipped', at, at, at
FROM generate_series('2026-10-25 21:15'::timestamptz, '2026-10-25 21:30', '15 min') AS at;
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT 2, run_id, finished_at, c.state::presence_state, c.platform, (c.users * (1 + 0.6 * sin((extract(epoch FROM started_at) - 36000) / 13750.987)))::int
FROM sync_run
CROSS JOIN (VALUES ('online', 'all', 9000), ('online', 'android', 5200), ('online', 'ios', 3100), ('online', 'web', 900), ('online', 'windows', 400), ('push_online', 'all', 4000)) AS c (state, platform, users)
WHERE app_id = 2 AND complete;
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT 2, c.run_id, c.observed_at, 'offline', 'all', 48200 - sum(c.users)
FROM presence_count AS c
WHERE c.app_id = 2 AND c.platform = 'all'
GROUP BY c.run_id, c.observed_at;

INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, planned, users, observed_from) VALUES
    (2, 'presence', 'presence', 'cron', '2026-10-25 21:00', 'running', '2026-10-25 21:00', true, 0, '2026-10-25 21:00'),
    (1, 'presence', 'presence', 'cron', '2026-10-25 21:39:58', 'running', '2026-10-25 21:39:58', true, 0, '2026-10-25 21:39:58');
INSERT INTO sync_range (run_id, range_no, status, lower_key, upper_key, owner, beat_at, users, changed, calls, retries, attempt)
SELECT run_id, no, CASE WHEN no = 1 THEN 'done' ELSE 'running' END, CASE WHEN no > 1 THEN 'user1' END, CASE WHEN no = 1 THEN 'user1' END,
       CASE app_id WHEN 1 THEN 'sync-a-4021-J5KQ2M' ELSE 'sync-b-377-7WZPXA' END, '2026-10-25 21:39:57',
       CASE app_id WHEN 1 THEN 900 ELSE 11000 END, CASE app_id WHEN 1 THEN 31 ELSE 420 END, CASE app_id WHEN 1 THEN 2 ELSE 130 END, 20, 1
FROM sync_run, generate_series(1, 2) AS no
WHERE status = 'running';
INSERT INTO api_quota (app_id, api, rate, next_at, answered_at, failing_since, failing_error) VALUES
    (1, 'presence', 200, '2026-10-25 21:40', '2026-10-25 21:40', NULL, NULL), (1, 'accounts', 100, '2026-10-25 21:40', '2026-10-25 21:40', NULL, NULL),
    (2, 'presence', 300, '2026-10-25 21:40', '2026-10-25 21:03:10', '2026-10-25 21:03:11', 'Post "http://im.internal:10002/user/get_users_online_status": dial tcp: connection refused');
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times)
SELECT 1, 'accounts', 'user9' || lpad(n::text, 4, '0'), '70107', 'the account does not exist', '2026-10-21 00:00:20', '2026-10-25 00:00:20', 5 FROM generate_series(1, 140) AS n;
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times) VALUES
    (1, 'presence', '', 'null_id', '3 rows of the users table have no id', '2026-10-20 00:00:20', '2026-10-25 21:30:02', 900),
    (1, 'presence', 'user/with:odd<id>', 'invalid_id', 'the id has 41 bytes, more than 32', '2026-10-20 00:00:20', '2026-10-25 21:30:02', 900);
COMMIT;
