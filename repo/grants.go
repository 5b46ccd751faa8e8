package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"syncer/internal/pg"
)

// What reports and pages read, with what their views and functions read, which have the
// caller's privileges. They do not read the queue's tables.
var (
	readTables = []string{
		"syncer_migration", "app", "sync_run", "sync_range", "observation_gap", "user_failure",
		"presence_snapshot", "presence_history", "presence_count", "presence_day", "presence_rollup",
		"account_snapshot", "account_history", "erasure", "history_archive", "history_archive_day",
		"sync_observed", "sync_gap", "app_patience", "presence_ended_stretch", "presence_open_stretch", "presence_session", "presence_current", "presence_concurrency",
		"presence_platform_stretch", "presence_platform_session",
		"account_current", "account_coverage", "api_outage", "api_quota",
	}
	readFunctions = []string{
		"as_of()", "day_start(date, text)", "presence_daily(date, date, text)", "active_users(date, date, text)",
		"presence_platform_daily(date, date, text)", "app_named(text)",
		"presence_gaps()", "active_users_within(date, date, text)", "presence_slots(date, date, text, boolean, boolean)", "presence_daily_from_history(date, date, text, boolean, boolean)",
		"history_days(regclass, smallint, timestamptz, timestamptz)", "history_months(text, timestamptz)",
	}
)

// What a worker writes: all tables but those with the schema's version. Not the partitions
// of the histories, which functions make and drop with the rights of their owner.
var (
	writtenTables = []string{
		"app", "sync_run", "sync_range", "sync_run_user", "observation_gap", "user_failure", "api_quota",
		"presence_snapshot", "presence_history", "presence_count", "presence_day", "presence_rollup",
		"account_snapshot", "account_history", "erasure", "history_archive", "history_archive_day",
		"queue_channel", "river_job", "river_leader", "river_queue", "river_notification",
	}
	workerSequences = []string{"river_job_id_seq", "river_notification_id_seq"}
	workerFunctions = []string{
		"make_history_partitions(text, timestamptz, timestamptz)", "drop_history_partitions(timestamptz)",
		"roll_up_presence(smallint, text, timestamptz)", "drop_archived_history_partitions(timestamptz)", "erase_user(smallint, text[])", "stored_users(smallint)",
	}
)

// GrantReaderSQL returns the statements that let a role read what reporting reads, and
// nothing else. They can be repeated.
func GrantReaderSQL(schema, role string) []string {
	return []string{
		"GRANT USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize() + to(role),
		grantSQL("SELECT", "TABLE", schema, readTables, role),
		grantSQL("EXECUTE", "FUNCTION", schema, readFunctions, role),
	}
}

// TuneReaderSQL returns the statements that give a role's later sessions in a database the
// settings that reports want: see docs/reporting.md. They can be repeated.
func TuneReaderSQL(database, role string) []string {
	alter := "ALTER ROLE " + pgx.Identifier{role}.Sanitize() + " IN DATABASE " + pgx.Identifier{database}.Sanitize() + " SET "
	return []string{alter + "jit = off", alter + "work_mem = '64MB'"}
}

// GrantWorkerSQL returns the statements that let a role do what the daemon and backfills
// do: read as a reader, and write syncer's tables. They do not include the users table,
// and can be repeated.
func GrantWorkerSQL(schema, role string) []string {
	return append(GrantReaderSQL(schema, role),
		grantSQL("SELECT, INSERT, UPDATE, DELETE", "TABLE", schema, writtenTables, role),
		grantSQL("USAGE", "SEQUENCE", schema, workerSequences, role),
		grantSQL("EXECUTE", "FUNCTION", schema, workerFunctions, role),
	)
}

func to(role string) string { return " TO " + pgx.Identifier{role}.Sanitize() }

func grantSQL(rights, what, schema string, names []string, role string) string {
	return "GRANT " + rights + " ON " + what + "\n    " + strings.Join(quoted(schema, names), ",\n    ") + "\n   " + to(role)
}

// quoted puts the schema before the names.
func quoted(schema string, names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = pgx.Identifier{schema}.Sanitize() + "." + name
	}
	return all
}

