-- Presence of users: the newest known value (snapshot), its transitions (history), and
-- how many users each run saw in which state (count).

-- +goose Up

CREATE TYPE presence_state AS ENUM ('online', 'push_online', 'offline', 'removed', 'rejected');
COMMENT ON TYPE presence_state IS 'Login state of a user. Only ever in the history: removed, the user left the users table; rejected, the API has refused to answer about the user for so long that nothing is known any more.';

CREATE TABLE presence_snapshot (
    app_id      smallint       NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    state       presence_state NOT NULL CHECK (state IN ('online', 'push_online', 'offline')),
    platforms   jsonb          NOT NULL,
    changed_at  timestamptz    NOT NULL,
    asked_at    timestamptz    NOT NULL CHECK (asked_at <= changed_at),
    run_id      bigint         NOT NULL,
    since       timestamptz    NOT NULL,
    since_after timestamptz,
    PRIMARY KEY (app_id, user_id),
    CHECK (since <= changed_at),
    CHECK (since_after <= since)
) WITH (fillfactor = 90); -- no index on columns that change: updates are HOT
COMMENT ON TABLE presence_snapshot IS 'The newest known presence, one row per app and user. Written only when something changed.';
COMMENT ON COLUMN presence_snapshot.app_id IS 'The app.';
COMMENT ON COLUMN presence_snapshot.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_snapshot.state IS 'online, push_online (disconnected, reachable by push) or offline.';
COMMENT ON COLUMN presence_snapshot.platforms IS 'How the user is reachable on each platform, e.g. {"ios": "online", "web": "push_online"}; {} when on none.';
COMMENT ON COLUMN presence_snapshot.changed_at IS 'When the answer with this value arrived.';
COMMENT ON COLUMN presence_snapshot.asked_at IS 'When its question was sent: the value was true at some instant from here to changed_at.';
COMMENT ON COLUMN presence_snapshot.run_id IS 'The run that wrote it.';
COMMENT ON COLUMN presence_snapshot.since IS 'When the first answer with the present state arrived; a change of the platforms alone does not move it.';
COMMENT ON COLUMN presence_snapshot.since_after IS 'The user was last known to be in another state at this time: the present state began after it and no later than since. Null: the user was first seen in it.';

CREATE TABLE presence_history (
    app_id           smallint       NOT NULL,
    user_id          text COLLATE "C" NOT NULL,
    prev_state       presence_state,
    state            presence_state NOT NULL,
    platforms        jsonb          NOT NULL,
    not_before       timestamptz,
    observed_at      timestamptz    NOT NULL,
    run_id           bigint         NOT NULL,
    prev_since       timestamptz,
    prev_since_after timestamptz,
    PRIMARY KEY (app_id, user_id, observed_at),
    CHECK (not_before <= observed_at),
    CHECK ((prev_state IS NULL) = (not_before IS NULL)),
    CHECK ((prev_state IS NULL) = (prev_since IS NULL)),
    CHECK (prev_since_after <= prev_since)
) PARTITION BY RANGE (observed_at);
CREATE TABLE presence_history_default PARTITION OF presence_history DEFAULT;
-- Reports read the stretches online that touch a span of time. Rows are stored in the
-- order of observed_at, and most stretches are short, so both bounds skip nearly all
-- blocks of other times. A B-tree would slow down the insert of every transition.
CREATE INDEX presence_history_stretch ON presence_history
    USING brin (observed_at, prev_since, (coalesce(prev_since_after, prev_since)))
    WITH (pages_per_range = 32, autosummarize = on)
    WHERE prev_state = 'online' AND state <> 'online';
CREATE INDEX presence_history_observed ON presence_history
    USING brin (observed_at) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE presence_history IS 'Transitions of presence; a row only when state or platforms changed.';
COMMENT ON COLUMN presence_history.app_id IS 'The app.';
COMMENT ON COLUMN presence_history.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_history.prev_state IS 'State before; null: first seen. Equal to state when only the platforms changed.';
COMMENT ON COLUMN presence_history.state IS 'State after.';
COMMENT ON COLUMN presence_history.platforms IS 'Platforms after.';
COMMENT ON COLUMN presence_history.not_before IS 'The user was last known to be in the previous state at this time: the transition happened after it. Null: first seen.';
COMMENT ON COLUMN presence_history.observed_at IS 'When the answer with the new value arrived: the transition happened no later.';
COMMENT ON COLUMN presence_history.run_id IS 'The run that saw it.';
COMMENT ON COLUMN presence_history.prev_since IS 'When the first answer with the previous state arrived: with state it makes of the row a whole stretch of prev_state, from its beginning to its end. Null: first seen.';
COMMENT ON COLUMN presence_history.prev_since_after IS 'The previous state began after this time and no later than prev_since. Null: the user was first seen in it, or first seen here.';
COMMENT ON TABLE presence_history_default IS 'Catches rows for which no partition was made in time.';

CREATE TABLE presence_count (
    app_id      smallint       NOT NULL,
    run_id      bigint         NOT NULL,
    observed_at timestamptz    NOT NULL,
    state       presence_state NOT NULL,
    platform    text           NOT NULL,
    users       bigint         NOT NULL,
    PRIMARY KEY (app_id, run_id, state, platform)
);
CREATE INDEX presence_count_observed ON presence_count (app_id, observed_at);

