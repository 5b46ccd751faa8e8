package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What reporting reads, and what that is made of: functions read as whoever
// calls them. Not the queue's tables, nor the quota: they hold nothing to report.
var (
	readTables = []string{
		"goose_db_version", "app", "sync_run", "sync_range", "observation_gap", "user_failure",
		"presence_snapshot", "presence_history", "presence_count", "presence_day", "presence_rollup",
		"account_snapshot", "account_history",
		"sync_observed", "sync_gap", "presence_ended_stretch", "presence_open_stretch", "presence_session", "presence_current", "presence_concurrency",
		"account_current", "account_coverage",
	}
	readFunctions = []string{
		"as_of()", "presence_daily(date, date, text)", "active_users(date, date, text)",
		"presence_gaps()", "presence_slots(date, date, text, boolean)", "presence_daily_from_history(date, date, text, boolean)",
	}
)

// GrantReaderSQL gives the statements that let a role read everything that
// reporting reads, and nothing else. Running them again changes nothing.
func GrantReaderSQL(schema, role string) []string {
	to := " TO " + pgx.Identifier{role}.Sanitize()
	return []string{
		"GRANT USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize() + to,
		"GRANT SELECT ON\n    " + strings.Join(quoted(schema, readTables), ",\n    ") + "\n   " + to,
		"GRANT EXECUTE ON FUNCTION\n    " + strings.Join(quoted(schema, readFunctions), ",\n    ") + "\n   " + to,
	}
}

// quoted puts the schema before the names.
func quoted(schema string, names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = pgx.Identifier{schema}.Sanitize() + "." + name
	}
	return all
}

const notReadableSQL = `
SELECT t.name
FROM unnest($2::text[]) AS t (name)
WHERE NOT has_table_privilege($1, t.name, 'SELECT')
LIMIT 1`

// GrantReader lets a role read what reporting reads.
func (s *Store) GrantReader(ctx context.Context, role string) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, statement := range GrantReaderSQL(s.schema, role) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		// Who may read, but not grant, only gets a warning.
		var missing string
		err := tx.QueryRow(ctx, notReadableSQL, role, quoted(s.schema, readTables)).Scan(&missing)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return &pgconn.PgError{Severity: "WARNING", Code: insufficientPrivilege, Message: "no privileges were granted on " + missing}
	})
	switch {
	case sqlState(err) == undefinedObject:
		return fmt.Errorf("there is no role %s; first run: CREATE ROLE %s LOGIN PASSWORD '…'", role, pgx.Identifier{role}.Sanitize())
	case sqlState(err) == insufficientPrivilege:
		return fmt.Errorf("let %s read: %w\nonly the owner of schema %s may grant this: connect as the role that runs syncer migrate", role, err, s.schema)
	case err != nil:
		return fmt.Errorf("let %s read: %w", role, err)
	}
	return nil
}