// To a role that has a privilege but may not grant it, Postgres only issues a warning.
const notGrantedSQL = `
SELECT name
FROM (
    SELECT t.name, has_table_privilege($1, t.name, 'SELECT') AS granted FROM unnest($2::text[]) AS t (name)
    UNION ALL
    SELECT t.name, has_table_privilege($1, t.name, 'DELETE') FROM unnest($3::text[]) AS t (name)
    UNION ALL
    SELECT f.name, has_function_privilege($1, f.name, 'EXECUTE') FROM unnest($4::text[]) AS f (name)
) AS g
WHERE NOT granted
LIMIT 1`

const checkQueueSQL = `
SELECT pg_has_role(c.relowner, 'USAGE'), coalesce((SELECT min(j.kind) FROM syncer.river_job AS j WHERE j.kind NOT LIKE 'syncer\_%'), '')
FROM pg_class AS c
WHERE c.oid = 'syncer.river_job'::regclass`

// ErrForeignJobs reports that another program works with the queue's tables.
var ErrForeignJobs = errors.New("another program uses the queue's tables")

// CheckQueue reports whether this role owns the queue's tables, and so can rebuild their
// indexes. It returns ErrForeignJobs if another program has jobs there, which the queue
// would discard.
func (s *Store) CheckQueue(ctx context.Context) (owns bool, err error) {
	var foreign string
	if err := s.QueryRow(ctx, checkQueueSQL).Scan(&owns, &foreign); err != nil {
		return false, fmt.Errorf("look at the queue: %w", s.ExplainRefusal(ctx, err))
	}
	if foreign != "" {
		return false, fmt.Errorf("%w: table %s.river_job holds its jobs, for example of kind %s; move that program to a schema of its own", ErrForeignJobs, s.Schema(), foreign)
	}
	return owns, nil
}

// GrantReader lets a role read what reporting reads.
func (s *Store) GrantReader(ctx context.Context, role string) error {
	return s.grant(ctx, role, "read", GrantReaderSQL(s.Schema(), role), nil, readFunctions)
}

// TuneReader executes TuneReaderSQL of the connection's database, all or none, and returns
// the statements. A role without the privilege gets them in the error.
func (s *Store) TuneReader(ctx context.Context, role string) ([]string, error) {
	var statements []string
	err := s.InTxOnce(ctx, func(tx *pg.Tx) error {
		var database string
		if err := tx.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
			return err
		}
		statements = TuneReaderSQL(database, role)
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if pg.SQLState(err) == pg.InsufficientPrivilege {
		return nil, fmt.Errorf("set jit and work_mem of role %s: %w\na superuser, or a role with CREATEROLE that may administer it, can run:\n\t%s;", role, err, strings.Join(statements, ";\n\t"))
	}
	if err != nil {
		return nil, fmt.Errorf("set jit and work_mem of role %s: %w", role, err)
	}
	return statements, nil
}

// GrantWorker lets a role do what the daemon and backfills do.
func (s *Store) GrantWorker(ctx context.Context, role string) error {
	return s.grant(ctx, role, "work", GrantWorkerSQL(s.Schema(), role), writtenTables, workerFunctions)
}

// grant executes the statements, all or none, and checks that the role has the privileges
// then. do names their purpose.
func (s *Store) grant(ctx context.Context, role, do string, statements, written, functions []string) error {
	err := s.InTxOnce(ctx, func(tx *pg.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		var missing string
		err := tx.QueryRow(ctx, notGrantedSQL, role, quoted(s.Schema(), readTables), quoted(s.Schema(), written), quoted(s.Schema(), functions)).Scan(&missing)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return &pgconn.PgError{Severity: "WARNING", Code: pg.InsufficientPrivilege, Message: "no privileges were granted on " + missing}
	})
	switch {
	case pg.SQLState(err) == pg.UndefinedObject:
		return fmt.Errorf("there is no role %s; first run: CREATE ROLE %s LOGIN PASSWORD '…'", role, pgx.Identifier{role}.Sanitize())
	case pg.SQLState(err) == pg.InsufficientPrivilege:
		return fmt.Errorf("let %s %s: %w\nonly the owner of schema %s may grant this: connect as the role that runs syncer migrate", role, do, err, s.Schema())
	case err != nil:
		return fmt.Errorf("let %s %s: %w", role, do, err)
	}
	return nil
}
