-- Which population an app's history is about: the tenant behind the app's name,
-- and whether users who are missing from the users table may be removed.

-- +goose Up

ALTER TABLE app
    ADD COLUMN tenant          text,
    ADD COLUMN tenant_since    timestamptz,
    ADD COLUMN earlier_tenants jsonb NOT NULL DEFAULT '[]';
COMMENT ON COLUMN app.tenant IS 'The tenant whose users the app''s rows are about: SDKAppID of Tencent Chat, or the normalised base URL of an OpenIM deployment. A process that is configured for another tenant is refused. Null: not recorded yet.';
COMMENT ON COLUMN app.tenant_since IS 'When tenant was recorded.';
COMMENT ON COLUMN app.earlier_tenants IS 'Tenants before the present one, oldest first, as syncer app moved recorded them: [{"tenant": "https://old.example", "until": "2026-11-22T12:00:00Z"}].';

ALTER TABLE sync_run
    ADD COLUMN let_leave boolean NOT NULL DEFAULT false,
    ADD COLUMN held_back bigint  NOT NULL DEFAULT 0;
COMMENT ON COLUMN sync_run.let_leave IS 'The operator confirmed, with syncer backfill --let-leave, that any number of users may have left the users table.';
COMMENT ON COLUMN sync_run.held_back IS 'Users who were missing from the users table and were not removed, because they were too many to be believed. They keep their snapshots, and the run is not complete.';
COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table, rejected no answers and held no user back: status succeeded or partial, not limited to a list, rejected_answers and held_back 0.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed, had their answers rejected or were held back from removal; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.error IS 'Why the run failed or was cancelled, why answers were rejected, or why no user was removed.';

-- +goose Down

COMMENT ON COLUMN sync_run.error IS 'Why the run failed or was cancelled.';
COMMENT ON COLUMN sync_run.status IS 'running; succeeded: every user answered; partial: done, but some users failed or their answers were rejected; failed; cancelled; skipped: the previous run was still going at the tick.';
COMMENT ON COLUMN sync_run.complete IS 'It went through the whole users table and rejected no answers: status succeeded or partial, not limited to a list, rejected_answers 0.';
ALTER TABLE sync_run DROP COLUMN let_leave, DROP COLUMN held_back;
ALTER TABLE app DROP COLUMN tenant, DROP COLUMN tenant_since, DROP COLUMN earlier_tenants;
