-- Apps, and what all instances of syncer share: the clocks of API calls and the name of
-- the channel that announces work.
--
-- Each file of this folder holds one subject. Each creates its objects once, in their
-- final form, with a comment for every table, column, view, type and function. Names are
-- unqualified: the search_path of the migrating connection is the configured schema.
-- Numbers begin at 10, because schemas of development versions recorded 1 to 24.

-- +goose Up

CREATE TABLE app (
    app_id          smallint    GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text        NOT NULL UNIQUE,
    provider        text        NOT NULL CHECK (provider IN ('tencent', 'openim')),
    created_at      timestamptz NOT NULL,
    tenant          text,
    tenant_since    timestamptz,
    earlier_tenants jsonb       NOT NULL DEFAULT '[]'
);
COMMENT ON TABLE app IS 'One IM tenant: a Tencent Chat SDKAppID or an OpenIM deployment.';
COMMENT ON COLUMN app.app_id IS 'Number of the app in all other tables.';
COMMENT ON COLUMN app.name IS 'Name of the app in the configuration.';
COMMENT ON COLUMN app.provider IS 'tencent or openim.';
COMMENT ON COLUMN app.created_at IS 'When syncer first saw the app in its configuration.';
COMMENT ON COLUMN app.tenant IS 'The tenant whose users the app''s rows are about: SDKAppID of Tencent Chat, or the normalised base URL of an OpenIM deployment. A process that is configured for another tenant is refused. Null: not recorded yet.';
COMMENT ON COLUMN app.tenant_since IS 'When tenant was recorded.';
COMMENT ON COLUMN app.earlier_tenants IS 'Tenants before the present one, oldest first, as syncer app moved recorded them: [{"tenant": "https://old.example", "until": "2026-11-22T12:00:00Z"}].';

-- The row of an API gives out the times of its calls: an instance reserves a few by
-- moving next_at forward.
CREATE TABLE api_quota (
    app_id            smallint         NOT NULL REFERENCES app,
    api               text             NOT NULL,
    rate              double precision NOT NULL CHECK (rate > 0),
    margin            double precision NOT NULL DEFAULT 8000,
    next_at           timestamptz      NOT NULL,
    throttled_at      timestamptz,
    answered_at       timestamptz,
    failing_since     timestamptz,
    failing_error     text,
    server_started_at timestamptz,
    PRIMARY KEY (app_id, api)
) WITH (fillfactor = 10); -- updated ten times a second: leaves room for HOT updates
COMMENT ON TABLE api_quota IS 'The clock from which all instances take the times of their API calls.';
COMMENT ON COLUMN api_quota.app_id IS 'The app.';
COMMENT ON COLUMN api_quota.api IS 'presence or accounts.';
COMMENT ON COLUMN api_quota.rate IS 'Calls a second at throttled_at; it recovers from there to the configured rate step by step.';
COMMENT ON COLUMN api_quota.margin IS 'Call times are (1 s + margin) / rate apart, in microseconds: how late calls of any instance may reach the provider.';
COMMENT ON COLUMN api_quota.next_at IS 'The next call time that no instance has reserved.';
COMMENT ON COLUMN api_quota.throttled_at IS 'When the provider last answered that syncer exceeds its rate limit.';
COMMENT ON COLUMN api_quota.answered_at IS 'When a call of any instance was last answered; the instance records it with its next reservation of call times. Null: none yet.';
COMMENT ON COLUMN api_quota.failing_since IS 'When the calls of an instance began to fail without an answer, recorded while they do; over once answered_at is later. NULL if no call fails.';
COMMENT ON COLUMN api_quota.failing_error IS 'The newest of these failures.';
COMMENT ON COLUMN api_quota.server_started_at IS 'When the server that gave out the latest call times was started. Another server, such as a promoted standby, may not know all of them, and waits until they are over.';

CREATE VIEW api_outage AS
SELECT app_id, api, failing_since AS since, failing_error AS error
FROM api_quota
WHERE failing_since > coalesce(answered_at, '-infinity');
COMMENT ON VIEW api_outage IS 'The APIs that answer no instance at present.';
COMMENT ON COLUMN api_outage.app_id IS 'The app.';
COMMENT ON COLUMN api_outage.api IS 'presence or accounts.';
COMMENT ON COLUMN api_outage.since IS 'When the calls began to fail.';
COMMENT ON COLUMN api_outage.error IS 'The newest failure.';

-- Any role that may connect can send notifications on a channel whose name it knows.
-- The name is therefore random, and only workers may read it.
CREATE TABLE queue_channel (
    name text NOT NULL
);
COMMENT ON TABLE queue_channel IS 'One row: the channel on which workers announce new work to each other. Roles that are no workers must not read it: a role that knows the name can flood the channel.';
COMMENT ON COLUMN queue_channel.name IS 'The name of the channel after the schema and a dot; random.';
INSERT INTO queue_channel VALUES ('work_' || replace(gen_random_uuid()::text, '-', ''));

-- +goose Down

DROP TABLE queue_channel;
DROP VIEW api_outage;
DROP TABLE api_quota;
DROP TABLE app;
