-- When complete runs observed an app's users, and the gaps between them.

-- +goose Up

CREATE FUNCTION as_of() RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(nullif(current_setting('syncer.as_of', true), '')::timestamptz, now());
COMMENT ON FUNCTION as_of IS 'The present, for all reports: now(), or the setting syncer.as_of, which makes a report repeatable. It does not undo what was recorded later.';

CREATE TABLE observation_gap (
    app_id         smallint    NOT NULL REFERENCES app,
    kind           text        NOT NULL CHECK (kind IN ('presence', 'accounts')),
    started_at     timestamptz NOT NULL,
    ended_at       timestamptz NOT NULL,
    last_seen_from timestamptz NOT NULL,
    next_seen_by   timestamptz NOT NULL,
    run_id         bigint      NOT NULL,
    PRIMARY KEY (app_id, kind, started_at),
    CHECK (last_seen_from <= started_at AND started_at < ended_at AND ended_at <= next_seen_by)
);
COMMENT ON TABLE observation_gap IS 'Times in which no run observed an app''s users, recorded by the run that ended them. The view sync_gap adds the open one.';
COMMENT ON COLUMN observation_gap.app_id IS 'The app.';
COMMENT ON COLUMN observation_gap.kind IS 'presence or accounts.';
COMMENT ON COLUMN observation_gap.started_at IS 'End of the last complete run''s observation.';
COMMENT ON COLUMN observation_gap.ended_at IS 'Beginning of the next complete run''s observation.';
COMMENT ON COLUMN observation_gap.last_seen_from IS 'Beginning of the last complete run: every user was seen at some time from here to started_at.';
COMMENT ON COLUMN observation_gap.next_seen_by IS 'End of the next complete run''s observation: every user was seen again at some time from ended_at to here.';
COMMENT ON COLUMN observation_gap.run_id IS 'The run that ended the gap.';

CREATE VIEW sync_observed AS
SELECT a.app_id, a.name AS app, kinds.kind, first_run.started_at AS first_started_at,
       last_started.started_at AS seen_since, newest.observed_until, newest.max_gap
FROM app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS kinds (kind)
CROSS JOIN LATERAL (
    SELECT u.started_at
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.complete
    ORDER BY u.started_at
    LIMIT 1
) AS first_run
CROSS JOIN LATERAL (
    SELECT u.started_at
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.complete
    ORDER BY u.started_at DESC
    LIMIT 1
) AS last_started
CROSS JOIN LATERAL (
    -- A resumed run can have observed users later than a run that was started later.
    SELECT u.observed_until, u.max_gap
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.complete AND u.observed_until IS NOT NULL
    ORDER BY u.observed_until DESC
    LIMIT 1
) AS newest;
COMMENT ON VIEW sync_observed IS 'Until when complete runs have observed users: one row per app and kind that has a complete run.';
COMMENT ON COLUMN sync_observed.app_id IS 'The app.';
COMMENT ON COLUMN sync_observed.app IS 'Its name.';
COMMENT ON COLUMN sync_observed.kind IS 'presence or accounts.';
COMMENT ON COLUMN sync_observed.first_started_at IS 'When the oldest complete run that is still recorded was started.';
COMMENT ON COLUMN sync_observed.seen_since IS 'When the newest complete run was started: every user who does not fail was seen since.';
COMMENT ON COLUMN sync_observed.observed_until IS 'When the last observation of any complete run ended. Only runs that are not complete have observed users since.';
COMMENT ON COLUMN sync_observed.max_gap IS 'How long after observed_until the time begins to count as not observed, from the run that observed users last. Null: at once.';

CREATE VIEW sync_gap AS
SELECT g.app_id, a.name AS app, g.kind, g.started_at, g.ended_at,
       extract(epoch FROM g.ended_at - g.started_at)::double precision AS seconds,
       g.last_seen_from, g.next_seen_by
FROM observation_gap AS g
JOIN app AS a USING (app_id)
UNION ALL
SELECT o.app_id, o.app, o.kind, o.observed_until, NULL,
       extract(epoch FROM as_of() - o.observed_until)::double precision,
       least(o.seen_since, o.observed_until), NULL
FROM sync_observed AS o
WHERE o.observed_until + coalesce(o.max_gap, '0') < as_of();
COMMENT ON VIEW sync_gap IS 'Times in which no run observed an app''s users: one row per app, kind and gap, the open one included. Such time counts as neither online nor offline.';
COMMENT ON COLUMN sync_gap.app_id IS 'The app.';
COMMENT ON COLUMN sync_gap.app IS 'Its name.';
COMMENT ON COLUMN sync_gap.kind IS 'presence or accounts.';
COMMENT ON COLUMN sync_gap.started_at IS 'When the observation of the last complete run before it ended.';
COMMENT ON COLUMN sync_gap.ended_at IS 'When the observation of the next complete run began; null: none has begun.';
COMMENT ON COLUMN sync_gap.seconds IS 'Its length; of an open one until as_of().';
COMMENT ON COLUMN sync_gap.last_seen_from IS 'Every user was seen at some time from here to started_at.';
COMMENT ON COLUMN sync_gap.next_seen_by IS 'Every user was seen again at some time from ended_at to here; null while the gap is open.';

CREATE VIEW app_patience AS
SELECT a.app_id, a.name AS app, kinds.kind, coalesce(newest.max_gap, '0') AS max_gap
FROM app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS kinds (kind)
LEFT JOIN LATERAL (
    SELECT u.max_gap
    FROM sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = kinds.kind AND u.status <> 'skipped'
    ORDER BY u.started_at DESC
    LIMIT 1
) AS newest ON true;
COMMENT ON VIEW app_patience IS 'How long after a look a value is not stale yet, where no run has completed: one row per app and kind.';
COMMENT ON COLUMN app_patience.app_id IS 'The app.';
COMMENT ON COLUMN app_patience.app IS 'Its name.';
COMMENT ON COLUMN app_patience.kind IS 'presence or accounts.';
COMMENT ON COLUMN app_patience.max_gap IS 'max_gap of the newest run; 0 where it has none.';

-- +goose Down

DROP VIEW app_patience;
DROP VIEW sync_gap;
DROP VIEW sync_observed;
DROP TABLE observation_gap;
DROP FUNCTION as_of;
