-- What makes the history true about time: since when a state lasts, when a run
-- really looked, when nobody did, which answers are in doubt, and who left.

-- +goose Up

ALTER TYPE presence_state ADD VALUE IF NOT EXISTS 'rejected';
COMMENT ON TYPE presence_state IS 'Login state of a user. Only ever in the history: removed, the user left the users table; rejected, the API has refused to answer about the user for so long that nothing is known any more.';
ALTER TYPE account_status ADD VALUE IF NOT EXISTS 'rejected';
COMMENT ON TYPE account_status IS 'Whether the IM backend knows a user. Only ever in the history: removed, the user left the users table; rejected, the API has refused to answer about the user for so long that nothing is known any more.';

ALTER TABLE presence_snapshot
    DROP CONSTRAINT presence_snapshot_state_check,
    ADD CONSTRAINT presence_snapshot_state_check CHECK (state IN ('online', 'push_online', 'offline')),
    ADD COLUMN since timestamptz,
    ADD COLUMN since_after timestamptz;
ALTER TABLE account_snapshot
    DROP CONSTRAINT account_snapshot_status_check,
    ADD CONSTRAINT account_snapshot_status_check CHECK (status IN ('imported', 'not_imported'));
ALTER TABLE presence_history
    ADD COLUMN prev_since timestamptz,
    ADD COLUMN prev_since_after timestamptz;

UPDATE presence_snapshot AS s
SET since = h.observed_at, since_after = h.not_before
FROM (
    SELECT DISTINCT ON (app_id, user_id) app_id, user_id, observed_at, not_before
    FROM presence_history
    WHERE prev_state IS DISTINCT FROM state
    ORDER BY app_id, user_id, observed_at DESC
) AS h
WHERE h.app_id = s.app_id AND h.user_id = s.user_id;
UPDATE presence_snapshot SET since = changed_at WHERE since IS NULL;

UPDATE presence_history AS h
SET prev_since = p.since, prev_since_after = p.since_after
FROM presence_history AS t
CROSS JOIN LATERAL (
    SELECT e.observed_at AS since, e.not_before AS since_after
    FROM presence_history AS e
    WHERE e.app_id = t.app_id AND e.user_id = t.user_id AND e.observed_at < t.observed_at
      AND e.prev_state IS DISTINCT FROM e.state
    ORDER BY e.observed_at DESC
    LIMIT 1
) AS p
WHERE t.prev_state IS NOT NULL
  AND h.app_id = t.app_id AND h.user_id = t.user_id AND h.observed_at = t.observed_at;
-- What came before was dropped already: the state lasted at least since then.
UPDATE presence_history SET prev_since = not_before WHERE prev_state IS NOT NULL AND prev_since IS NULL;

ALTER TABLE presence_snapshot
    ALTER COLUMN since SET NOT NULL,
    ADD CHECK (since <= changed_at),
    ADD CHECK (since_after <= since);
ALTER TABLE presence_history
    ADD CHECK ((prev_state IS NULL) = (prev_since IS NULL)),
    ADD CHECK (prev_since_after <= prev_since);

COMMENT ON COLUMN presence_snapshot.since IS 'When the first answer with the present state arrived; a change of the platforms alone does not move it.';
COMMENT ON COLUMN presence_snapshot.since_after IS 'The user was last known to be in another state at this time: the present state began after it and no later than since. Null: the user was first seen in it.';
COMMENT ON COLUMN presence_history.prev_state IS 'State before; null: first seen. Equal to state when only the platforms changed.';
COMMENT ON COLUMN presence_history.prev_since IS 'When the first answer with the previous state arrived: with state it makes of the row a whole stretch of prev_state, from its beginning to its end. Null: first seen.';
COMMENT ON COLUMN presence_history.prev_since_after IS 'The previous state began after this time and no later than prev_since. Null: the user was first seen in it, or first seen here.';
COMMENT ON COLUMN presence_history.state IS 'State after.';

ALTER TABLE sync_run
    ADD COLUMN max_gap interval,
    ADD COLUMN observed_from timestamptz,
    ADD COLUMN observed_until timestamptz,
    ADD COLUMN suspect boolean NOT NULL DEFAULT false,
    ADD COLUMN suspected bigint NOT NULL DEFAULT 0,
    ADD COLUMN disbelieved bigint NOT NULL DEFAULT 0,
    ADD COLUMN removed bigint NOT NULL DEFAULT 0,
    ADD COLUMN reconciled boolean NOT NULL DEFAULT false,
    ADD COLUMN known_users bigint,
    ADD COLUMN known_hash bigint;
UPDATE sync_run SET observed_from = started_at, observed_until = finished_at;
ALTER TABLE sync_run ALTER COLUMN observed_from SET NOT NULL;
CREATE INDEX sync_run_observed ON sync_run (app_id, kind, observed_until);

COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table and believed all answers: status succeeded or partial, not limited to a list, none disbelieved.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed or were not believed; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.plan_ranges IS 'How many ranges there are: those cut from the users table, and the pages in doubt, each a range of its own.';
COMMENT ON COLUMN sync_run.max_gap IS 'By its job''s configuration: when the next complete run begins later than this after the end of this one, the time between counts as not observed. Null: nothing was scheduled to come after it, so any time until the next counts so.';
COMMENT ON COLUMN sync_run.observed_from IS 'Since when it has looked without standing still for longer than max_gap: started_at, or the first page after the last standstill.';
COMMENT ON COLUMN sync_run.observed_until IS 'When its last page was written; null while running.';
COMMENT ON COLUMN sync_run.suspect IS 'Some of its answers are in doubt right now (too many users offline at once) and are being asked again.';
COMMENT ON COLUMN sync_run.suspected IS 'Pages whose answers were in doubt and were asked again.';
COMMENT ON COLUMN sync_run.disbelieved IS 'Users whose answers stayed in doubt and were not written: they keep their last known value.';
COMMENT ON COLUMN sync_run.removed IS 'Users who were found to have left the users table.';
COMMENT ON COLUMN sync_run.reconciled IS 'It is known who left the users table since the previous complete run.';
COMMENT ON COLUMN sync_run.known_users IS 'Users seen by the run that have a snapshot. With known_hash it tells the next run whether anybody left. Null: some may have one whom the run did not see, so that the next one has to read the whole users table.';
COMMENT ON COLUMN sync_run.known_hash IS 'Their ids'' hashes, combined with XOR.';

ALTER TABLE sync_range
    ADD COLUMN page_at timestamptz,
    ADD COLUMN suspicion int NOT NULL DEFAULT 0,
    ADD COLUMN ask_after timestamptz,
    ADD COLUMN suspected bigint NOT NULL DEFAULT 0,
    ADD COLUMN disbelieved bigint NOT NULL DEFAULT 0,
    ADD COLUMN kept_users bigint NOT NULL DEFAULT 0,
    ADD COLUMN kept_hash bigint NOT NULL DEFAULT 0,
    ADD COLUMN known_users bigint NOT NULL DEFAULT 0,
    ADD COLUMN known_hash bigint NOT NULL DEFAULT 0;

COMMENT ON COLUMN sync_range.page_at IS 'When its last page was written.';
COMMENT ON COLUMN sync_range.suspicion IS 'How many answers in a row about its users have been in doubt; 0: an ordinary range. A page in doubt becomes a range of its own.';
COMMENT ON COLUMN sync_range.ask_after IS 'A range in doubt is not asked again before this time.';
COMMENT ON COLUMN sync_range.suspected IS 'Pages of it that were put in doubt so far.';
COMMENT ON COLUMN sync_range.disbelieved IS 'Users whose answers stayed in doubt.';
COMMENT ON COLUMN sync_range.kept_users IS 'Users of its pages so far who had a snapshot before.';
COMMENT ON COLUMN sync_range.kept_hash IS 'Their ids'' hashes, combined with XOR.';
COMMENT ON COLUMN sync_range.known_users IS 'Users of its pages so far who have a snapshot after.';
COMMENT ON COLUMN sync_range.known_hash IS 'Their ids'' hashes, combined with XOR.';

ALTER TABLE user_failure ADD COLUMN known_at timestamptz;
COMMENT ON COLUMN user_failure.known_at IS 'When the user was last known to have the value of the snapshot, as of the first failure. Null: there was none.';

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
COMMENT ON TABLE observation_gap IS 'Stretches in which nobody looked at an app''s users, recorded by the run that ended them. The view sync_gap adds the one that is open.';
COMMENT ON COLUMN observation_gap.app_id IS 'The app.';
COMMENT ON COLUMN observation_gap.kind IS 'presence or accounts.';
COMMENT ON COLUMN observation_gap.started_at IS 'End of the last complete run''s observation.';
COMMENT ON COLUMN observation_gap.ended_at IS 'Beginning of the next complete run''s observation.';
COMMENT ON COLUMN observation_gap.last_seen_from IS 'Beginning of the last complete run: every user was seen at some time from here to started_at.';
COMMENT ON COLUMN observation_gap.next_seen_by IS 'End of the next complete run''s observation: every user was seen again at some time from ended_at to here.';
COMMENT ON COLUMN observation_gap.run_id IS 'The run that ended the gap.';

-- +goose Down

DROP TABLE observation_gap;
ALTER TABLE user_failure DROP COLUMN known_at;
ALTER TABLE sync_range
    DROP COLUMN page_at, DROP COLUMN suspicion, DROP COLUMN ask_after, DROP COLUMN suspected, DROP COLUMN disbelieved,
    DROP COLUMN kept_users, DROP COLUMN kept_hash, DROP COLUMN known_users, DROP COLUMN known_hash;
ALTER TABLE sync_run
    DROP COLUMN max_gap, DROP COLUMN observed_from, DROP COLUMN observed_until, DROP COLUMN suspect, DROP COLUMN suspected,
    DROP COLUMN disbelieved, DROP COLUMN removed, DROP COLUMN reconciled, DROP COLUMN known_users, DROP COLUMN known_hash;
ALTER TABLE presence_history DROP COLUMN prev_since, DROP COLUMN prev_since_after;
ALTER TABLE presence_snapshot
    DROP CONSTRAINT presence_snapshot_state_check,
    ADD CONSTRAINT presence_snapshot_state_check CHECK (state <> 'removed'),
    DROP COLUMN since, DROP COLUMN since_after;
ALTER TABLE account_snapshot
    DROP CONSTRAINT account_snapshot_status_check,
    ADD CONSTRAINT account_snapshot_status_check CHECK (status <> 'removed');
-- An enum's value cannot be taken away: rejected stays, unused.
