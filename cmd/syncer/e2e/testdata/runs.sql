-- What comes after report.sql, read at 2026-10-27 00:00 UTC: runs of chat of every
-- sort, numbered from 72 on, and users about whom there is something to explain.
BEGIN;
SET LOCAL search_path = syncer;
SET LOCAL timezone = 'UTC';

INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, users, changed, failed, removed, calls, retries,
                      suspect_pages, rejected_answers, suspect, error, planned, prev_complete_at, max_gap, observed_from, observed_until) VALUES
    (2, 'presence', 'presence', 'cron', '2026-10-26 23:00Z', 'partial', '2026-10-26 23:00Z', '2026-10-26 23:01Z', true, 6, 3, 2, 1, 3, 0,
     0, 0, false, NULL, true, '2026-10-26 22:00Z', '3 min', '2026-10-26 23:00Z', '2026-10-26 23:01Z'),
    (2, 'presence', 'presence', 'cron', '2026-10-26 23:30Z', 'partial', '2026-10-26 23:30Z', '2026-10-26 23:33Z', false, 6, 0, 6, 0, 3, 0,
     2, 4, false, 'suspect answers about 4 users were rejected: 4 of 4 users online went offline at once; the users keep their last known value', true,
     '2026-10-26 23:00Z', '3 min', '2026-10-26 23:30Z', '2026-10-26 23:33Z'),
    (2, 'presence', 'presence', 'cron', '2026-10-26 23:40Z', 'failed', '2026-10-26 23:40Z', '2026-10-26 23:45Z', false, 2, 0, 0, 0, 14, 10,
     0, 0, false, 'openim get_users_online_status: HTTP 503 Service Unavailable', true,
     '2026-10-26 23:00Z', '3 min', '2026-10-26 23:40Z', '2026-10-26 23:41Z'),
    (2, 'presence', 'presence', 'cron', '2026-10-26 23:42Z', 'skipped', '2026-10-26 23:42Z', '2026-10-26 23:42Z', false, 0, 0, 0, 0, 0, 0,
     0, 0, false, NULL, false, NULL, '3 min', '2026-10-26 23:42Z', NULL),
    (2, 'backfill', 'presence', 'backfill', NULL, 'running', '2026-10-26 23:58Z', NULL, false, 0, 0, 0, 0, 0, 0,
     0, 0, true, NULL, false, '2026-10-26 23:00Z', '3 min', '2026-10-26 23:58Z', NULL);
INSERT INTO sync_range (run_id, range_no, status, lower_key, upper_key, cursor_key, attempt, owner, beat_at, users, changed, calls, retries,
                        suspect_answers, recheck_after, suspect_pages, error) VALUES
    (74, 1, 'done', NULL, '2', '2', 1, 'host-1', NULL, 2, 0, 1, 0, 0, NULL, 0, NULL),
    (74, 2, 'failed', '2', '4', NULL, 6, 'host-1', NULL, 0, 0, 12, 10, 0, NULL, 0, 'openim get_users_online_status: HTTP 503 Service Unavailable'),
    (74, 3, 'pending', '4', NULL, NULL, 1, 'host-2', NULL, 0, 0, 1, 0, 0, NULL, 0, 'openim get_users_online_status: HTTP 503 Service Unavailable'),
    (76, 1, 'done', NULL, '2', '2', 1, 'host-2', NULL, 2, 1, 1, 0, 0, NULL, 1, NULL),
    (76, 2, 'running', '2', '4', NULL, 1, 'host-2', '2026-10-26 23:59Z', 1, 0, 1, 0, 0, NULL, 0, NULL),
    (76, 3, 'pending', '1', '2', NULL, 0, NULL, NULL, 0, 0, 0, 0, 1, '2026-10-27 00:00:20Z', 0, NULL);
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id) VALUES
    (2, 'presence', '2026-10-26 22:01Z', '2026-10-26 23:00Z', '2026-10-26 22:00Z', '2026-10-26 23:01Z', 72);
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users) VALUES
    (2, 72, '2026-10-26 23:01Z', 'online', 'all', 3), (2, 72, '2026-10-26 23:01Z', 'online', 'web', 3), (2, 72, '2026-10-26 23:01Z', 'offline', 'all', 1);

-- frank has left, gerd is rejected for too long, and eve, who is online, is contradicted.
UPDATE presence_snapshot SET state = 'online', platforms = '{"web": "online"}' WHERE app_id = 2 AND user_id = 'eve';
UPDATE presence_history SET state = 'online', platforms = '{"web": "online"}' WHERE app_id = 2 AND user_id = 'eve';
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after) VALUES
    (2, 'frank', NULL, 'online', '{"web": "online"}', NULL, '2026-10-26 22:00:30Z', 68, NULL, NULL),
    (2, 'frank', 'online', 'removed', '{}', '2026-10-26 22:00Z', '2026-10-26 23:00:40Z', 72, '2026-10-26 22:00:30Z', NULL),
    (2, 'gerd', 'offline', 'rejected', '{}', '2026-10-26 22:00Z', '2026-10-26 23:00:40Z', 72, '2026-10-26 22:00Z', NULL);
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times, known_at) VALUES
    (2, 'presence', 'eve', 'contradicted', 'get_users_online_status calls the user offline, get_users_status does not; the last known value stays until they agree', '2026-10-26 23:00:40Z', '2026-10-26 23:00:40Z', 1, '2026-10-26 22:00Z'),
    (2, 'presence', 'gerd', '1004', 'record not found', '2026-10-26 21:00Z', '2026-10-26 23:00:40Z', 3, NULL),
    (2, 'presence', '', 'null_id', 'rows of the users table with a NULL or empty user_id: 1, with key 7; leave them out with [users] where', '2026-10-26 23:00:40Z', '2026-10-26 23:00:40Z', 1, NULL),
    (1, 'presence', 'hans', '70107', 'the provider does not know this user; it was never imported', '2026-10-26 20:00Z', '2026-10-26 23:00:40Z', 4, NULL);

INSERT INTO public.users (id, uid) VALUES (1, 'anna'), (2, 'eve'), (3, 'gerd'), (4, 'hans'), (5, 'ida'), (6, 'ida'), (7, NULL), (8, 'zoe'), (9, 'new');
COMMIT;
