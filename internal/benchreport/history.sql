-- A realistic history to measure reports on: one app, swept every minute until
-- 2026-03-30 12:00 UTC, with two gaps. Run it with the schema as search_path, in an
-- empty schema that is migrated; the settings say how large it gets:
--
--   SET bench.users = '50000';  SET bench.days = '30';
--
-- About nine transitions a user and day. Everything follows from hashes, so that each
-- run makes the same rows. App and time are those of docs/reporting_example.sql, so that
-- the questions of docs/reporting.md can be asked as they are. Set syncer.as_of to
-- '2026-03-30 12:01+00' to report on it.

SET timezone = 'UTC';

INSERT INTO app (name, provider, created_at)
VALUES ('main', 'tencent', timestamptz '2026-03-30 12:00+00' - current_setting('bench.days')::int * interval '1 day');

-- random(user, salt): from 0 up to 1, the same each time.
CREATE FUNCTION pg_temp.random(n bigint, salt bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashint8extended(n, salt) & 9007199254740991) / 9007199254740992.0::double precision;

CREATE TEMP TABLE bench_span AS
SELECT timestamptz '2026-03-30 12:00+00' - current_setting('bench.days')::int * interval '1 day' AS begins,
       timestamptz '2026-03-30 12:00+00' AS ends,
       current_setting('bench.users')::int AS users;

CREATE TEMP TABLE bench_gap AS
SELECT begins + interval '4 days 14 hours' AS started_at, begins + interval '4 days 17 hours 30 minutes' AS ended_at FROM bench_span
UNION ALL
SELECT ends - interval '3 days 1 hour', ends - interval '2 days 23 hours 50 minutes' FROM bench_span;

-- A run looks for 20 seconds, so that each user has a second of it.
CREATE TEMP TABLE bench_user AS
SELECT n, 'user' || lpad(n::text, 8, '0') AS user_id,
       pg_temp.random(n, 1) * interval '20 seconds' AS late,
       pg_temp.random(n, 2) AS eager, -- from hardly ever to daily
       CASE WHEN pg_temp.random(n, 3) < 0.7 THEN s.begins
            ELSE date_trunc('minute', s.begins + pg_temp.random(n, 4) * (s.ends - s.begins - interval '1 hour')) END AS joined,
       (ARRAY['ios', 'android', 'web', 'windows'])[1 + (pg_temp.random(n, 5) * 4)::int % 4] AS device
FROM bench_span AS s
CROSS JOIN LATERAL generate_series(1, s.users) AS n;
ANALYZE bench_user;

INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, max_gap, observed_from, observed_until)
SELECT a.app_id, 'presence', 'presence', 'cron', tick, 'succeeded', tick, tick + interval '20 seconds', true, s.users, '3 minutes', tick, tick + interval '20 seconds'
FROM app AS a, bench_span AS s, generate_series(s.begins, s.ends, '1 minute') AS tick
WHERE NOT EXISTS (SELECT FROM bench_gap AS g WHERE tick >= g.started_at AND tick < g.ended_at);

INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, max_gap, observed_from, observed_until)
SELECT a.app_id, 'accounts', 'accounts', 'cron', tick, 'succeeded', tick, tick + interval '2 minutes', true, s.users, '3 days', tick, tick + interval '2 minutes'
FROM app AS a, bench_span AS s, generate_series(date_trunc('day', s.begins) + interval '1 day', s.ends, '1 day') AS tick;

INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id)
SELECT a.app_id, 'presence', g.started_at - interval '40 seconds', g.ended_at, g.started_at - interval '1 minute', g.ended_at + interval '20 seconds', 1
FROM app AS a, bench_gap AS g;

SELECT make_history_partitions('month', begins, ends + interval '1 day') FROM bench_span;

