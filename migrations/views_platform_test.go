package migrations_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestPlatformSessions: a platform has a bracket of its own at both ends, is not cut where
// others come and go, and does not count while it is reachable by push alone.
func TestPlatformSessions(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01')`)
	for _, r := range [][2]string{{"08:00", "08:01"}, {"12:00", "12:01"}} {
		addRun(t, conn, 1, "presence", r[0], r[1], "5 hours")
	}
	asOf(t, conn, "2026-11-02 12:10+00")
	run(t, conn, `
INSERT INTO presence_history (app_id, user_id, prev_state, prev_since_after, prev_since, state, platforms, not_before, observed_at, run_id)
SELECT 1, user_id, prev::presence_state, day + since_after::interval, day + since::interval, state::presence_state, platforms::jsonb, day + after::interval, day + at::interval, 1
FROM (VALUES
    ('ann', NULL, NULL, NULL, 'offline', '{}', NULL, '08:00'),
    ('ann', 'offline', NULL, '08:00', 'online', '{"ios": "online"}', '08:10', '08:20'),
    ('ann', 'online', '08:10', '08:20', 'online', '{"ios": "online", "web": "online"}', '08:30', '08:40'),
    ('ann', 'online', '08:10', '08:20', 'online', '{"web": "online", "ios": "push_online"}', '08:50', '09:00'),
    ('ann', 'online', '08:10', '08:20', 'online', '{"web": "online", "ios": "online"}', '09:10', '09:20'),
    ('ann', 'online', '08:10', '08:20', 'push_online', '{"ios": "push_online"}', '09:30', '09:40'),
    -- What came before was dropped.
    ('bob', 'online', NULL, '07:00', 'online', '{"web": "online"}', '08:10', '08:20'),
    ('bob', 'online', NULL, '07:00', 'offline', '{}', '08:30', '08:40')
) AS h (user_id, prev, since_after, since, state, platforms, after, at), (SELECT timestamptz '2026-11-02 00:00+00' AS day) AS d`)
	// All rows were dropped; the value has not changed since the snapshot was written.
	addSnapshot(t, conn, 1, "cho", "online", "08:00", bracket{"", "08:00"})
	expect(t, conn, `SELECT user_id, platform, started_after, started_at, ended_after, ended_at, known_seconds, estimated_seconds, ended_by FROM presence_platform_session ORDER BY 1, 2, 4`,
		"ann ios 08:10:00 08:20:00 08:50:00 09:00:00 1800 2400 observed",
		"ann ios 09:10:00 09:20:00 09:30:00 09:40:00 600 1200 observed",
		"ann web 08:30:00 08:40:00 09:30:00 09:40:00 3000 3600 observed",
		"bob web - 08:20:00 08:30:00 08:40:00 600 900 observed",
		"cho ios - 08:00:00 12:00:00 - 14400 14460 open",
	)
	expect(t, conn, `SELECT user_id, platform, day::text, online_seconds, sessions FROM presence_platform_daily('2026-11-02', '2026-11-02', 'UTC') ORDER BY 1, 2`,
		"ann ios 2026-11-02 3600 2",
		"ann web 2026-11-02 3600 1",
		"bob web 2026-11-02 900 1",
		"cho ios 2026-11-02 14460 1",
	)
	expect(t, conn, `SELECT count(*) FROM presence_platform_daily('2026-11-03', '2026-11-04', 'UTC')`, "0")
}

func TestAppNamed(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	refused := func(hint string) {
		t.Helper()
		_, err := conn.Exec(t.Context(), `SELECT count(*) FROM presence_current WHERE app_id = (SELECT app_named('mian'))`)
		var failure *pgconn.PgError
		if !errors.As(err, &failure) || failure.Message != "there is no app 'mian'" || failure.Hint != hint {
			t.Errorf("an unknown app: %v", err)
		}
	}
	refused("Apps: none yet.")
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01'), ('chat', 'openim', '2026-10-01')`)
	refused("Apps: chat, main.")
	expect(t, conn, `SELECT app_named('chat'), app_named(NULL)`, "2 -")
}
