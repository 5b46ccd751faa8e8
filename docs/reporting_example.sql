-- The example of reporting.md: seven users of one app and one of another, looked
-- at every full hour, in March 2026. Small enough to check by hand.
--
-- Looks take no time here: a user seen in a state at 9:00 and not at 8:00 came
-- into it at some time after 8:00 and no later than 9:00, at 8:30 by estimate.

-- psql -f docs/reporting_example.sql, on a migrated schema that is still empty.
SET search_path TO syncer; -- [database] schema

INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-03-01'), ('chat', 'openim', '2026-03-01');

-- Presence runs every hour from Monday, 2 March, to Monday, 30 March, 0:00. Nobody
-- looked at main on the 10th between 10:00 and 20:00; chat is looked at no more
-- since the 29th, 12:00. Accounts are checked at midnight.
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, observed_from, observed_until, finished_at, max_gap, complete)
SELECT app_id, 'presence', 'presence', 'cron', tick, 'succeeded', tick, tick, tick, tick, '3 hours', true
FROM app
CROSS JOIN generate_series('2026-03-02 00:00+00'::timestamptz, '2026-03-30 00:00+00', '1 hour') AS tick
WHERE NOT (name = 'main' AND tick > '2026-03-10 10:00+00' AND tick < '2026-03-10 20:00+00')
  AND NOT (name = 'chat' AND tick > '2026-03-29 12:00+00')
ORDER BY tick;
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, observed_from, observed_until, finished_at, max_gap, complete)
SELECT app_id, 'accounts', 'accounts', 'cron', tick, 'succeeded', tick, tick, tick, tick, '3 days', true
FROM app
CROSS JOIN generate_series('2026-03-02 00:00+00'::timestamptz, '2026-03-30 00:00+00', '1 day') AS tick
ORDER BY tick;
INSERT INTO observation_gap
SELECT r.app_id, r.kind, '2026-03-10 10:00+00', r.started_at, '2026-03-10 10:00+00', r.observed_until, r.run_id
FROM sync_run AS r
JOIN app USING (app_id)
WHERE name = 'main' AND kind = 'presence' AND started_at = '2026-03-10 20:00+00';

-- What was seen: each row is a change.
CREATE TEMPORARY TABLE seen (app text, user_id text, at timestamptz, state presence_state, platforms jsonb);
INSERT INTO seen VALUES
    ('main', 'ann', '2026-03-02 00:00+00', 'offline', '{}'),
    ('main', 'ann', '2026-03-02 09:00+00', 'online', '{"ios": "online"}'),
    ('main', 'ann', '2026-03-02 12:00+00', 'online', '{"ios": "online", "web": "online"}'),
    ('main', 'ann', '2026-03-02 17:00+00', 'offline', '{}'),
    ('main', 'ann', '2026-03-03 09:00+00', 'online', '{"web": "online"}'),
    ('main', 'ann', '2026-03-03 17:00+00', 'offline', '{}'),
    ('main', 'ann', '2026-03-10 09:00+00', 'online', '{"ios": "online"}'), -- and over the gap
    ('main', 'ann', '2026-03-10 22:00+00', 'offline', '{}'),
    ('main', 'ann', '2026-03-29 00:00+00', 'online', '{"ios": "online"}'), -- the night in which Berlin's clocks go forward
    ('main', 'ann', '2026-03-29 04:00+00', 'offline', '{}'),
    ('main', 'bob', '2026-03-02 00:00+00', 'online', '{"android": "online"}'),
    ('main', 'bob', '2026-03-02 06:00+00', 'push_online', '{"android": "push_online"}'),
    ('main', 'bob', '2026-03-09 20:00+00', 'online', '{"android": "online"}'),
    ('main', 'bob', '2026-03-10 20:00+00', 'offline', '{}'), -- at some time in the gap
    ('main', 'bob', '2026-03-29 22:00+00', 'online', '{"android": "online"}'), -- still
    ('main', 'cho', '2026-03-02 00:00+00', 'offline', '{}'),
    ('main', 'dan', '2026-03-16 00:00+00', 'offline', '{}'), -- new in the users table
    ('main', 'dan', '2026-03-16 09:00+00', 'online', '{"windows": "online"}'),
    ('main', 'dan', '2026-03-16 11:00+00', 'offline', '{}'),
    ('main', 'dan', '2026-03-23 09:00+00', 'online', '{"android": "online"}'),
    ('main', 'dan', '2026-03-23 10:00+00', 'push_online', '{"android": "push_online"}'),
    ('main', 'eve', '2026-03-02 00:00+00', 'online', '{"web": "online"}'),
    ('main', 'eve', '2026-03-02 02:00+00', 'offline', '{}'),
    ('main', 'eve', '2026-03-05 00:00+00', 'removed', '{}'), -- left the users table
    ('main', 'fay', '2026-03-02 00:00+00', 'offline', '{}'),
    ('main', 'fay', '2026-03-17 00:00+00', 'rejected', '{}'), -- by the API, for longer than max_gap
    ('main', 'fay', '2026-03-18 00:00+00', 'offline', '{}'),
    ('chat', 'zed', '2026-03-02 00:00+00', 'offline', '{}'),
    ('chat', 'zed', '2026-03-28 10:00+00', 'online', '{"ios": "online", "windows": "online"}'); -- still, as far as one knows

