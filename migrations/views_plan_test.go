package migrations_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const manyStretchesSQL = `
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after)
SELECT 1, 'user' || n, 'online', 'offline', '{}', at + interval '1 hour', at + interval '1 hour', 1, at, at
FROM generate_series(1, 2000) AS n
CROSS JOIN LATERAL (SELECT timestamptz '2026-11-03 10:00+00' + n * interval '1 second' AS at) AS a`

// TestActiveUsersComputesDaysOnce: when days begin is not computed for each row of the
// history, in the zone of the roll-up and in one whose days of 25 hours need the history.
func TestActiveUsersComputesDaysOnce(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	closed(t, conn, "2026-11-03 00:00")
	rollUp(t, conn, "UTC", "-infinity")
	run(t, conn, `SET track_functions = 'all'`)
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/Havana"} {
		few := dayStarts(t, conn, zone)
		run(t, conn, manyStretchesSQL)
		if many := dayStarts(t, conn, zone); many != few {
			t.Errorf("%s: %d calls of day_start with ten rows, %d with 2,000 more", zone, few, many)
		}
		run(t, conn, `DELETE FROM presence_history WHERE user_id LIKE 'user%'`)
	}
}

// dayStarts returns how often one query of active_users calls day_start.
func dayStarts(t *testing.T, conn *pgx.Conn, zone string) int64 {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	counted := func() (calls int64) {
		// Calls of earlier transactions that were not reported yet count too.
		const callsSQL = `SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_xact_user_functions WHERE funcname = 'day_start' AND schemaname = 'syncer'`
		if err := tx.QueryRow(t.Context(), callsSQL).Scan(&calls); err != nil {
			t.Fatal(err)
		}
		return calls
	}
	before := counted()
	if _, err := tx.Exec(t.Context(), `SELECT FROM active_users('2026-11-01', '2026-11-10', $1)`, pgx.QueryExecModeExec, zone); err != nil {
		t.Fatal(err)
	}
	return counted() - before
}

// TestSessionsInParallel: workers aggregate sessions, and not only read the history.
func TestSessionsInParallel(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	run(t, conn, manyStretchesSQL)
	run(t, conn, `ANALYZE presence_history`)
	for _, setting := range []string{"min_parallel_table_scan_size", "parallel_setup_cost", "parallel_tuple_cost"} {
		run(t, conn, `SET `+setting+` = 0`)
	}
	plan := strings.Join(column[string](t, conn, `EXPLAIN SELECT count(*), sum(estimated_seconds) FROM presence_session`), "\n")
	if !strings.Contains(plan, "Partial Aggregate") || !strings.Contains(plan, "Parallel Append") {
		t.Errorf("the plan has no parallel aggregation:\n%s", plan)
	}
	expect(t, conn, `SELECT count(*) FROM presence_session`, "2011")
}
