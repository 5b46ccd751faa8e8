package migrations_test

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// stranger connects as a new role that may connect, may read what reports read, and may
// do nothing else.
func stranger(t testing.TB, conn *pgx.Conn, url string) *pgx.Conn {
	t.Helper()
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	run(t, conn, "CREATE ROLE "+role)
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	run(t, conn, "GRANT USAGE ON SCHEMA syncer TO "+role)
	run(t, conn, "GRANT SELECT ON ALL TABLES IN SCHEMA syncer TO "+role)
	return connect(t, withParameter(t, url, "role", role))
}

// advisoryKeysSQL gives the advisory locks, one by one, that a session can guess to be
// those of a table.
const advisoryKeysSQL = `
SELECT count(pg_advisory_lock(key)) FROM (
    SELECT 'presence_history'::regclass::oid::bigint AS key
    UNION ALL
    SELECT ('presence_rollup'::regclass::oid::bigint << 16) + app FROM generate_series(0, 9) AS app
) AS k`

// TestMaintenanceLocks: a role that does not write to the tables cannot keep others from
// maintaining them: no lock that it can take is in the way.
func TestMaintenanceLocks(t *testing.T) {
	t.Parallel()
	conn := tenDays(t)
	closed(t, conn, "2026-11-10 00:00")
	other := stranger(t, conn, conn.Config().ConnString())
	run(t, other, advisoryKeysSQL)
	for _, statement := range []string{
		`DO 'BEGIN LOCK TABLE ONLY presence_history IN ROW EXCLUSIVE MODE; END'`,
		`DO 'BEGIN LOCK TABLE ONLY presence_history IN SHARE UPDATE EXCLUSIVE MODE; END'`,
		`SELECT FROM presence_rollup FOR SHARE`,
		`SELECT lock_for_maintenance('presence_history')`,
		`SELECT lock_for_maintenance('presence_rollup')`,
	} {
		_, err := other.Exec(t.Context(), statement)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "42501" {
			t.Errorf("%s by a role that only reads: %v; want insufficient_privilege", statement, err)
		}
	}
	if made := column[*int](t, conn, `SELECT make_history_partitions('day', '2026-11-01', '2026-11-13')`)[0]; made == nil || *made != 24 {
		t.Errorf("make_history_partitions = %v, want 24", made)
	}
	if dropped := column[*int](t, conn, `SELECT drop_history_partitions('2026-11-02')`)[0]; dropped == nil || *dropped != 2 {
		t.Errorf("drop_history_partitions = %v, want 2", dropped)
	}
	expect(t, conn, `SELECT roll_up_presence(1::smallint, 'UTC', '-infinity')`, "true")
	expect(t, conn, `SELECT (until_day IS NOT NULL)::text FROM presence_rollup`, "true")
}

// TestMaintenanceOneAtATime: what is at work keeps others from it, and says so: they
// give way, and try again later.
func TestMaintenanceOneAtATime(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn, other := connect(t, url), connect(t, url)
	run(t, other, `BEGIN`)
	run(t, other, `SELECT make_history_partitions('day', '2026-11-20', '2026-11-21')`)
	for _, call := range []string{
		`SELECT make_history_partitions('day', '2026-11-20', '2026-11-30')`,
		`SELECT drop_history_partitions('2026-11-22')`,
	} {
		if did := column[*int](t, conn, call)[0]; did != nil {
			t.Errorf("%s while another session is at it: %d, want null", call, *did)
		}
	}
	run(t, other, `COMMIT`)
	if diff := cmp.Diff([]string{"20261120 to 20261121"}, spans(t, conn, "presence_history")); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
}
