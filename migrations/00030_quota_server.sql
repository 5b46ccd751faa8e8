-- Call times that a failed primary gave out are not given out again by the promoted standby.

-- +goose Up

ALTER TABLE api_quota ADD COLUMN server_started_at timestamptz;
COMMENT ON COLUMN api_quota.server_started_at IS 'When the server that gave out the latest call times was started. Another server, such as a promoted standby, may not know all of them, and waits until they are over.';

-- +goose Down

ALTER TABLE api_quota DROP COLUMN server_started_at;