-- Changes as they happen: each user has five times of the day, and is online in
-- some of them, for minutes or hours, fewer at weekends; a few stay on for longer.
CREATE TEMP TABLE bench_look AS
SELECT v.n, c.state, c.devices, look.observed_at, look.not_before, c.at
FROM (
    SELECT u.n, u.late, u.joined, visit, s.ends, v.seed, v.starts, (1 + 99 * pg_temp.random(v.seed, 8) ^ 3) * interval '1 minute' AS lasts,
           CASE WHEN pg_temp.random(v.seed, 9) < 0.5 THEN 'push_online'::presence_state ELSE 'offline' END AS after
    FROM bench_span AS s
    CROSS JOIN LATERAL generate_series(date_trunc('day', s.begins), s.ends, '1 day') WITH ORDINALITY AS day (begins, no)
    CROSS JOIN bench_user AS u
    CROSS JOIN generate_series(1, 5) AS visit
    CROSS JOIN LATERAL (SELECT (u.n * 1000 + day.no) * 5 + visit AS seed) AS x
    CROSS JOIN LATERAL (
        SELECT x.seed, day.begins + ((ARRAY[6, 9.5, 13, 16.5, 20])[visit] + pg_temp.random(u.n * 5 + visit, 6) + 0.5 * pg_temp.random(x.seed, 7)) * interval '1 hour' AS starts
    ) AS v
    WHERE pg_temp.random(x.seed, 10) < (0.35 + 0.6 * u.eager) * CASE WHEN extract(isodow FROM day.begins) > 5 THEN 0.7 ELSE 1 END
    OFFSET 0 -- each random number once
) AS v
CROSS JOIN LATERAL (VALUES
    (v.starts, 'online'::presence_state, 1),
    (v.starts + v.lasts * 0.3, 'online', 2),
    (v.starts + v.lasts * 0.6, 'online', 1),
    (v.starts + v.lasts, v.after, 0)
) AS c (at, state, devices)
CROSS JOIN LATERAL (SELECT date_trunc('minute', c.at - v.late) + interval '1 minute' AS tick OFFSET 0) AS t
LEFT JOIN bench_gap AS g ON t.tick >= g.started_at AND t.tick < g.ended_at
CROSS JOIN LATERAL (
    SELECT coalesce(g.ended_at, t.tick) + v.late AS observed_at, coalesce(g.started_at, t.tick) - interval '1 minute' AS not_before
) AS look
WHERE NOT (c.state <> 'online' AND pg_temp.random(v.seed, 11) < 0.01)
  AND c.at > v.joined + interval '2 minutes' AND look.observed_at < v.ends;

INSERT INTO bench_look (n, state, devices, observed_at, not_before, at)
SELECT n, 'offline', 0, joined + late, NULL, joined FROM bench_user;

CREATE TEMP TABLE bench_change AS
WITH looked AS ( -- the last change before each look is what it saw
    SELECT DISTINCT ON (n, observed_at) * FROM bench_look ORDER BY n, observed_at, at DESC
), changed AS (
    SELECT l.*, lag(state) OVER w AS prev_state, lag(devices) OVER w AS prev_devices
    FROM looked AS l WINDOW w AS (PARTITION BY n ORDER BY observed_at)
), turned AS (
    SELECT c.*, max(CASE WHEN prev_state IS DISTINCT FROM state THEN observed_at END) OVER w AS since
    FROM changed AS c
    WHERE prev_state IS DISTINCT FROM state OR prev_devices <> devices
    WINDOW w AS (PARTITION BY n ORDER BY observed_at)
), stretch AS (
    SELECT t.*, max(CASE WHEN since = observed_at THEN not_before END) OVER (PARTITION BY n, since) AS since_after
    FROM turned AS t
)
SELECT n, prev_state, state, devices,
       CASE WHEN prev_state IS NOT NULL THEN not_before END AS not_before, observed_at,
       lag(since) OVER w AS prev_since, lag(since_after) OVER w AS prev_since_after, since, since_after,
       max(CASE WHEN prev_state = 'online' AND state <> 'online' THEN not_before END) OVER w AS last_online_after,
       max(CASE WHEN prev_state = 'online' AND state <> 'online' THEN observed_at END) OVER w AS last_online_at,
       lead(observed_at) OVER w AS next_at
FROM stretch
WINDOW w AS (PARTITION BY n ORDER BY observed_at);

DROP TABLE bench_look;
ANALYZE bench_change;

CREATE TEMP TABLE bench_platforms AS
SELECT device, devices, state, jsonb_build_object(device, state) || CASE WHEN devices > 1 THEN '{"macos": "online"}' ELSE '{}' END::jsonb AS platforms
FROM (SELECT DISTINCT device FROM bench_user) AS u
CROSS JOIN (VALUES (1, 'online'::presence_state), (2, 'online'), (0, 'push_online')) AS s (devices, state)
UNION ALL
SELECT DISTINCT device, 0, 'offline'::presence_state, '{}'::jsonb FROM bench_user;

