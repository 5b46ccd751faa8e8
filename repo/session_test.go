package repo_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"syncer/internal/pg"
)

// TestSessionSettings: sessions do not take the timeouts of role or database, which
// would cut an idle listener and statements that read whole tables.
func TestSessionSettings(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `
DO $$
DECLARE
    setting record;
BEGIN
    FOR setting IN
        SELECT name FROM pg_settings
        WHERE name IN ('idle_session_timeout', 'statement_timeout', 'lock_timeout', 'transaction_timeout')
    LOOP
        EXECUTE format('ALTER DATABASE %I SET %s = 100', current_database(), setting.name);
    END LOOP;
END $$`)
	store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "p"})
	listener, err := store.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Release()
	if _, err := listener.Exec(t.Context(), `LISTEN news`); err != nil {
		t.Fatal(err)
	}

	// Another session, idle for a shorter time, is cut.
	other := connect(t, b.url)
	const idleSessionTimeout = "57P05"
	_, err = other.WaitForNotification(t.Context())
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != idleSessionTimeout {
		t.Fatalf("another session that was idle: %v; want SQLSTATE %s", err, idleSessionTimeout)
	}
	rows, err := listener.Query(t.Context(), `
SELECT name || ' ' || setting
FROM pg_settings
WHERE name IN ('idle_session_timeout', 'statement_timeout', 'lock_timeout', 'transaction_timeout') AND setting <> '0'`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, err := rows.Values()
		t.Errorf("in force: %v, %v", values, err)
	}
	if err := rows.Err(); err != nil {
		t.Errorf("the listener was cut: %v", err)
	}

	// What is in the URL is meant for this program.
	own := openStore(t, pg.Config{URL: withParameters(t, b.url, "statement_timeout", "77s"), Schema: "syncer", MaxConns: 1, Process: "q"})
	var timeout string
	if err := own.Pool().QueryRow(t.Context(), `SHOW statement_timeout`).Scan(&timeout); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("77s", timeout); diff != "" {
		t.Errorf("statement_timeout of the URL (-want +got):\n%s", diff)
	}
}
