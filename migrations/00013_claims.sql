-- A claim on a range, or on the planning of a run, carries a random token: after a
-- failover or the restore of a backup the count of the claims can repeat itself, and
-- two processes would hold the same one.

-- +goose Up

ALTER TABLE sync_range ADD COLUMN claim uuid;
ALTER TABLE sync_run ADD COLUMN plan_claim uuid;

COMMENT ON COLUMN sync_range.claim IS 'Random token of the newest claim; a process writes only under the token that it was given. Null: no claim since the range was last handed out.';
COMMENT ON COLUMN sync_range.attempt IS 'Counts the claims.';
COMMENT ON COLUMN sync_run.plan_claim IS 'Random token of the newest claim on the planning, as sync_range.claim.';
COMMENT ON COLUMN sync_run.plan_attempt IS 'Counts the claims of the planning.';
COMMENT ON COLUMN sync_run.known_users IS 'Rows of the users table seen by the run whose user has a snapshot. With known_hash it tells the next run whether anybody left. Null: some may have one whom the run did not see, so that the next one has to read the whole users table.';
COMMENT ON COLUMN sync_run.known_hash IS 'The sum of their ids'' hashes, modulo 2^62.';
COMMENT ON COLUMN sync_range.kept_hash IS 'The sum of their ids'' hashes, modulo 2^62.';
COMMENT ON COLUMN sync_range.known_hash IS 'The sum of their ids'' hashes, modulo 2^62.';

-- +goose Down

COMMENT ON COLUMN sync_range.known_hash IS 'Their ids'' hashes, combined with XOR.';
COMMENT ON COLUMN sync_range.kept_hash IS 'Their ids'' hashes, combined with XOR.';
COMMENT ON COLUMN sync_run.known_hash IS 'Their ids'' hashes, combined with XOR.';
COMMENT ON COLUMN sync_run.known_users IS 'Users seen by the run that have a snapshot. With known_hash it tells the next run whether anybody left. Null: some may have one whom the run did not see, so that the next one has to read the whole users table.';

COMMENT ON COLUMN sync_run.plan_attempt IS 'Counts the claims of the planning; an older claim may not write.';
COMMENT ON COLUMN sync_range.attempt IS 'Counts the claims; a page may be written only under the newest one.';
ALTER TABLE sync_run DROP COLUMN plan_claim;
ALTER TABLE sync_range DROP COLUMN claim;