-- The primary key is made afterwards, and as full as one that grew row by row.
ALTER TABLE presence_history DROP CONSTRAINT presence_history_pkey;

INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after)
SELECT a.app_id, u.user_id, c.prev_state, c.state, p.platforms, c.not_before, c.observed_at, 1, c.prev_since, c.prev_since_after
FROM app AS a, bench_change AS c
JOIN bench_user AS u USING (n)
JOIN bench_platforms AS p USING (device, devices, state)
ORDER BY c.observed_at;

ALTER TABLE presence_history ADD CONSTRAINT presence_history_pkey PRIMARY KEY (app_id, user_id, observed_at) WITH (fillfactor = 70);

INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after, last_online_after, last_online_at)
SELECT a.app_id, u.user_id, c.state, p.platforms, c.observed_at, c.observed_at, 1, c.since, c.since_after,
       CASE WHEN c.state <> 'online' THEN c.last_online_after END, CASE WHEN c.state <> 'online' THEN c.last_online_at END
FROM app AS a, bench_change AS c
JOIN bench_user AS u USING (n)
JOIN bench_platforms AS p USING (device, devices, state)
WHERE c.next_at IS NULL;

-- What each run counts follows from the changes up to it.
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
WITH step AS (
    SELECT date_trunc('minute', c.observed_at) AS tick, v.state, sum(v.change) AS change
    FROM bench_change AS c
    CROSS JOIN LATERAL (VALUES (c.state, 1), (c.prev_state, -1)) AS v (state, change)
    WHERE v.state IS NOT NULL
    GROUP BY 1, 2
), counted AS (
    SELECT u.app_id, u.run_id, u.finished_at, st.state,
           sum(coalesce(s.change, 0)) OVER (PARTITION BY st.state ORDER BY u.tick) AS users
    FROM sync_run AS u
    CROSS JOIN (VALUES ('online'::presence_state), ('push_online'), ('offline')) AS st (state)
    LEFT JOIN step AS s ON s.tick = u.tick AND s.state = st.state
    WHERE u.kind = 'presence'
)
SELECT c.app_id, c.run_id, c.finished_at, c.state, p.platform, round(c.users * p.share)
FROM counted AS c
JOIN (VALUES ('all', 1.0), ('ios', 0.25), ('android', 0.25), ('web', 0.25), ('windows', 0.25), ('macos', 0.3)) AS p (platform, share)
    ON p.platform = 'all' OR c.state = 'online';

DROP TABLE bench_change;

INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id)
SELECT a.app_id, u.user_id, CASE WHEN pg_temp.random(u.n, 12) < 0.92 THEN 'imported'::account_status ELSE 'not_imported' END, u.joined + interval '1 day', u.joined + interval '1 day', 1
FROM app AS a, bench_user AS u, bench_span AS s
WHERE u.joined < s.ends - interval '1 day';

INSERT INTO account_history (app_id, user_id, status, observed_at, run_id)
SELECT app_id, user_id, status, changed_at, 1 FROM account_snapshot ORDER BY changed_at;

INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times, known_at)
SELECT a.app_id, 'presence', u.user_id, '70107', 'the account does not exist', s.ends - interval '90 seconds', s.ends, 2, s.ends - interval '2 minutes'
FROM app AS a, bench_user AS u, bench_span AS s
WHERE u.n % 1000 = 0;

-- The users table, with columns of the customer's.
CREATE TABLE public.customers AS
SELECT n AS id, user_id AS im_id, (ARRAY['DE', 'FR', 'US', 'JP'])[1 + n % 4] AS country, CASE WHEN n % 10 = 0 THEN 'pro' ELSE 'free' END AS plan,
       CASE WHEN n % 3 = 0 THEN 'spring' ELSE 'winter' END AS campaign, (joined - pg_temp.random(n, 13) * interval '20 days')::date AS signed_up
FROM bench_user;
ALTER TABLE public.customers ADD PRIMARY KEY (id);
-- What syncer users-view makes.
CREATE VIEW app_user AS SELECT 'main'::text AS app, id AS key, im_id::text COLLATE "C" AS user_id FROM public.customers;

ANALYZE;
