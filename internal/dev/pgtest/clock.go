package pgtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// clockSQL makes functions that hide those of pg_catalog from sessions that begin
// later with the default search_path.
const clockSQL = `
CREATE SCHEMA wrong_clock;
GRANT USAGE ON SCHEMA wrong_clock TO PUBLIC;
CREATE TABLE wrong_clock.ahead (by interval NOT NULL);
GRANT SELECT ON wrong_clock.ahead TO PUBLIC;
INSERT INTO wrong_clock.ahead VALUES ('0');
CREATE FUNCTION wrong_clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.clock_timestamp() + by FROM wrong_clock.ahead';
CREATE FUNCTION wrong_clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now() + by FROM wrong_clock.ahead';
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = wrong_clock, pg_catalog, public', current_database()); END $$`

// Clock makes the clock of a database adjustable: set sets by how much it is ahead.
// That applies to clock_timestamp() and now() in statements of sessions that begin
// later; functions and views keep the true time.
func Clock(t testing.TB, databaseURL string) (set func(ahead time.Duration)) {
	t.Helper()
	exec := func(statement string, args ...any) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		conn, err := pgx.Connect(ctx, databaseURL)
		if err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, statement, args...); err != nil {
			t.Fatalf("pgtest: set the clock: %v", err)
		}
	}
	exec(clockSQL)
	return func(ahead time.Duration) {
		t.Helper()
		exec(`UPDATE wrong_clock.ahead SET by = $1`, ahead)
	}
}
