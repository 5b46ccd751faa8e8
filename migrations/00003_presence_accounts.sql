-- What is known: snapshots, histories and counts.

-- +goose Up

CREATE TYPE presence_state AS ENUM ('online', 'push_online', 'offline', 'removed');
COMMENT ON TYPE presence_state IS 'Login state of a user. removed: the user left the users table; only ever in the history.';
CREATE TYPE account_status AS ENUM ('imported', 'not_imported', 'removed');
COMMENT ON TYPE account_status IS 'Whether the IM backend knows a user. removed: the user left the users table; only ever in the history.';

CREATE TABLE presence_snapshot (
    app_id     smallint       NOT NULL REFERENCES app,
    user_id    text COLLATE "C" NOT NULL,
    state      presence_state NOT NULL CHECK (state <> 'removed'),
    platforms  jsonb          NOT NULL,
    changed_at timestamptz    NOT NULL,
    asked_at   timestamptz    NOT NULL CHECK (asked_at <= changed_at),
    run_id     bigint         NOT NULL,
    PRIMARY KEY (app_id, user_id)
) WITH (fillfactor = 90); -- only columns without an index change: HOT updates
COMMENT ON TABLE presence_snapshot IS 'The newest known presence, one row per app and user. Written only when something changed.';
COMMENT ON COLUMN presence_snapshot.app_id IS 'The app.';
COMMENT ON COLUMN presence_snapshot.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_snapshot.state IS 'online, push_online (disconnected, reachable by push) or offline.';
COMMENT ON COLUMN presence_snapshot.platforms IS 'How the user is reachable on each platform, e.g. {"ios": "online", "web": "push_online"}; {} when on none.';
COMMENT ON COLUMN presence_snapshot.changed_at IS 'When the answer with this value arrived.';
COMMENT ON COLUMN presence_snapshot.asked_at IS 'When its question was sent: the value was true at some instant from here to changed_at.';
COMMENT ON COLUMN presence_snapshot.run_id IS 'The run that wrote it.';

CREATE TABLE presence_history (
    app_id      smallint       NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    prev_state  presence_state,
    state       presence_state NOT NULL,
    platforms   jsonb          NOT NULL,
    not_before  timestamptz,
    observed_at timestamptz    NOT NULL,
    run_id      bigint         NOT NULL,
    PRIMARY KEY (app_id, user_id, observed_at),
    CHECK (not_before <= observed_at),
    CHECK ((prev_state IS NULL) = (not_before IS NULL))
) PARTITION BY RANGE (observed_at);
CREATE TABLE presence_history_default PARTITION OF presence_history DEFAULT;
COMMENT ON TABLE presence_history IS 'Transitions of presence; a row only when state or platforms changed.';
COMMENT ON COLUMN presence_history.app_id IS 'The app.';
COMMENT ON COLUMN presence_history.user_id IS 'IM user id.';
COMMENT ON COLUMN presence_history.prev_state IS 'State before; null: first seen. Equal to state when only the platforms changed.';
COMMENT ON COLUMN presence_history.state IS 'State after.';
COMMENT ON COLUMN presence_history.platforms IS 'Platforms after.';
COMMENT ON COLUMN presence_history.not_before IS 'The user was last known to be in the previous state at this time: the transition happened after it. Null: first seen.';
COMMENT ON COLUMN presence_history.observed_at IS 'When the answer with the new value arrived: the transition happened no later.';
COMMENT ON COLUMN presence_history.run_id IS 'The run that saw it.';
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
COMMENT ON TABLE presence_count IS 'How many users each complete presence run saw, by state and platform.';
COMMENT ON COLUMN presence_count.app_id IS 'The app.';
COMMENT ON COLUMN presence_count.run_id IS 'The run.';
COMMENT ON COLUMN presence_count.observed_at IS 'When the run was closed.';
COMMENT ON COLUMN presence_count.state IS 'State of the users, or with a platform their mode on it: online or push_online. rejected: the run had no answer about any user, and users is how many failed.';
COMMENT ON COLUMN presence_count.platform IS 'A platform (a user on two counts under both), or all: the users, each once.';
COMMENT ON COLUMN presence_count.users IS 'How many.';

CREATE TABLE account_snapshot (
    app_id     smallint       NOT NULL REFERENCES app,
    user_id    text COLLATE "C" NOT NULL,
    status     account_status NOT NULL CHECK (status <> 'removed'),
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
COMMENT ON TABLE account_history IS 'Transitions of the import status; a row only when it changed.';
COMMENT ON COLUMN account_history.app_id IS 'The app.';
COMMENT ON COLUMN account_history.user_id IS 'IM user id.';
COMMENT ON COLUMN account_history.prev_status IS 'Status before; null: first seen.';
COMMENT ON COLUMN account_history.status IS 'Status after.';
COMMENT ON COLUMN account_history.not_before IS 'The user was last known to have the previous status at this time: the transition happened after it. Null: first seen.';
COMMENT ON COLUMN account_history.observed_at IS 'When the answer with the new value arrived: the transition happened no later.';
COMMENT ON COLUMN account_history.run_id IS 'The run that saw it.';
COMMENT ON TABLE account_history_default IS 'Catches rows for which no partition was made in time.';

-- +goose Down

DROP TABLE account_history;
DROP TABLE account_snapshot;
DROP TABLE presence_count;
DROP TABLE presence_history;
DROP TABLE presence_snapshot;
DROP TYPE account_status;
DROP TYPE presence_state;