-- A change happened after the look before the one that saw it.
CREATE TEMPORARY TABLE changed AS
SELECT r.app_id, s.user_id, s.at AS observed_at, s.state, s.platforms, r.run_id,
       nullif(lag(s.state) OVER before, 'rejected') AS prev_state, -- a user who was rejected starts anew
       CASE WHEN nullif(lag(s.state) OVER before, 'rejected') IS NOT NULL THEN (
           SELECT max(started_at) FROM sync_run AS p WHERE p.app_id = r.app_id AND p.kind = 'presence' AND p.started_at < s.at
       ) END AS not_before
FROM seen AS s
JOIN app AS a ON a.name = s.app
JOIN sync_run AS r ON r.app_id = a.app_id AND r.kind = 'presence' AND r.started_at = s.at
WINDOW before AS (PARTITION BY s.app, s.user_id ORDER BY s.at);

INSERT INTO presence_history (app_id, user_id, prev_state, prev_since, prev_since_after, state, platforms, not_before, observed_at, run_id)
SELECT c.app_id, c.user_id, c.prev_state, b.observed_at, b.not_before, c.state, c.platforms, c.not_before, c.observed_at, c.run_id
FROM changed AS c
LEFT JOIN LATERAL (
    SELECT observed_at, not_before
    FROM changed AS b
    WHERE b.app_id = c.app_id AND b.user_id = c.user_id AND b.observed_at < c.observed_at AND b.prev_state IS DISTINCT FROM b.state
    ORDER BY b.observed_at DESC
    LIMIT 1
) AS b ON c.prev_state IS NOT NULL;

INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after, last_online_after, last_online_at)
SELECT DISTINCT ON (c.app_id, c.user_id) c.app_id, c.user_id, c.state, c.platforms, c.observed_at, c.observed_at, c.run_id, b.observed_at, b.not_before,
       o.not_before, o.observed_at
FROM changed AS c
JOIN changed AS b ON b.app_id = c.app_id AND b.user_id = c.user_id AND b.observed_at <= c.observed_at AND b.prev_state IS DISTINCT FROM b.state
LEFT JOIN LATERAL (
    SELECT not_before, observed_at
    FROM changed AS o
    WHERE o.app_id = c.app_id AND o.user_id = c.user_id AND o.prev_state = 'online' AND o.state <> 'online' AND c.state <> 'online'
    ORDER BY o.observed_at DESC
    LIMIT 1
) AS o ON true
WHERE c.user_id <> 'eve'
ORDER BY c.app_id, c.user_id, c.observed_at DESC, b.observed_at DESC;

INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT r.app_id, r.run_id, r.started_at, p.state, p.platform, count(*)
FROM sync_run AS r
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (c.user_id) c.state, c.platforms
    FROM changed AS c
    WHERE c.app_id = r.app_id AND c.observed_at <= r.started_at
    ORDER BY c.user_id, c.observed_at DESC
) AS now_seen
CROSS JOIN LATERAL (
    SELECT 'all' AS platform, now_seen.state UNION ALL
    SELECT m.key, CASE m.value WHEN 'push_online' THEN presence_state 'push_online' ELSE 'online' END FROM jsonb_each_text(now_seen.platforms) AS m
) AS p
WHERE r.kind = 'presence' AND now_seen.state NOT IN ('removed', 'rejected')
GROUP BY r.app_id, r.run_id, r.started_at, p.state, p.platform;
UPDATE sync_run AS r
SET users = c.users
FROM (SELECT run_id, sum(users) AS users FROM presence_count WHERE platform = 'all' GROUP BY run_id) AS c
WHERE c.run_id = r.run_id;

-- Accounts: fay was never imported, bob a day late; gus is rejected by the API.
INSERT INTO account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id)
SELECT a.app_id, h.user_id, h.prev_status::account_status, h.status::account_status, h.not_before::timestamptz, h.observed_at::timestamptz, r.run_id
FROM (VALUES
    ('main', 'ann', NULL, 'imported', NULL, '2026-03-02 00:00+00'),
    ('main', 'bob', NULL, 'not_imported', NULL, '2026-03-02 00:00+00'),
    ('main', 'bob', 'not_imported', 'imported', '2026-03-02 00:00+00', '2026-03-03 00:00+00'),
    ('main', 'cho', NULL, 'imported', NULL, '2026-03-02 00:00+00'),
    ('main', 'dan', NULL, 'imported', NULL, '2026-03-16 00:00+00'),
    ('main', 'eve', NULL, 'imported', NULL, '2026-03-02 00:00+00'),
    ('main', 'eve', 'imported', 'removed', '2026-03-04 00:00+00', '2026-03-05 00:00+00'),
    ('main', 'fay', NULL, 'not_imported', NULL, '2026-03-02 00:00+00'),
    ('chat', 'zed', NULL, 'imported', NULL, '2026-03-02 00:00+00')
) AS h (app, user_id, prev_status, status, not_before, observed_at)
JOIN app AS a ON a.name = h.app
JOIN sync_run AS r ON r.app_id = a.app_id AND r.kind = 'accounts' AND r.started_at = h.observed_at::timestamptz;
INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id)
SELECT DISTINCT ON (app_id, user_id) app_id, user_id, status, observed_at, observed_at, run_id
FROM account_history
WHERE user_id <> 'eve'
ORDER BY app_id, user_id, observed_at DESC;
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times)
SELECT app_id, kind, 'gus', '70107', 'the account does not exist', '2026-03-28 00:00+00', '2026-03-30 00:00+00', times
FROM app
CROSS JOIN (VALUES ('presence', 49), ('accounts', 3)) AS f (kind, times)
WHERE name = 'main';

-- Your own table, for the chapter "With your own columns": what [users] names. eve has left it.
CREATE TABLE public.customers (id bigint PRIMARY KEY, im_id text NOT NULL, country text NOT NULL, plan text NOT NULL, campaign text NOT NULL, signed_up date NOT NULL);
INSERT INTO public.customers VALUES
    (1, 'ann', 'DE', 'pro', 'spring', '2026-02-20'),
    (2, 'bob', 'FR', 'free', 'winter', '2026-02-25'),
    (3, 'cho', 'DE', 'free', 'spring', '2026-03-01'),
    (4, 'dan', 'FR', 'pro', 'spring', '2026-03-15'),
    (6, 'fay', 'US', 'free', 'winter', '2026-02-10'),
    (7, 'gus', 'US', 'free', 'spring', '2026-03-20');
