-- A week of 3,000 users of one app, with days and nights and a weekend, seen every
-- ten minutes but for an afternoon. Who is online when is computed from the
-- user's number and the day; all times are UTC. It is read at 2026-10-25 21:40.
BEGIN;
SET LOCAL search_path = syncer;
SET LOCAL timezone = 'UTC';

INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-19 00:00');

INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, calls, max_gap, observed_from, observed_until)
SELECT 1, 'presence', 'presence', 'cron', at, 'succeeded', at, at + took, true, 3000, 6, '30 min', at, at + took
FROM generate_series('2026-10-19 00:00'::timestamptz, '2026-10-25 21:30', '10 min') AS at
CROSS JOIN LATERAL (SELECT make_interval(secs => 4 + 2 * sin(extract(epoch FROM at) / 13750) + mod(extract(epoch FROM at) / 600, 7) / 5) AS took) AS t
WHERE NOT (at > '2026-10-22 13:00' AND at < '2026-10-22 17:30');
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, error, calls, retries, observed_from) VALUES
    (1, 'presence', 'presence', 'cron', '2026-10-22 13:10', 'failed', '2026-10-22 13:10', '2026-10-22 13:15', 'the API cannot be reached: connection refused', 30, 29, '2026-10-22 13:10');
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, changed, calls, max_gap, observed_from, observed_until)
SELECT 1, 'accounts', 'accounts', 'cron', at, 'succeeded', at, at + '31 s', true, 3000, 0, 30, '3 days', at, at + '31 s'
FROM generate_series('2026-10-19 00:00'::timestamptz, '2026-10-25 00:00', '1 day') AS at;
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id)
SELECT 1, 'presence', l.observed_until, n.observed_from, l.observed_from, n.observed_until, n.run_id
FROM sync_run AS l, sync_run AS n
WHERE l.kind = 'presence' AND l.started_at = '2026-10-22 13:00' AND n.kind = 'presence' AND n.started_at = '2026-10-22 17:30';

-- Each user can be online in a morning and in an evening. A share is a number
-- from 0 to 1 that looks like chance.
CREATE TEMP TABLE stretch ON COMMIT DROP AS
WITH share AS (
    SELECT n, day, half, i, (hashint8(n * 1000003::bigint + day * 7919 + half * 104729 + i * 15485863) & 1048575) / 1048575.0 AS value
    FROM generate_series(1, 3000) AS n, generate_series(0, 6) AS day, generate_series(0, 1) AS half, generate_series(1, 4) AS i
), habit AS (
    SELECT n, day, half, max(value) FILTER (WHERE i = 1) AS comes, max(value) FILTER (WHERE i = 2) AS a,
           max(value) FILTER (WHERE i = 3) AS b, max(value) FILTER (WHERE i = 4) AS stays
    FROM share
    GROUP BY n, day, half
), online AS (
    SELECT n, '2026-10-19'::timestamptz + make_interval(days => day, secs => at) AS began, make_interval(secs => least(lasted, room - at)) AS lasted
    FROM habit
    CROSS JOIN LATERAL (
        SELECT 3600 * CASE half WHEN 0 THEN 5.5 + 4.5 * (a + b) ELSE 15.2 + 4 * (a + b) END AS at,
               900 + 13000 * stays * stays AS lasted, 3600 * CASE half WHEN 0 THEN 15.1 ELSE 29 END AS room
    ) AS t
    WHERE comes < CASE WHEN day IN (5, 6) THEN 0.35 ELSE 0.5 END + 0.2 * half - 0.1 * (n % 3)
), run AS (
    SELECT array_agg(started_at ORDER BY started_at) AS at FROM sync_run WHERE kind = 'presence' AND complete
), seen AS (
    SELECT o.n, width_bucket(o.began, r.at) AS from_no, width_bucket(o.began + o.lasted, r.at) AS to_no
    FROM online AS o, run AS r
)
SELECT 'user' || lpad(n::text, 5, '0') AS user_id, from_no + 1 AS first_no, to_no AS last_no,
       at[from_no] AS began_after, at[from_no + 1] + '2 s' AS began_by, at[to_no] + '2 s' AS ended_after, at[to_no + 1] + '2 s' AS ended_by,
       CASE WHEN n % 20 < 9 THEN '{"ios": "online"}' WHEN n % 20 < 15 THEN '{"android": "online"}' WHEN n % 20 < 17 THEN '{"ios": "online", "web": "online"}'
            WHEN n % 20 < 18 THEN '{"web": "online"}' WHEN n % 20 < 19 THEN '{"windows": "online", "android": "online"}' ELSE '{"windows": "online"}' END::jsonb AS platforms
FROM seen, run
WHERE from_no < to_no; -- nobody looked in shorter ones

INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after)
SELECT 1, user_id, 'offline', 'online', platforms, began_after, began_by, 1, began_after, NULL FROM stretch;
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after)
SELECT 1, user_id, 'online', 'offline', '{}', ended_after, ended_by, 1, began_by, began_after FROM stretch WHERE ended_by IS NOT NULL
ON CONFLICT DO NOTHING;
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after)
SELECT 1, user_id, 'online', platforms, began_by, began_by - interval '1 s', 1, began_by, began_after FROM stretch WHERE ended_by IS NULL;
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since)
SELECT 1, 'user' || lpad(n::text, 5, '0'), 'offline', '{}', '2026-10-19 00:00:02', '2026-10-19 00:00:01', 1, '2026-10-19 00:00:02'
FROM generate_series(1, 3000) AS n
ON CONFLICT DO NOTHING;

WITH run AS (
    SELECT run_id, finished_at, row_number() OVER (ORDER BY started_at) AS no FROM sync_run WHERE kind = 'presence' AND complete
), online AS (
    SELECT no, platforms FROM stretch CROSS JOIN LATERAL generate_series(first_no, last_no) AS no
), counted AS (
    SELECT no, platform, count(*) AS users
    FROM online
    CROSS JOIN LATERAL (SELECT 'all' AS platform UNION ALL SELECT jsonb_object_keys(platforms)) AS p
    GROUP BY no, platform
)
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT 1, run_id, finished_at, 'online'::presence_state, platform, users
FROM run
JOIN counted USING (no)
UNION ALL
SELECT 1, run_id, finished_at, 'offline', 'all', 3000 - coalesce(users, 0)
FROM run
LEFT JOIN counted ON counted.no = run.no AND platform = 'all';

INSERT INTO account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
SELECT 1, 'user' || lpad(n::text, 5, '0'), NULL, CASE WHEN n % 10 < 7 THEN 'imported' ELSE 'not_imported' END::account_status, NULL, '2026-10-19 00:00:10', 1
FROM generate_series(1, 3000) AS n;
INSERT INTO account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
SELECT 1, user_id, status, 'imported', '2026-10-19 00:00:10', '2026-10-19 00:00:10'::timestamptz + make_interval(days => 1 + hashtext(user_id) & 7), 1
FROM account_history
WHERE status = 'not_imported' AND 1 + hashtext(user_id) & 7 BETWEEN 1 AND 6;
INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id)
SELECT DISTINCT ON (user_id) 1, user_id, status, observed_at, observed_at, 1
FROM account_history
ORDER BY user_id, observed_at DESC;
COMMIT;
ANALYZE;
