-- The keys of a run's ranges mean something in one order alone: when the key column of
-- the users table is altered, a run that was cut before must not go on by the new one.

-- +goose Up

ALTER TABLE sync_run ADD COLUMN key_order text;
COMMENT ON COLUMN sync_run.key_order IS 'Type, operator family and collation of the users table''s key by which the ranges were cut; null: none is cut yet, the run is limited to a list, or an older program planned it.';

-- +goose Down

ALTER TABLE sync_run DROP COLUMN key_order;
