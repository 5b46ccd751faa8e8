-- Three days of two apps, small enough to be added up by hand. All times are UTC.
-- It is read at 2026-10-27 00:00; Europe/Berlin sets its clocks back on
-- 2026-10-25 at 01:00 UTC.
BEGIN;
SET LOCAL search_path = syncer;
SET LOCAL timezone = 'UTC';

INSERT INTO app (name, provider, created_at) VALUES
    ('main', 'tencent', '2026-10-23 23:00Z'), ('chat', 'openim', '2026-10-23 23:00Z');

-- main is looked at every hour from 2026-10-24 00:00 on, for a minute, but for
-- 2026-10-25 from 06:00 to 12:00; the run of 06:00 fails. chat is looked at once.
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, changed, failed, calls, retries,
                      error, max_gap, observed_from, observed_until)
SELECT 1, 'presence', 'presence', 'cron', at, CASE WHEN failed THEN 'failed' ELSE 'succeeded' END, at, at + '1 min', NOT failed,
       CASE WHEN failed THEN 0 ELSE 4 END, 0, 0, 1, CASE WHEN failed THEN 5 ELSE 0 END,
       CASE WHEN failed THEN 'main: the API cannot be reached' END, '3 h', at, at + '1 min'
FROM generate_series('2026-10-24 00:00Z'::timestamptz, '2026-10-26 23:00Z', '1 h') AS at
CROSS JOIN LATERAL (SELECT at = '2026-10-25 06:00Z' AS failed) AS f
WHERE NOT (at > '2026-10-25 06:00Z' AND at < '2026-10-25 12:00Z');
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, changed, calls,
                      max_gap, observed_from, observed_until) VALUES
    (2, 'presence', 'presence', 'cron', '2026-10-26 22:00Z', 'partial', '2026-10-26 22:00Z', '2026-10-26 22:01Z', true, 2, 2, 1, '3 min', '2026-10-26 22:00Z', '2026-10-26 22:01Z'),
    (1, 'accounts', 'accounts', 'cron', '2026-10-24 00:00Z', 'succeeded', '2026-10-24 00:00Z', '2026-10-24 00:02Z', true, 4, 4, 1, '3 days', '2026-10-24 00:00Z', '2026-10-24 00:02Z'),
    (1, 'accounts', 'accounts', 'cron', '2026-10-25 00:00Z', 'succeeded', '2026-10-25 00:00Z', '2026-10-25 00:02Z', true, 4, 1, 1, '3 days', '2026-10-25 00:00Z', '2026-10-25 00:02Z'),
    (1, 'accounts', 'accounts', 'cron', '2026-10-26 00:00Z', 'partial', '2026-10-26 00:00Z', '2026-10-26 00:02Z', true, 4, 1, 1, '3 days', '2026-10-26 00:00Z', '2026-10-26 00:02Z');
UPDATE sync_run SET failed = 1 WHERE status = 'partial';
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id) VALUES
    (1, 'presence', '2026-10-25 05:01Z', '2026-10-25 12:00Z', '2026-10-25 05:00Z', '2026-10-25 12:01Z', 0);

-- Two users of main are online in the first half of each day, else one. Who is
-- has an iPhone; the other one a browser too.
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT u.app_id, u.run_id, u.finished_at, c.state::presence_state, c.platform, c.users
FROM sync_run AS u
CROSS JOIN LATERAL (SELECT extract(hour FROM u.started_at AT TIME ZONE 'UTC') < 12 AS early) AS e
CROSS JOIN LATERAL (VALUES
    ('online', 'all', CASE WHEN early THEN 2 ELSE 1 END), ('online', 'ios', CASE WHEN early THEN 2 ELSE 1 END),
    ('online', 'web', CASE WHEN early THEN 1 END), ('push_online', 'all', 1), ('offline', 'all', CASE WHEN early THEN 1 ELSE 2 END)
) AS c (state, platform, users)
WHERE u.app_id = 1 AND u.kind = 'presence' AND u.complete AND c.users IS NOT NULL;
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT 2, run_id, finished_at, 'offline', 'all', 2 FROM sync_run WHERE app_id = 2;

