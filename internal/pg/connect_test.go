package pg_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
)

// TestSessionSettings: sessions do not take the timeouts of role or database, which
// would cut an idle listener and statements that read whole tables.
func TestSessionSettings(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `
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
	db := open(t, pg.Config{URL: url, MaxConns: 2, Process: "p"})
	listener, err := db.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Release()
	if _, err := listener.Exec(t.Context(), `LISTEN news`); err != nil {
		t.Fatal(err)
	}

	// Another session, idle for a shorter time, is cut.
	other := pgtest.Connect(t, url)
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
	own := open(t, pg.Config{URL: pgtest.WithParameters(t, url, "statement_timeout", "77s"), MaxConns: 1, Process: "q"})
	var timeout string
	if err := own.Pool().QueryRow(t.Context(), `SHOW statement_timeout`).Scan(&timeout); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("77s", timeout); diff != "" {
		t.Errorf("statement_timeout of the URL (-want +got):\n%s", diff)
	}
}

// TestClientEncoding: text is exchanged in UTF-8, whatever role, database and URL set.
func TestClientEncoding(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	name := pgtest.Value[string](t, conn, `SELECT current_database()`)
	for _, encoding := range []string{"latin1", "GBK", "SQL_ASCII", "SJIS"} {
		pgtest.Exec(t, conn, `ALTER DATABASE `+name+` SET client_encoding = `+encoding)
		for _, url := range []string{url, pgtest.WithParameters(t, url, "client_encoding", encoding)} {
			for _, pollOnly := range []bool{false, true} {
				db := open(t, pg.Config{URL: url, MaxConns: 1, Process: "p", PollOnly: pollOnly})
				var encoded, text string
				// The queue's listener takes a connection of the pool.
				if err := db.Pool().QueryRow(t.Context(), `SELECT current_setting('client_encoding'), encode(convert_to($1, 'UTF8'), 'hex')`, "Zoë").Scan(&encoded, &text); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff("UTF8 5a6fc3ab", encoded+" "+text); diff != "" {
					t.Errorf("client_encoding = %s, poll_only %t (-want +got):\n%s", encoding, pollOnly, diff)
				}
				db.Close()
			}
		}
	}
}
