package migrations_test

import "testing"

const lastOnlineSQL = `SELECT user_id, state::text, last_online_after, last_online_at FROM presence_current ORDER BY user_id`

// TestLastOnline: the snapshot keeps when the last stretch online ended; while the user is
// online, that end is open and the last look its lower bound. The migration takes it from
// the history.
func TestLastOnline(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	m, conn := open(t, url, schema), connect(t, url)
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-10-01')`)
	addRun(t, conn, 1, "presence", "12:00", "12:01", "1 hour")
	asOf(t, conn, "2026-11-02 12:10+00")
	run(t, conn, `
INSERT INTO presence_history (app_id, user_id, prev_state, prev_since, state, platforms, not_before, observed_at, run_id)
SELECT 1, user_id, prev::presence_state, day + since::interval, state::presence_state, '{}', day + after::interval, day + at::interval, 1
FROM (VALUES
    ('came back', 'online', '08:00', 'offline', '08:30', '08:40'),
    ('came back', 'offline', '08:40', 'online', '09:00', '09:10'),
    ('left twice', 'online', '08:00', 'offline', '08:30', '08:40'),
    ('left twice', 'online', '09:10', 'push_online', '09:30', '09:40'),
    ('left twice', 'push_online', '09:40', 'offline', '10:00', '10:10'),
    ('never', NULL, NULL, 'offline', NULL, '08:00'),
    ('rejected', NULL, NULL, 'online', NULL, '08:00'),
    ('rejected', 'online', '08:00', 'rejected', '08:00', '09:00'),
    ('rejected', NULL, NULL, 'push_online', NULL, '09:10')
) AS h (user_id, prev, since, state, after, at), (SELECT timestamptz '2026-11-02 00:00+00' AS day) AS d`)
	addSnapshot(t, conn, 1, "came back", "online", "09:09", bracket{"09:00", "09:10"})
	addSnapshot(t, conn, 1, "failing", "online", "09:09", bracket{"09:00", "09:10"})
	addFailure(t, conn, 1, "presence", "failing", "11:00")
	addSnapshot(t, conn, 1, "left twice", "offline", "10:09", bracket{"10:00", "10:10"})
	addSnapshot(t, conn, 1, "never", "offline", "08:00", bracket{"", "08:00"})
	addSnapshot(t, conn, 1, "rejected", "push_online", "09:10", bracket{"", "09:10"})
	if _, err := m.Down(t.Context(), 31); err != nil {
		t.Fatal(err)
	}
	up(t, m)
	expect(t, conn, lastOnlineSQL,
		"came back online 12:00:00 -",
		"failing online 11:00:00 -",
		"left twice offline 09:30:00 09:40:00",
		"never offline - -",
		"rejected push_online - -",
	)
}
