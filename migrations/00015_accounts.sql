-- Import status of users: snapshot and history, as of presence.

-- +goose Up

CREATE TYPE account_status AS ENUM ('imported', 'not_imported', 'removed', 'rejected');
COMMENT ON TYPE account_status IS 'Whether the IM backend knows a user. Only ever in the history: removed, the user left the users table; rejected, the API has refused to answer about the user for so long that nothing is known any more.';

CREATE TABLE account_snapshot (
    app_id     smallint       NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    status     account_status NOT NULL CHECK (status IN ('imported', 'not_imported')),
    changed_at timestamptz    NOT NULL,
    asked_at   timestamptz    NOT NULL CHECK (asked_at <= changed_at),
    run_id     bigint         NOT NULL,
    PRIMARY KEY (app_id, user_id)
) WITH (fillfactor = 90);
COMMENT ON TABLE account_snapshot IS 'The newest known import status, one row per app and user. Written only when something changed.';
COMMENT ON COLUMN account_snapshot.app_id IS 'The app.';
COMMENT ON COLUMN account_snapshot.user_id IS 'IM user id.';
COMMENT ON COLUMN account_snapshot.status IS 'imported or not_imported.';
COMMENT ON COLUMN account_snapshot.changed_at IS 'When the answer with this value arrived.';
COMMENT ON COLUMN account_snapshot.asked_at IS 'When its question was sent: the value was true at some instant from here to changed_at.';
COMMENT ON COLUMN account_snapshot.run_id IS 'The run that wrote it.';

CREATE TABLE account_history (
    app_id      smallint       NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    prev_status account_status,
    status      account_status NOT NULL,
    not_before  timestamptz,
    observed_at timestamptz    NOT NULL,
    run_id      bigint         NOT NULL,
    PRIMARY KEY (app_id, user_id, observed_at),
    CHECK (not_before <= observed_at),
    CHECK ((prev_status IS NULL) = (not_before IS NULL))
) PARTITION BY RANGE (observed_at);
CREATE TABLE account_history_default PARTITION OF account_history DEFAULT;
CREATE INDEX account_history_observed ON account_history
    USING brin (observed_at) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE account_history IS 'Transitions of the import status; a row only when it changed.';
COMMENT ON COLUMN account_history.app_id IS 'The app.';
COMMENT ON COLUMN account_history.user_id IS 'IM user id.';
COMMENT ON COLUMN account_history.prev_status IS 'Status before; null: first seen.';
COMMENT ON COLUMN account_history.status IS 'Status after.';
COMMENT ON COLUMN account_history.not_before IS 'The user was last known to have the previous status at this time: the transition happened after it. Null: first seen.';
COMMENT ON COLUMN account_history.observed_at IS 'When the answer with the new value arrived: the transition happened no later.';
COMMENT ON COLUMN account_history.run_id IS 'The run that saw it.';
COMMENT ON TABLE account_history_default IS 'Catches rows for which no partition was made in time.';

CREATE VIEW account_current AS
SELECT s.app_id, a.app, s.user_id, s.status, s.changed_at AS since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM account_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'accounts'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'accounts'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'accounts' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'accounts' AND g.ended_at IS NULL;
COMMENT ON VIEW account_current IS 'The newest known import status: one row per app and user.';
COMMENT ON COLUMN account_current.app_id IS 'The app.';
COMMENT ON COLUMN account_current.app IS 'Its name.';
COMMENT ON COLUMN account_current.user_id IS 'IM user id.';
COMMENT ON COLUMN account_current.status IS 'imported or not_imported.';
COMMENT ON COLUMN account_current.since IS 'The user has had this status since this time at the latest.';
COMMENT ON COLUMN account_current.last_checked_at IS 'The user was seen with this status at this time or later.';
COMMENT ON COLUMN account_current.stale IS 'Nothing is known since last_checked_at: the API rejects the user, or no run has looked at the app for longer than max_gap.';

CREATE VIEW account_coverage AS
SELECT a.app_id, a.name AS app, coalesce(c.imported, 0) AS imported, coalesce(c.not_imported, 0) AS not_imported,
       coalesce(n.users, 0) AS never_checked, o.seen_since AS last_checked_at
FROM app AS a
LEFT JOIN (
    SELECT app_id, count(*) FILTER (WHERE status = 'imported') AS imported,
           count(*) FILTER (WHERE status = 'not_imported') AS not_imported
    FROM account_snapshot
    GROUP BY app_id
) AS c USING (app_id)
LEFT JOIN (
    SELECT k.app_id, count(*) AS users
    FROM (
        SELECT app_id, user_id FROM presence_snapshot
        UNION
        SELECT app_id, user_id FROM user_failure WHERE user_id <> ''
    ) AS k
    WHERE NOT EXISTS (SELECT FROM account_snapshot AS s WHERE s.app_id = k.app_id AND s.user_id = k.user_id)
    GROUP BY k.app_id
) AS n USING (app_id)
LEFT JOIN sync_observed AS o ON o.app_id = a.app_id AND o.kind = 'accounts';
COMMENT ON VIEW account_coverage IS 'Which users the IM backend knows: one row per app.';
COMMENT ON COLUMN account_coverage.app_id IS 'The app.';
COMMENT ON COLUMN account_coverage.app IS 'Its name.';
COMMENT ON COLUMN account_coverage.imported IS 'Users the backend knows.';
COMMENT ON COLUMN account_coverage.not_imported IS 'Users it does not know.';
COMMENT ON COLUMN account_coverage.never_checked IS 'Users known from presence, or failing, of whom no import status is known.';
COMMENT ON COLUMN account_coverage.last_checked_at IS 'When the newest complete run of kind accounts was started; null: there was none.';

-- +goose Down

DROP VIEW account_coverage;
DROP VIEW account_current;
DROP TABLE account_history;
DROP TABLE account_snapshot;
DROP TYPE account_status;
