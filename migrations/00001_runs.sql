-- Apps, runs and their ranges. Names are unqualified: the connection that
-- migrates has the configured schema as its search_path.

-- +goose Up

CREATE TABLE app (
    app_id     smallint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text        NOT NULL UNIQUE,
    provider   text        NOT NULL CHECK (provider IN ('tencent', 'openim')),
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE app IS 'One IM tenant: a Tencent Chat SDKAppID or an OpenIM deployment.';
COMMENT ON COLUMN app.app_id IS 'Number of the app in all other tables.';
COMMENT ON COLUMN app.name IS 'Name of the app in the configuration.';
COMMENT ON COLUMN app.provider IS 'tencent or openim.';
COMMENT ON COLUMN app.created_at IS 'When syncer first saw the app in its configuration.';

CREATE TABLE sync_run (
    run_id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id           smallint    NOT NULL REFERENCES app,
    job              text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('presence', 'accounts')),
    trigger          text        NOT NULL CHECK (trigger IN ('cron', 'catch_up', 'backfill')),
    tick             timestamptz,
    status           text        NOT NULL
        CHECK (status IN ('running', 'succeeded', 'partial', 'failed', 'cancelled', 'skipped')),
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz,
    listed           boolean     NOT NULL DEFAULT false,
    complete         boolean     NOT NULL DEFAULT false,
    prev_complete_at timestamptz,
    users            bigint      NOT NULL DEFAULT 0,
    changed          bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,
    calls            bigint      NOT NULL DEFAULT 0,
    retries          bigint      NOT NULL DEFAULT 0,
    error            text,
    planned          boolean     NOT NULL DEFAULT false,
    plan_cursor      text,
    plan_ranges      int         NOT NULL DEFAULT 0,
    plan_job_id      bigint,
    plan_attempt     int         NOT NULL DEFAULT 0,
    plan_owner       text,
    plan_beat_at     timestamptz,
    CHECK ((status IN ('running')) = (finished_at IS NULL)),
    CHECK (NOT (complete AND listed))
);
-- One run per app and kind at a time, and one run per tick, however many
-- instances start it: these two indexes decide.
CREATE UNIQUE INDEX sync_run_one_running ON sync_run (app_id, kind) WHERE status = 'running';
CREATE UNIQUE INDEX sync_run_one_per_tick ON sync_run (app_id, kind, job, tick) WHERE tick IS NOT NULL;
CREATE INDEX sync_run_complete ON sync_run (app_id, kind, started_at DESC) WHERE complete;

COMMENT ON TABLE sync_run IS 'One pass of one job over the users of one app. A skipped tick has a row too.';
COMMENT ON COLUMN sync_run.run_id IS 'Number of the run.';
COMMENT ON COLUMN sync_run.app_id IS 'The app whose users are asked about.';
COMMENT ON COLUMN sync_run.job IS 'Name of the job in the configuration; backfill for a backfill.';
COMMENT ON COLUMN sync_run.kind IS 'presence or accounts.';
COMMENT ON COLUMN sync_run.trigger IS 'cron: its tick came; catch_up: its tick fell while nothing was up; backfill: by hand.';
COMMENT ON COLUMN sync_run.tick IS 'The scheduled instant; null for a backfill.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.started_at IS 'When the run was started, by the database''s clock.';
COMMENT ON COLUMN sync_run.finished_at IS 'When it was closed; null while running.';
COMMENT ON COLUMN sync_run.listed IS 'Limited to the ids of sync_run_user instead of the whole users table.';
COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table: status succeeded or partial, and not limited to a list.';
COMMENT ON COLUMN sync_run.prev_complete_at IS 'Start of the previous complete run of the same app and kind: every user was seen since then.';
COMMENT ON COLUMN sync_run.users IS 'Users asked about (set when the run is closed, like the other counters).';
COMMENT ON COLUMN sync_run.changed IS 'Users whose value changed or was seen for the first time.';
COMMENT ON COLUMN sync_run.failed IS 'Users without a value from this run; see user_failure.';
COMMENT ON COLUMN sync_run.calls IS 'API calls made.';
COMMENT ON COLUMN sync_run.retries IS 'API calls that repeated one that had failed.';
COMMENT ON COLUMN sync_run.error IS 'Why the run failed or was cancelled.';
COMMENT ON COLUMN sync_run.planned IS 'The users table has been cut into ranges to its end.';
COMMENT ON COLUMN sync_run.plan_cursor IS 'Key up to which ranges are cut.';
COMMENT ON COLUMN sync_run.plan_ranges IS 'How many ranges are cut.';
COMMENT ON COLUMN sync_run.plan_job_id IS 'The queue''s job that may cut ranges.';
COMMENT ON COLUMN sync_run.plan_attempt IS 'Counts the claims of the planning; an older claim may not write.';
COMMENT ON COLUMN sync_run.plan_owner IS 'The process that is planning.';
COMMENT ON COLUMN sync_run.plan_beat_at IS 'Last sign of life of whoever is planning; null when nobody is.';

