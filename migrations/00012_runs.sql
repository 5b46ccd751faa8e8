-- Runs, their ranges, and the users who failed in them.

-- +goose Up

CREATE TABLE sync_run (
    run_id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app_id               smallint    NOT NULL REFERENCES app,
    job                  text        NOT NULL,
    kind                 text        NOT NULL CHECK (kind IN ('presence', 'accounts')),
    trigger              text        NOT NULL CHECK (trigger IN ('cron', 'catch_up', 'backfill')),
    tick                 timestamptz,
    status               text        NOT NULL
        CHECK (status IN ('running', 'succeeded', 'partial', 'failed', 'cancelled', 'skipped')),
    started_at           timestamptz NOT NULL,
    finished_at          timestamptz,
    listed               boolean     NOT NULL DEFAULT false,
    let_leave            boolean     NOT NULL DEFAULT false,
    complete             boolean     NOT NULL DEFAULT false,
    prev_complete_at     timestamptz,
    error                text,
    -- Counters, set when the run is closed.
    users                bigint      NOT NULL DEFAULT 0,
    changed              bigint      NOT NULL DEFAULT 0,
    failed               bigint      NOT NULL DEFAULT 0,
    calls                bigint      NOT NULL DEFAULT 0,
    retries              bigint      NOT NULL DEFAULT 0,
    -- Planning: cutting the users table into ranges.
    planned              boolean     NOT NULL DEFAULT false,
    plan_cursor          text,
    plan_ranges          int         NOT NULL DEFAULT 0,
    plan_job_id          bigint,
    plan_attempt         int         NOT NULL DEFAULT 0,
    plan_claim           uuid,
    plan_owner           text,
    plan_beat_at         timestamptz,
    key_order            text,
    -- When the run observed users, and how long an observation is good for.
    max_gap              interval,
    observed_from        timestamptz NOT NULL,
    observed_until       timestamptz,
    failures_recorded_at timestamptz,
    -- Answers that are rechecked before they are written.
    suspect              boolean     NOT NULL DEFAULT false,
    suspect_pages        bigint      NOT NULL DEFAULT 0,
    rejected_answers     bigint      NOT NULL DEFAULT 0,
    -- Users who left the users table.
    removed              bigint      NOT NULL DEFAULT 0,
    held_back            bigint      NOT NULL DEFAULT 0,
    reconciled           boolean     NOT NULL DEFAULT false,
    known_users          bigint,
    known_hash           bigint,
    CHECK ((status IN ('running')) = (finished_at IS NULL)),
    CHECK (NOT (complete AND listed))
);
-- These two indexes allow one running run per app and kind, and one run per tick, however
-- many instances try to start it.
CREATE UNIQUE INDEX sync_run_one_running ON sync_run (app_id, kind) WHERE status = 'running';
CREATE UNIQUE INDEX sync_run_one_per_tick ON sync_run (app_id, kind, job, tick) WHERE tick IS NOT NULL;
CREATE INDEX sync_run_complete ON sync_run (app_id, kind, started_at DESC) WHERE complete;
CREATE INDEX sync_run_observed ON sync_run (app_id, kind, observed_until);

