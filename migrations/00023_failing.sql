-- An outage of an API is on record while it lasts, so that every command can show it.

-- +goose Up

ALTER TABLE api_quota
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN failing_error text;
COMMENT ON COLUMN api_quota.failing_since IS 'When the calls of an instance began to fail without an answer, recorded while they do; over once answered_at is later. NULL if no call fails.';
COMMENT ON COLUMN api_quota.failing_error IS 'The newest of these failures.';

CREATE VIEW api_outage AS
SELECT app_id, api, failing_since AS since, failing_error AS error
FROM api_quota
WHERE failing_since > coalesce(answered_at, '-infinity');
COMMENT ON VIEW api_outage IS 'The APIs that answer no instance at present.';
COMMENT ON COLUMN api_outage.app_id IS 'The app.';
COMMENT ON COLUMN api_outage.api IS 'presence or accounts.';
COMMENT ON COLUMN api_outage.since IS 'When the calls began to fail.';
COMMENT ON COLUMN api_outage.error IS 'The newest failure.';

-- +goose Down

DROP VIEW api_outage;
ALTER TABLE api_quota
    DROP COLUMN failing_since,
    DROP COLUMN failing_error;
