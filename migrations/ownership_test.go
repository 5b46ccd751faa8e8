package migrations_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
)

// TestForeign: objects of another program under syncer's names are left alone,
// whatever migrate is asked for.
func TestForeign(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ statements, named string }{
		"goose": {`CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint, is_applied boolean, tstamp timestamp DEFAULT now());
			INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true), (1, true), (2, true), (3, true)`, "goose_db_version"},
		"goose at syncer's version": {`CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint, is_applied boolean, tstamp timestamp DEFAULT now());
			INSERT INTO goose_db_version (version_id, is_applied) SELECT n, true FROM generate_series(0, 99) AS n`, "goose_db_version"},
		"goose that is new": {`CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint, is_applied boolean, tstamp timestamp DEFAULT now());
			INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true)`, "goose_db_version"},
		"River": {`CREATE TABLE river_migration (line text, version bigint); INSERT INTO river_migration SELECT 'main', n FROM generate_series(1, 8) AS n;
			CREATE TYPE river_job_state AS ENUM ('available', 'running'); CREATE TABLE river_job (id bigserial, state river_job_state, kind text);
			INSERT INTO river_job (state, kind) VALUES ('running', 'send_mail')`, "river_job, "},
		"a table":    {`CREATE TABLE app (id int)`, "app"},
		"a view":     {`CREATE VIEW presence_session AS SELECT 1 AS one`, "presence_session"},
		"a type":     {`CREATE TYPE presence_state AS ENUM ('here', 'there')`, "presence_state"},
		"a function": {`CREATE FUNCTION as_of() RETURNS int LANGUAGE sql RETURN 1`, "as_of"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			conn := connectTo(t, url, "public")
			run(t, conn, test.statements)
			before := column[string](t, conn, schemaSQL)
			rows := column[string](t, conn, `SELECT query_to_xml(format('SELECT * FROM %I', relname), true, true, '')::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname`)
			m := open(t, url, "public")
			for what, do := range map[string]func(context.Context) error{
				"Up":      func(ctx context.Context) error { _, err := m.Up(ctx); return err },
				"Down":    func(ctx context.Context) error { _, err := m.Down(ctx, 0); return err },
				"Status":  func(ctx context.Context) error { _, err := m.Status(ctx); return err },
				"Version": func(ctx context.Context) error { _, err := m.Version(ctx); return err },
			} {
				err := do(t.Context())
				if !errors.Is(err, migrations.ErrForeign) || !strings.Contains(err.Error(), "schema public has "+test.named) {
					t.Errorf("%s: %v; want ErrForeign naming %s", what, err, test.named)
				}
			}
			if diff := cmp.Diff(before, column[string](t, conn, schemaSQL)); diff != "" {
				t.Errorf("the schema (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(rows, column[string](t, conn, `SELECT query_to_xml(format('SELECT * FROM %I', relname), true, true, '')::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname`)); diff != "" {
				t.Errorf("rows (-before +after):\n%s", diff)
			}
		})
	}
}

// TestShared: in a schema with other tables, and with another program's goose that
// came later, syncer comes and goes and touches only what is its own.
func TestShared(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connectTo(t, url, "public")
	run(t, conn, `CREATE TABLE users (id int PRIMARY KEY); CREATE FUNCTION theirs() RETURNS int LANGUAGE sql SET search_path = pg_temp RETURN 1`)
	m := open(t, url, "public")
	up(t, m)
	run(t, conn, `CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint, is_applied boolean, tstamp timestamp DEFAULT now());
		INSERT INTO goose_db_version (version_id, is_applied) SELECT n, true FROM generate_series(0, 7) AS n`)
	up(t, m)
	if version, err := m.Version(t.Context()); version != migrations.Latest() || err != nil {
		t.Errorf("Version = %d, %v; want %d", version, err, migrations.Latest())
	}
	if _, err := m.Down(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	left := column[string](t, conn, `
SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
UNION ALL SELECT proname || ' ' || array_to_string(proconfig, ' ') FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
ORDER BY 1`)
	if diff := cmp.Diff([]string{"goose_db_version", "syncer_migration", "theirs search_path=pg_temp", "users"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if rows := column[int](t, conn, `SELECT count(*)::int FROM goose_db_version`); rows[0] != 8 {
		t.Errorf("goose_db_version has %d rows, want 8", rows[0])
	}
	// What comes while syncer is away is another program's.
	run(t, conn, `CREATE TABLE river_job (id int)`)
	if _, err := m.Up(t.Context()); !errors.Is(err, migrations.ErrForeign) {
		t.Errorf("Up beside a River that came meanwhile: %v", err)
	}
}

// TestForeignJobs: another program that moved into River's tables keeps them.
func TestForeignJobs(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"a job":   `INSERT INTO river_job (kind, args, max_attempts) VALUES ('send_mail', '{}', 3)`,
		"a queue": `INSERT INTO river_queue (name) VALUES ('default')`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := migrated(t)
			conn := connect(t, url)
			run(t, conn, `INSERT INTO river_job (kind, args, max_attempts) VALUES ('syncer_plan', '{}', 3)`)
			run(t, conn, `INSERT INTO river_queue (name) VALUES ('app1_presence')`)
			run(t, conn, statement)
			m := open(t, url, schema)
			for _, to := range []int64{riverMigration - 1, 0} {
				if _, err := m.Down(t.Context(), to); !errors.Is(err, migrations.ErrForeign) {
					t.Errorf("Down to %d: %v", to, err)
				}
			}
			if version, err := m.Version(t.Context()); version != migrations.Latest() || err != nil {
				t.Errorf("Version = %d, %v; want %d", version, err, migrations.Latest())
			}
			if _, err := m.Down(t.Context(), riverMigration); err != nil {
				t.Errorf("Down to %d, which leaves River: %v", riverMigration, err)
			}
		})
	}
}