COMMENT ON TABLE sync_run IS 'One pass of one job over the users of one app. A skipped tick has a row too.';
COMMENT ON COLUMN sync_run.run_id IS 'Number of the run.';
COMMENT ON COLUMN sync_run.app_id IS 'The app whose users are polled.';
COMMENT ON COLUMN sync_run.job IS 'Name of the job in the configuration; backfill for a backfill.';
COMMENT ON COLUMN sync_run.kind IS 'presence or accounts.';
COMMENT ON COLUMN sync_run.trigger IS 'cron: its tick came; catch_up: its tick was missed because no instance was up; backfill: started by an operator.';
COMMENT ON COLUMN sync_run.tick IS 'The scheduled instant; null for a backfill.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed, had their answers rejected or were held back from removal; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.started_at IS 'When the run was started, by the database''s clock.';
COMMENT ON COLUMN sync_run.finished_at IS 'When it was closed; null while running.';
COMMENT ON COLUMN sync_run.listed IS 'Limited to the ids of sync_run_user instead of the whole users table.';
COMMENT ON COLUMN sync_run.let_leave IS 'The operator confirmed, with syncer backfill --let-leave, that any number of users may have left the users table.';
COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table, rejected no answers and held no user back: status succeeded or partial, not limited to a list, rejected_answers and held_back 0.';
COMMENT ON COLUMN sync_run.prev_complete_at IS 'Start of the previous complete run of the same app and kind: every user was seen since then.';
COMMENT ON COLUMN sync_run.error IS 'Why the run failed or was cancelled, why answers were rejected, or why no user was removed.';
COMMENT ON COLUMN sync_run.users IS 'Users polled (set when the run is closed, like the other counters).';
COMMENT ON COLUMN sync_run.changed IS 'Users whose value changed or was seen for the first time.';
COMMENT ON COLUMN sync_run.failed IS 'Users without a value from this run; see user_failure.';
COMMENT ON COLUMN sync_run.calls IS 'API calls made.';
COMMENT ON COLUMN sync_run.retries IS 'API calls that repeated one that had failed.';
COMMENT ON COLUMN sync_run.planned IS 'The users table has been cut into ranges to its end.';
COMMENT ON COLUMN sync_run.plan_cursor IS 'Key up to which ranges are cut.';
COMMENT ON COLUMN sync_run.plan_ranges IS 'How many ranges there are: those cut from the users table, and the suspect pages, each a range of its own.';
COMMENT ON COLUMN sync_run.plan_job_id IS 'The queue''s job that may cut ranges.';
COMMENT ON COLUMN sync_run.plan_attempt IS 'Counts the claims of the planning.';
COMMENT ON COLUMN sync_run.plan_claim IS 'Random token of the newest claim on the planning, as sync_range.claim.';
COMMENT ON COLUMN sync_run.plan_owner IS 'The process that is planning.';
COMMENT ON COLUMN sync_run.plan_beat_at IS 'Last sign of life of the process that is planning; null if none is.';
COMMENT ON COLUMN sync_run.key_order IS 'Type, operator family and collation of the users table''s key by which the ranges were cut; null: none is cut yet, or the run is limited to a list.';
COMMENT ON COLUMN sync_run.max_gap IS 'By its job''s configuration: when the next complete run begins later than this after the end of this one, the time between counts as not observed. Null: nothing was scheduled to come after it, so any time until the next counts so.';
COMMENT ON COLUMN sync_run.observed_from IS 'Since when it has observed users without a pause longer than max_gap: started_at, or the first page after the last such pause.';
COMMENT ON COLUMN sync_run.observed_until IS 'When its last page was written; null while running.';
COMMENT ON COLUMN sync_run.failures_recorded_at IS 'When failures that go on were last recorded anew, as of this run: its own start, if it did so itself. That is once an hour, and in every backfill; in between only new failures are recorded.';
COMMENT ON COLUMN sync_run.suspect IS 'Some of its pages are suspect right now (too many users offline at once) and wait for their recheck.';
COMMENT ON COLUMN sync_run.suspect_pages IS 'Pages that were suspect and were rechecked.';
COMMENT ON COLUMN sync_run.rejected_answers IS 'Users whose pages stayed suspect and were not written: they keep their last known value.';
COMMENT ON COLUMN sync_run.removed IS 'Users who were found to have left the users table.';
COMMENT ON COLUMN sync_run.held_back IS 'Users who were missing from the users table and were not removed, because they were too many to be believed. They keep their snapshots, and the run is not complete.';
COMMENT ON COLUMN sync_run.reconciled IS 'It is known who left the users table since the previous complete run.';
COMMENT ON COLUMN sync_run.known_users IS 'Rows of the users table seen by the run whose user has a snapshot. With known_hash the next run finds out whether any user left. Null: users whom the run did not see may have one, so the next run has to read the whole users table.';
COMMENT ON COLUMN sync_run.known_hash IS 'The sum of their ids'' hashes, modulo 2^62.';

CREATE TABLE sync_range (
    run_id           bigint      NOT NULL REFERENCES sync_run ON DELETE CASCADE,
    range_no         int         NOT NULL,
    status           text        NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'done', 'failed')),
    lower_key        text,
    upper_key        text,
    cursor_key       text,
    page_at          timestamptz,
    error            text,
    -- The worker that holds the range.
    job_id           bigint,
    attempt          int         NOT NULL DEFAULT 0,
    claim            uuid,
    owner            text,
    beat_at          timestamptz,
    -- Counters, updated with each page.
    users            bigint      NOT NULL DEFAULT 0,
    changed          bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,
    calls            bigint      NOT NULL DEFAULT 0,
    retries          bigint      NOT NULL DEFAULT 0,
    counts           jsonb       NOT NULL DEFAULT '{}',
    -- Answers that are rechecked before they are written.
    suspect_answers  int         NOT NULL DEFAULT 0,
    recheck_after    timestamptz,
    suspect_pages    bigint      NOT NULL DEFAULT 0,
    rejected_answers bigint      NOT NULL DEFAULT 0,
    -- Which users have a snapshot, to find those who left the users table.
    kept_users       bigint      NOT NULL DEFAULT 0,
    kept_hash        bigint      NOT NULL DEFAULT 0,
    known_users      bigint      NOT NULL DEFAULT 0,
    known_hash       bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, range_no)
) WITH (fillfactor = 50); -- updated with each page: leaves room for HOT updates
CREATE INDEX sync_range_open ON sync_range (run_id) WHERE status IN ('pending', 'running');

