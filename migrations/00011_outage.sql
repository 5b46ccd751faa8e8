-- Whether an API answers anybody: who is cut off from it must not end a run that
-- others get on with.

-- +goose Up

ALTER TABLE api_quota ADD COLUMN answered_at timestamptz;
COMMENT ON COLUMN api_quota.answered_at IS 'When a call of any instance was last answered, as told by the reservation of call times that followed; null: none yet.';

-- +goose Down

ALTER TABLE api_quota DROP COLUMN answered_at;