COMMENT ON TABLE presence_count IS 'How many users each complete presence run saw, by state and platform.';
COMMENT ON COLUMN presence_count.app_id IS 'The app.';
COMMENT ON COLUMN presence_count.run_id IS 'The run.';
COMMENT ON COLUMN presence_count.observed_at IS 'When the run was closed.';
COMMENT ON COLUMN presence_count.state IS 'State of the users, or with a platform their mode on it: online or push_online. rejected: the run had no answer about any user, and users is how many failed.';
COMMENT ON COLUMN presence_count.platform IS 'A platform (a user on two counts under both), or all: the users, each once.';
COMMENT ON COLUMN presence_count.users IS 'How many. A user about whom two APIs contradict each other counts with the last known value.';

CREATE VIEW presence_current AS
SELECT s.app_id, a.app, s.user_id, s.state, s.platforms, s.since_after, s.since,
       greatest(s.asked_at, CASE WHEN f.user_id IS NOT NULL THEN f.known_at WHEN s.changed_at <= o.seen_since THEN o.seen_since END) AS last_checked_at,
       f.user_id IS NOT NULL OR g.app_id IS NOT NULL OR o.app_id IS NULL AND s.asked_at + a.max_gap < as_of() AS stale
FROM presence_snapshot AS s
JOIN app_patience AS a ON a.app_id = s.app_id AND a.kind = 'presence'
LEFT JOIN sync_observed AS o ON o.app_id = s.app_id AND o.kind = 'presence'
LEFT JOIN user_failure AS f ON f.app_id = s.app_id AND f.kind = 'presence' AND f.user_id = s.user_id
LEFT JOIN sync_gap AS g ON g.app_id = s.app_id AND g.kind = 'presence' AND g.ended_at IS NULL;
COMMENT ON VIEW presence_current IS 'The newest known presence: one row per app and user.';
COMMENT ON COLUMN presence_current.app_id IS 'The app.';
COMMENT ON COLUMN presence_current.app IS 'Its name.';
COMMENT ON COLUMN presence_current.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_current.state IS 'online, push_online (disconnected, reachable by push) or offline.';
COMMENT ON COLUMN presence_current.platforms IS 'How the user is reachable on each platform, e.g. {"ios": "online"}.';
COMMENT ON COLUMN presence_current.since_after IS 'The state began after this time; null: the user was first seen in it.';
COMMENT ON COLUMN presence_current.since IS 'The state began no later than this.';
COMMENT ON COLUMN presence_current.last_checked_at IS 'The user was seen in this state at this time or later.';
COMMENT ON COLUMN presence_current.stale IS 'Nothing is sure since last_checked_at: the API rejects the user, two APIs contradict each other about the user, or no run has looked at the app for longer than max_gap.';

CREATE VIEW presence_concurrency AS
SELECT c.app_id, a.name AS app, c.run_id, c.observed_at,
       coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state <> 'rejected'), 0)::bigint AS users,
       -- A run that has no answer about any of its users says nothing of them.
       CASE WHEN bool_or(c.state = 'rejected') THEN NULL
            ELSE coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state = 'online'), 0)::bigint END AS online,
       CASE WHEN bool_or(c.state = 'rejected') THEN NULL
            ELSE coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state = 'push_online'), 0)::bigint END AS push_online,
       CASE WHEN bool_or(c.state = 'rejected') THEN NULL
            ELSE coalesce(sum(c.users) FILTER (WHERE c.platform = 'all' AND c.state = 'offline'), 0)::bigint END AS offline,
       coalesce(jsonb_object_agg(c.platform, c.users) FILTER (WHERE c.platform <> 'all' AND c.state = 'online'), '{}') AS platforms
FROM presence_count AS c
JOIN app AS a USING (app_id)
GROUP BY c.app_id, a.name, c.run_id, c.observed_at;
COMMENT ON VIEW presence_concurrency IS 'How many users were in which state: one row per app and complete presence run.';
COMMENT ON COLUMN presence_concurrency.app_id IS 'The app.';
COMMENT ON COLUMN presence_concurrency.app IS 'Its name.';
COMMENT ON COLUMN presence_concurrency.run_id IS 'The run.';
COMMENT ON COLUMN presence_concurrency.observed_at IS 'When the run was closed.';
COMMENT ON COLUMN presence_concurrency.users IS 'Users it had an answer about.';
COMMENT ON COLUMN presence_concurrency.online IS 'How many of them were online; null when the run had no answer about any user.';
COMMENT ON COLUMN presence_concurrency.push_online IS 'How many were disconnected, but reachable by push; null as online.';
COMMENT ON COLUMN presence_concurrency.offline IS 'How many were offline; null as online.';
COMMENT ON COLUMN presence_concurrency.platforms IS 'Users connected by platform, e.g. {"ios": 12}; a user on two counts under both. A platform on which the user is reachable by push alone does not count.';

-- +goose Down

DROP VIEW presence_concurrency;
DROP VIEW presence_current;
DROP TABLE presence_count;
DROP TABLE presence_history;
DROP TABLE presence_snapshot;
DROP TYPE presence_state;
