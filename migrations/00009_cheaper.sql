-- What costs a sweep more than it is worth: a foreign key checked for every user
-- that is written, and a row written for every user who goes on failing.

-- +goose Up

-- An app's row is never removed, and each sweep writes for one app that it has
-- read: the check could find nothing, and locked that row for each user written.
ALTER TABLE presence_snapshot DROP CONSTRAINT presence_snapshot_app_id_fkey;
ALTER TABLE account_snapshot DROP CONSTRAINT account_snapshot_app_id_fkey;
ALTER TABLE user_failure DROP CONSTRAINT user_failure_app_id_fkey;

ALTER TABLE sync_run ADD COLUMN failures_recorded_at timestamptz;
COMMENT ON COLUMN sync_run.failures_recorded_at IS 'When failures that go on were last recorded anew, as of this run: its own start, if it did so itself. That is once an hour, and in every backfill; in between only new failures are recorded.';
COMMENT ON COLUMN user_failure.last_at IS 'When it was last recorded; a failure that goes on is recorded anew once an hour, and in every backfill.';
COMMENT ON COLUMN user_failure.times IS 'How often it was recorded.';

-- +goose Down

COMMENT ON COLUMN user_failure.last_at IS 'When it failed last.';
COMMENT ON COLUMN user_failure.times IS 'In how many pages of runs it failed.';
ALTER TABLE sync_run DROP COLUMN failures_recorded_at;
ALTER TABLE user_failure ADD CONSTRAINT user_failure_app_id_fkey FOREIGN KEY (app_id) REFERENCES app;
ALTER TABLE account_snapshot ADD CONSTRAINT account_snapshot_app_id_fkey FOREIGN KEY (app_id) REFERENCES app;
ALTER TABLE presence_snapshot ADD CONSTRAINT presence_snapshot_app_id_fkey FOREIGN KEY (app_id) REFERENCES app;