// TestInterrupted: whatever of the first Up was committed when it was interrupted,
// the next one goes on.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	whole := column[string](t, connect(t, migrated(t)), schemaSQL)
	for name, undo := range map[string]string{
		"before the first migration": "",
		"before River":               fmt.Sprintf(`DELETE FROM syncer_migration WHERE version_id >= %d`, riverMigration),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			m, conn := open(t, url, schema), connect(t, url)
			up(t, m)
			to := int64(riverMigration)
			if undo == "" {
				to = 0
			}
			if _, err := m.Down(t.Context(), to); err != nil {
				t.Fatal(err)
			}
			if undo != "" {
				// All of River's migrations went through, or the last did not.
				run(t, conn, undo)
				run(t, conn, `DELETE FROM river_migration WHERE version = 8`)
			}
			up(t, m)
			if diff := cmp.Diff(whole, column[string](t, conn, schemaSQL)); diff != "" {
				t.Errorf("the schema (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDevelopmentSchema: a schema of a development version, whose migrations had the
// numbers from 1, is refused and left unchanged. What the error says to run works.
func TestDevelopmentSchema(t *testing.T) {
	t.Parallel()
	const tables = `CREATE TABLE app (app_id int); CREATE TABLE sync_run (run_id int, plan_beat_at timestamptz);`
	const record = `CREATE TABLE syncer_migration (id serial PRIMARY KEY, version_id bigint, is_applied boolean, tstamp timestamp DEFAULT now());`
	for name, statements := range map[string]string{
		"the newest":                   tables + record + `INSERT INTO syncer_migration (version_id, is_applied) SELECT n, true FROM generate_series(0, 24) AS n`,
		"the first":                    tables + record + `INSERT INTO syncer_migration (version_id, is_applied) VALUES (0, true), (1, true)`,
		"goose's usual name for table": tables + strings.ReplaceAll(record, "syncer_migration", "goose_db_version") + `INSERT INTO goose_db_version (version_id, is_applied) SELECT n, true FROM generate_series(0, 11) AS n`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			conn := connect(t, url)
			run(t, conn, `CREATE SCHEMA syncer; `+statements)
			before := column[string](t, conn, schemaSQL)
			m := open(t, url, schema)
			var err error
			for what, do := range map[string]func(context.Context) error{
				"Up":      func(ctx context.Context) error { _, err := m.Up(ctx); return err },
				"Down":    func(ctx context.Context) error { _, err := m.Down(ctx, 0); return err },
				"Status":  func(ctx context.Context) error { _, err := m.Status(ctx); return err },
				"Version": func(ctx context.Context) error { _, err := m.Version(ctx); return err },
			} {
				if err = do(t.Context()); !errors.Is(err, pg.ErrDevelopmentSchema) {
					t.Fatalf("%s: %v; want ErrDevelopmentSchema", what, err)
				}
			}
			if diff := cmp.Diff(before, column[string](t, conn, schemaSQL)); diff != "" {
				t.Errorf("the schema (-before +after):\n%s", diff)
			}
			_, statement, _ := strings.Cut(err.Error(), "\n\t")
			statement, _, _ = strings.Cut(statement, "\n")
			run(t, conn, statement)
			up(t, m)
		})
	}
}

// TestRenamedSchema: Up makes all functions work under the new name of the schema,
// and under the old one again.
func TestRenamedSchema(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connectTo(t, url, "public")
	whole := column[string](t, conn, schemaSQL)
	for _, name := range []string{"im_status", "user", "syncer"} { // user is a reserved word
		old := column[string](t, conn, `SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'sync_run'`)[0]
		run(t, conn, `ALTER SCHEMA `+old+` RENAME TO `+pgx.Identifier{name}.Sanitize())
		up(t, open(t, url, name))
		stale := column[string](t, conn, `SELECT proname || ': ' || c FROM pg_proc CROSS JOIN unnest(proconfig) AS c
WHERE pronamespace = $1::text::regnamespace AND c LIKE 'search_path=%' AND c NOT IN ('search_path=' || quote_ident($1), 'search_path=' || quote_ident($1) || ', pg_temp')`, name)
		if len(stale) > 0 {
			t.Errorf("after the renaming to %s: %s", name, stale)
		}
		quoted := pgx.Identifier{name}.Sanitize()
		run(t, conn, `SELECT `+quoted+`.make_history_partitions('month', '2026-11-01', '2026-12-01')`)
		run(t, conn, `SELECT `+quoted+`.drop_history_partitions('2026-12-01')`)
		run(t, conn, `SELECT * FROM `+quoted+`.active_users('2026-11-01', '2026-11-02', 'UTC')`)
		run(t, conn, `SELECT `+quoted+`.roll_up_presence(1::smallint, 'UTC', NULL)`)
		run(t, conn, `SELECT * FROM `+quoted+`.presence_session`)
	}
	if diff := cmp.Diff(whole, column[string](t, conn, schemaSQL)); diff != "" {
		t.Errorf("the schema after renaming it and back (-before +after):\n%s", diff)
	}
}

// TestRenamedSchema_pending: migrations that are pending find functions that work.
func TestRenamedSchema_pending(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connectTo(t, url, "public")
	whole := column[string](t, conn, schemaSQL)
	if _, err := open(t, url, schema).Down(t.Context(), partitionsMigration); err != nil {
		t.Fatal(err)
	}
	run(t, conn, `ALTER SCHEMA syncer RENAME TO other`)
	up(t, open(t, url, "other"))
	run(t, conn, `ALTER SCHEMA other RENAME TO syncer`)
	up(t, open(t, url, schema))
	if diff := cmp.Diff(whole, column[string](t, conn, schemaSQL)); diff != "" {
		t.Errorf("the schema (-want +got):\n%s", diff)
	}
}

// TestOwner: a role that does not own the tables, after a dump was restored by
// another one for instance, is told so before anything changes.
func TestOwner(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connect(t, url)
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	run(t, conn, "CREATE ROLE "+role)
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), "ALTER SCHEMA syncer OWNER TO CURRENT_USER; DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	run(t, conn, "ALTER SCHEMA syncer OWNER TO "+role)
	m := open(t, withParameter(t, url, "role", role), schema)
	for what, do := range map[string]func() error{
		"Up":   func() error { _, err := m.Up(t.Context()); return err },
		"Down": func() error { _, err := m.Down(t.Context(), 0); return err },
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "REASSIGN OWNED BY ") || !strings.Contains(err.Error(), role) || !strings.Contains(err.Error(), "does not own") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Looking takes no more than the right to read.
	run(t, conn, "GRANT SELECT ON syncer_migration TO "+role)
	if version, err := m.Version(t.Context()); version != migrations.Latest() || err != nil {
		t.Errorf("Version = %d, %v; want %d", version, err, migrations.Latest())
	}
}

// TestEncoding: a database that does not store UTF-8 is refused, with what to do.
func TestEncoding(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			url := pgtest.DatabaseIn(t, encoding)
			_, err := open(t, url, schema).Up(t.Context())
			if !errors.Is(err, migrations.ErrEncoding) || !strings.Contains(err.Error(), "is in "+encoding) || !strings.Contains(err.Error(), "CREATE DATABASE syncer ENCODING 'UTF8'") {
				t.Errorf("Up: %v", err)
			}
			if schemas := column[string](t, connect(t, url), `SELECT nspname::text FROM pg_namespace WHERE nspname = 'syncer'`); len(schemas) > 0 {
				t.Error("it made the schema")
			}
		})
	}
	// What it says to run works.
	conn := connect(t, pgtest.Database(t))
	database := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	run(t, conn, `CREATE DATABASE `+database+` ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
	run(t, conn, `DROP DATABASE `+database)
}