COMMENT ON TABLE sync_range IS 'A contiguous slice of the users of a run: the unit of distributed work and of retry. Rows of a run that succeeded are removed with its closing.';
COMMENT ON COLUMN sync_range.run_id IS 'The run.';
COMMENT ON COLUMN sync_range.range_no IS 'Number of the range in its run, from 1.';
COMMENT ON COLUMN sync_range.status IS 'pending; running: a worker holds it; done; failed: given up.';
COMMENT ON COLUMN sync_range.lower_key IS 'Keys above this one belong to the range; null: from the start.';
COMMENT ON COLUMN sync_range.upper_key IS 'Keys up to and with this one belong to the range; null: to the end.';
COMMENT ON COLUMN sync_range.cursor_key IS 'Key of the last page written; work goes on after it.';
COMMENT ON COLUMN sync_range.page_at IS 'When its last page was written.';
COMMENT ON COLUMN sync_range.error IS 'Why the last attempt failed.';
COMMENT ON COLUMN sync_range.job_id IS 'The queue''s job that may claim the range.';
COMMENT ON COLUMN sync_range.attempt IS 'Counts the claims.';
COMMENT ON COLUMN sync_range.claim IS 'Random token of the newest claim; a process writes only under the token that it was given. Null: no claim since the range was last handed out.';
COMMENT ON COLUMN sync_range.owner IS 'The process that holds the range.';
COMMENT ON COLUMN sync_range.beat_at IS 'Its last sign of life.';
COMMENT ON COLUMN sync_range.users IS 'Users polled so far.';
COMMENT ON COLUMN sync_range.changed IS 'Users changed so far.';
COMMENT ON COLUMN sync_range.failed IS 'Users failed so far.';
COMMENT ON COLUMN sync_range.calls IS 'API calls so far.';
COMMENT ON COLUMN sync_range.retries IS 'Repeated API calls so far.';
COMMENT ON COLUMN sync_range.counts IS 'Users so far by state and platform, e.g. {"online": {"all": 12, "ios": 7}}.';
COMMENT ON COLUMN sync_range.suspect_answers IS 'How many answers in a row about its page have been suspect; 0: an ordinary range. A suspect page becomes a range of its own, its recheck.';
COMMENT ON COLUMN sync_range.recheck_after IS 'A recheck does not begin before this time.';
COMMENT ON COLUMN sync_range.suspect_pages IS 'Pages of it that were suspect so far.';
COMMENT ON COLUMN sync_range.rejected_answers IS 'Users whose page stayed suspect and was not written.';
COMMENT ON COLUMN sync_range.kept_users IS 'Users of its pages so far who had a snapshot before.';
COMMENT ON COLUMN sync_range.kept_hash IS 'The sum of their ids'' hashes, modulo 2^62.';
COMMENT ON COLUMN sync_range.known_users IS 'Users of its pages so far who have a snapshot after.';
COMMENT ON COLUMN sync_range.known_hash IS 'The sum of their ids'' hashes, modulo 2^62.';

CREATE TABLE sync_run_user (
    run_id  bigint NOT NULL REFERENCES sync_run ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, user_id)
);
COMMENT ON TABLE sync_run_user IS 'The users of a run that is limited to a list (backfill --users-file).';
COMMENT ON COLUMN sync_run_user.run_id IS 'The run.';
COMMENT ON COLUMN sync_run_user.user_id IS 'IM user id, as the user_id expression of the users table yields it.';

-- No foreign key to app, here and in the snapshots: an app's row is never deleted, and the
-- check would lock that row for every user written.
CREATE TABLE user_failure (
    app_id   smallint    NOT NULL,
    kind     text        NOT NULL CHECK (kind IN ('presence', 'accounts')),
    user_id  text COLLATE "C" NOT NULL,
    code     text        NOT NULL,
    message  text        NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL,
    times    bigint      NOT NULL,
    known_at timestamptz,
    PRIMARY KEY (app_id, kind, user_id)
);
COMMENT ON TABLE user_failure IS 'Users without a new value: rejected one by one by the API, or by the check before sending, or contradicted. The row goes when the user succeeds.';
COMMENT ON COLUMN user_failure.app_id IS 'The app.';
COMMENT ON COLUMN user_failure.kind IS 'presence or accounts.';
COMMENT ON COLUMN user_failure.user_id IS 'IM user id; empty for the rows of the users table whose id is NULL or empty.';
COMMENT ON COLUMN user_failure.code IS 'The provider''s code, or invalid_id, null_id, missing, …; contradicted: OpenIM''s get_users_online_status calls the user offline and get_users_status does not.';
COMMENT ON COLUMN user_failure.message IS 'The provider''s message, or that of the check.';
COMMENT ON COLUMN user_failure.first_at IS 'When it failed first with this code; known_at says since when nothing is sure.';
COMMENT ON COLUMN user_failure.last_at IS 'When it was last recorded; a failure that goes on is recorded anew once an hour, and in every backfill.';
COMMENT ON COLUMN user_failure.times IS 'How often it was recorded with this code.';
COMMENT ON COLUMN user_failure.known_at IS 'When the user was last known to have the value of the snapshot, as of the first failure. Null: there was none.';

-- +goose Down

DROP TABLE user_failure;
DROP TABLE sync_run_user;
DROP TABLE sync_range;
DROP TABLE sync_run;