-- anna is online from 2026-10-24 00:00 on, through the gap, and still is. ben was
-- online on 24 and 26 October from 00:00 until between 11:00 and 12:00; the
-- tag in his id is his own. Of cleo and dirk only that they are not is known.
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after) VALUES
    (1, 'anna', 'online', '{"ios": "online", "web": "online"}', '2026-10-24 00:00:30Z', '2026-10-24 00:00:29Z', 1, '2026-10-24 00:00:30Z', NULL),
    (1, 'ben<b>', 'offline', '{}', '2026-10-26 12:00:30Z', '2026-10-26 12:00:29Z', 1, '2026-10-26 12:00:30Z', '2026-10-26 11:00:30Z'),
    (1, 'cleo', 'push_online', '{"ios": "push_online"}', '2026-10-24 00:00:30Z', '2026-10-24 00:00:29Z', 1, '2026-10-24 00:00:30Z', NULL),
    (1, 'dirk', 'offline', '{}', '2026-10-24 00:00:30Z', '2026-10-24 00:00:29Z', 1, '2026-10-24 00:00:30Z', NULL),
    (2, 'eve', 'offline', '{}', '2026-10-26 22:00:30Z', '2026-10-26 22:00:29Z', 1, '2026-10-26 22:00:30Z', NULL);
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after) VALUES
    (1, 'anna', NULL, 'online', '{"ios": "online", "web": "online"}', NULL, '2026-10-24 00:00:30Z', 1, NULL, NULL),
    (1, 'ben<b>', NULL, 'online', '{"ios": "online"}', NULL, '2026-10-24 00:00:30Z', 1, NULL, NULL),
    (1, 'ben<b>', 'online', 'offline', '{}', '2026-10-24 11:00:30Z', '2026-10-24 12:00:30Z', 1, '2026-10-24 00:00:30Z', NULL),
    (1, 'ben<b>', 'offline', 'online', '{"ios": "online"}', '2026-10-25 23:00:30Z', '2026-10-26 00:00:30Z', 1, '2026-10-24 12:00:30Z', '2026-10-24 11:00:30Z'),
    (1, 'ben<b>', 'online', 'offline', '{}', '2026-10-26 11:00:30Z', '2026-10-26 12:00:30Z', 1, '2026-10-26 00:00:30Z', '2026-10-25 23:00:30Z'),
    (1, 'cleo', NULL, 'push_online', '{"ios": "push_online"}', NULL, '2026-10-24 00:00:30Z', 1, NULL, NULL),
    (1, 'dirk', NULL, 'offline', '{}', NULL, '2026-10-24 00:00:30Z', 1, NULL, NULL),
    (2, 'eve', NULL, 'offline', '{}', NULL, '2026-10-26 22:00:30Z', 1, NULL, NULL);

-- Two are imported at first, cleo on the second day; dirk is taken back on the third.
INSERT INTO account_snapshot (app_id, user_id, status, changed_at, asked_at, run_id) VALUES
    (1, 'anna', 'imported', '2026-10-24 00:01Z', '2026-10-24 00:01Z', 1),
    (1, 'ben<b>', 'not_imported', '2026-10-24 00:01Z', '2026-10-24 00:01Z', 1),
    (1, 'cleo', 'imported', '2026-10-25 00:01Z', '2026-10-25 00:01Z', 1),
    (1, 'dirk', 'not_imported', '2026-10-26 00:01Z', '2026-10-26 00:01Z', 1);
INSERT INTO account_history (app_id, user_id, prev_status, status, not_before, observed_at, run_id) VALUES
    (1, 'anna', NULL, 'imported', NULL, '2026-10-24 00:01Z', 1),
    (1, 'ben<b>', NULL, 'not_imported', NULL, '2026-10-24 00:01Z', 1),
    (1, 'cleo', NULL, 'not_imported', NULL, '2026-10-24 00:01Z', 1),
    (1, 'dirk', NULL, 'imported', NULL, '2026-10-24 00:01Z', 1),
    (1, 'cleo', 'not_imported', 'imported', '2026-10-24 00:01Z', '2026-10-25 00:01Z', 1),
    (1, 'dirk', 'imported', 'not_imported', '2026-10-25 00:01Z', '2026-10-26 00:01Z', 1);
COMMIT;