CREATE TABLE sync_range (
    run_id      bigint      NOT NULL REFERENCES sync_run ON DELETE CASCADE,
    range_no    int         NOT NULL,
    status      text        NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'done', 'failed')),
    lower_key   text,
    upper_key   text,
    cursor_key  text,
    job_id      bigint,
    attempt     int         NOT NULL DEFAULT 0,
    owner       text,
    beat_at     timestamptz,
    users       bigint      NOT NULL DEFAULT 0,
    changed     bigint      NOT NULL DEFAULT 0,
    failed      bigint      NOT NULL DEFAULT 0,
    calls       bigint      NOT NULL DEFAULT 0,
    retries     bigint      NOT NULL DEFAULT 0,
    counts      jsonb       NOT NULL DEFAULT '{}',
    error       text,
    PRIMARY KEY (run_id, range_no)
) WITH (fillfactor = 50);
CREATE INDEX sync_range_open ON sync_range (run_id) WHERE status IN ('pending', 'running');

COMMENT ON TABLE sync_range IS 'A contiguous slice of the users of a run: the unit of distributed work and of retry. Rows of a run that succeeded are removed with its closing.';
COMMENT ON COLUMN sync_range.run_id IS 'The run.';
COMMENT ON COLUMN sync_range.range_no IS 'Number of the range in its run, from 1.';
COMMENT ON COLUMN sync_range.status IS 'pending; running: a worker holds it; done; failed: given up.';
COMMENT ON COLUMN sync_range.lower_key IS 'Keys above this one belong to the range; null: from the start.';
COMMENT ON COLUMN sync_range.upper_key IS 'Keys up to and with this one belong to the range; null: to the end.';
COMMENT ON COLUMN sync_range.cursor_key IS 'Key of the last page written; work goes on after it.';
COMMENT ON COLUMN sync_range.job_id IS 'The queue''s job that may claim the range.';
COMMENT ON COLUMN sync_range.attempt IS 'Counts the claims; a page may be written only under the newest one.';
COMMENT ON COLUMN sync_range.owner IS 'The process that holds the range.';
COMMENT ON COLUMN sync_range.beat_at IS 'Its last sign of life.';
COMMENT ON COLUMN sync_range.users IS 'Users asked about so far.';
COMMENT ON COLUMN sync_range.changed IS 'Users changed so far.';
COMMENT ON COLUMN sync_range.failed IS 'Users failed so far.';
COMMENT ON COLUMN sync_range.calls IS 'API calls so far.';
COMMENT ON COLUMN sync_range.retries IS 'Repeated API calls so far.';
COMMENT ON COLUMN sync_range.counts IS 'Users so far by state and platform, e.g. {"online": {"all": 12, "ios": 7}}.';
COMMENT ON COLUMN sync_range.error IS 'Why the last attempt failed.';

CREATE TABLE sync_run_user (
    run_id  bigint NOT NULL REFERENCES sync_run ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, user_id)
);
COMMENT ON TABLE sync_run_user IS 'The users of a run that is limited to a list (backfill --users-file).';
COMMENT ON COLUMN sync_run_user.run_id IS 'The run.';
COMMENT ON COLUMN sync_run_user.user_id IS 'IM user id, as the user_id expression of the users table yields it.';

CREATE TABLE user_failure (
    app_id   smallint    NOT NULL REFERENCES app,
    kind     text        NOT NULL CHECK (kind IN ('presence', 'accounts')),
    user_id  text COLLATE "C" NOT NULL,
    code     text        NOT NULL,
    message  text        NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL,
    times    bigint      NOT NULL,
    PRIMARY KEY (app_id, kind, user_id)
);
COMMENT ON TABLE user_failure IS 'Users whom the API, or the check before sending, rejects one by one. The row goes when the user succeeds.';
COMMENT ON COLUMN user_failure.app_id IS 'The app.';
COMMENT ON COLUMN user_failure.kind IS 'presence or accounts.';
COMMENT ON COLUMN user_failure.user_id IS 'IM user id; empty for the rows of the users table whose id is NULL or empty.';
COMMENT ON COLUMN user_failure.code IS 'The provider''s code, or invalid_id, null_id, missing.';
COMMENT ON COLUMN user_failure.message IS 'What was said of it.';
COMMENT ON COLUMN user_failure.first_at IS 'When it failed first.';
COMMENT ON COLUMN user_failure.last_at IS 'When it failed last.';
COMMENT ON COLUMN user_failure.times IS 'In how many pages of runs it failed.';

CREATE TABLE api_quota (
    app_id       smallint         NOT NULL REFERENCES app,
    api          text             NOT NULL,
    rate         double precision NOT NULL CHECK (rate > 0),
    next_at      timestamptz      NOT NULL,
    throttled_at timestamptz,
    PRIMARY KEY (app_id, api)
) WITH (fillfactor = 10); -- updated ten times a second: room for HOT updates
COMMENT ON TABLE api_quota IS 'The clock from which all instances take the times of their API calls.';
COMMENT ON COLUMN api_quota.app_id IS 'The app.';
COMMENT ON COLUMN api_quota.api IS 'presence or accounts.';
COMMENT ON COLUMN api_quota.rate IS 'Calls a second at throttled_at; it recovers from there to the configured rate step by step.';
COMMENT ON COLUMN api_quota.next_at IS 'The next call time that nobody has.';
COMMENT ON COLUMN api_quota.throttled_at IS 'When the provider last said that we are too fast.';

-- +goose Down

DROP TABLE api_quota;
DROP TABLE user_failure;
DROP TABLE sync_run_user;
DROP TABLE sync_range;
DROP TABLE sync_run;
DROP TABLE app;
