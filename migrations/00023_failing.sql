-- An outage of an API is on record while it lasts, so that every command can show it.

-- +goose Up

ALTER TABLE api_quota
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN failing_error text;
COMMENT ON COLUMN api_quota.failing_since IS 'When the calls of an instance began to fail without an answer, recorded while they do; over once answered_at is later. NULL if that never happened.';
COMMENT ON COLUMN api_quota.failing_error IS 'The newest of these failures.';

-- +goose Down

ALTER TABLE api_quota
    DROP COLUMN failing_since,
    DROP COLUMN failing_error;
