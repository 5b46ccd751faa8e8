-- The margin between call times follows how late calls are, instead of being 20 ms always.

-- +goose Up

ALTER TABLE api_quota ADD COLUMN margin double precision NOT NULL DEFAULT 8000;
COMMENT ON COLUMN api_quota.margin IS 'Call times are (1 s + margin) / rate apart, in microseconds: how late calls of any instance may reach the provider. Programs before schema version 22 take 20,000.';

-- +goose Down

ALTER TABLE api_quota DROP COLUMN margin;
