package migrations_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"
	"golang.org/x/sync/errgroup"

	"syncer/internal/dev/pgtest"
	"syncer/migrations"
)

// schemaSQL describes all that is in the schemas that are not Postgres' own, a
// line for each thing.
const schemaSQL = `
WITH ours AS (
    SELECT oid, nspname FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
)
SELECT format('relation %s.%s %s %s %s', n.nspname, c.relname, c.relkind, c.reloptions, obj_description(c.oid, 'pg_class'))
FROM pg_class AS c JOIN ours AS n ON n.oid = c.relnamespace
UNION ALL
SELECT format('column %s.%s.%s %s %s %s %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    a.attnotnull, a.attidentity, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN ours AS n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('constraint %s.%s %s', n.nspname, o.conname, pg_get_constraintdef(o.oid))
FROM pg_constraint AS o JOIN ours AS n ON n.oid = o.connamespace
UNION ALL
SELECT format('index %s', pg_get_indexdef(c.oid))
FROM pg_class AS c JOIN ours AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('i', 'I')
UNION ALL
SELECT format('function %s %s', pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc'))
FROM pg_proc AS p JOIN ours AS n ON n.oid = p.pronamespace
UNION ALL
SELECT format('type %s.%s %s', n.nspname, t.typname, (SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid))
FROM pg_type AS t JOIN ours AS n ON n.oid = t.typnamespace
ORDER BY 1`

func TestUpDownUp(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	m, conn := open(t, url, schema), connect(t, url)
	done, err := m.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(done), len(versionsBetween(t, m, 0, migrations.Latest())); got != want {
		t.Errorf("Up applied %d migrations, want %d", got, want)
	}
	before := column[string](t, conn, schemaSQL)
	if len(before) < 100 {
		t.Fatalf("the description of the schema has only %d lines", len(before))
	}

	if done, err = m.Down(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got, want := len(done), len(versionsBetween(t, m, 0, migrations.Latest())); got != want {
		t.Errorf("Down took back %d migrations, want %d", got, want)
	}
	left := column[string](t, conn, `
SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'syncer'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'syncer'::regnamespace
UNION ALL SELECT t.typname FROM pg_type AS t WHERE t.typnamespace = 'syncer'::regnamespace AND t.typtype IN ('e', 'd')`)
	if diff := cmp.Diff([]string{"syncer_migration"}, left); diff != "" {
		t.Errorf("left after Down (-want +got):\n%s", diff)
	}
	if version, err := m.Version(t.Context()); version != 0 || err != nil {
		t.Errorf("Version after Down = %d, %v; want 0", version, err)
	}

	up(t, m)
	if diff := cmp.Diff(before, column[string](t, conn, schemaSQL)); diff != "" {
		t.Errorf("the schema after up, down, up (-first +second):\n%s", diff)
	}
	if version, err := m.Version(t.Context()); version != migrations.Latest() || err != nil {
		t.Errorf("Version = %d, %v; want %d", version, err, migrations.Latest())
	}
}

func TestUpStepByStep(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	m, conn := open(t, url, schema), connect(t, url)
	up(t, m)
	before := column[string](t, conn, schemaSQL)
	// Each migration's Down leaves what its own Up can build on.
	for version := migrations.Latest() - 1; version >= 0; version-- {
		if _, err := m.Down(t.Context(), version); err != nil {
			t.Fatal(err)
		}
		if got, err := m.Version(t.Context()); got > version || err != nil { // less where a number is not taken
			t.Fatalf("Version = %d, %v; want at most %d", got, err, version)
		}
		up(t, m)
		if diff := cmp.Diff(before, column[string](t, conn, schemaSQL)); diff != "" {
			t.Errorf("the schema after down to %d and up (-first +second):\n%s", version, diff)
		}
	}
}

func TestDownWithData(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connect(t, url)
	run(t, conn, `INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', '2026-11-01')`)
	run(t, conn, `SELECT make_history_partitions('month', '2026-11-01', '2027-02-01')`)
	run(t, conn, `INSERT INTO presence_snapshot VALUES (1, 'u', 'online', '{}', '2026-11-02', '2026-11-02', 1, '2026-11-02')`)
	run(t, conn, `INSERT INTO presence_history VALUES (1, 'u', NULL, 'online', '{}', NULL, '2026-11-02', 1)`)
	m := open(t, url, schema)
	if _, err := m.Down(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	up(t, m)
	if rows := column[int](t, conn, `SELECT count(*)::int FROM app`); !cmp.Equal(rows, []int{0}) {
		t.Errorf("rows of app after down and up: %d", rows)
	}
}

func TestAnotherSchema(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	elsewhere := `
SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)
UNION ALL
SELECT n.nspname || '.' || p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)
UNION ALL
SELECT n.nspname || '.' || t.typname FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', $1)`
	up(t, open(t, url, "im_status"))
	if left := column[string](t, conn, elsewhere, "im_status"); len(left) > 0 {
		t.Errorf("outside of schema im_status: %s", left)
	}
	first := column[string](t, conn, schemaSQL)

	// A second one beside it, and the functions of each work on its own tables.
	m := open(t, url, schema)
	up(t, m)
	run(t, conn, `SELECT im_status.make_history_partitions('month', '2026-11-01', '2026-12-01')`)
	got := column[string](t, conn, `SELECT c.oid::regclass::text FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT' AND c.relkind = 'r' ORDER BY 1`)
	want := []string{"im_status.account_history_20261101", "im_status.presence_history_20261101"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	run(t, conn, `SELECT im_status.drop_history_partitions('2026-12-01')`)
	if _, err := m.Down(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	run(t, conn, `DROP SCHEMA syncer CASCADE`)
	if diff := cmp.Diff(first, column[string](t, conn, schemaSQL)); diff != "" {
		t.Errorf("the other schema after down (-before +after):\n%s", diff)
	}
}

func TestUpAtOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	const instances = 8
	applied := make([]int, instances)
	var group errgroup.Group
	for i := range instances {
		group.Go(func() error {
			// Opening creates the schema: that too happens at once.
			m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema})
			if err != nil {
				return err
			}
			defer m.Close()
			done, err := m.Up(t.Context())
			applied[i] = len(done)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range applied {
		total += n
	}
	if want := len(versionsBetween(t, open(t, url, schema), 0, migrations.Latest())); total != want {
		t.Errorf("%d instances applied %v, in all %d migrations, want %d", instances, applied, total, want)
	}
	alone := pgtest.Database(t)
	up(t, open(t, alone, schema))
	// Of two that make goose's table at once, the one that is turned down may have
	// made its sequence first, so that the other's has another name.
	together := column[string](t, connect(t, url), `SELECT replace(line, 'syncer_migration_id_seq1', 'syncer_migration_id_seq') FROM (`+schemaSQL+`) AS s (line) ORDER BY 1`)
	if diff := cmp.Diff(column[string](t, connect(t, alone), schemaSQL), together); diff != "" {
		t.Errorf("the schema (-one instance +eight):\n%s", diff)
	}
}

func TestEverythingHasAComment(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	// River's and goose's tables are theirs to describe; the columns of a
	// partition are those of its parent.
	bare := column[string](t, conn, `
WITH ours AS (
    SELECT c.* FROM pg_class AS c
    WHERE c.relnamespace = 'syncer'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
      AND c.relname !~ '^(river_|syncer_migration$)'
)
SELECT 'table ' || relname FROM ours WHERE obj_description(oid, 'pg_class') IS NULL
UNION ALL
SELECT 'column ' || o.relname || '.' || a.attname
FROM ours AS o JOIN pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE NOT o.relispartition AND col_description(o.oid, a.attnum) IS NULL
UNION ALL
SELECT 'function ' || p.proname FROM pg_proc AS p
WHERE p.pronamespace = 'syncer'::regnamespace AND p.proname !~ '^river_' AND obj_description(p.oid, 'pg_proc') IS NULL
UNION ALL
SELECT 'type ' || t.typname FROM pg_type AS t
WHERE t.typnamespace = 'syncer'::regnamespace AND t.typtype IN ('e', 'd') AND t.typname !~ '^river_' AND obj_description(t.oid, 'pg_type') IS NULL
ORDER BY 1`)
	if len(bare) > 0 {
		t.Errorf("without a comment:\n%s", strings.Join(bare, "\n"))
	}
	if n := column[int](t, conn, `SELECT count(*)::int FROM pg_description AS d JOIN pg_class AS c ON c.oid = d.objoid WHERE c.relnamespace = 'syncer'::regnamespace`); n[0] < 100 {
		t.Errorf("only %d comments were found at all", n[0])
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	m := open(t, pgtest.Database(t), schema)
	statuses, err := m.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var highest int64
	seen := map[int64]string{}
	for _, s := range statuses {
		if other, ok := seen[s.Version]; ok {
			t.Errorf("%s and %s have the same number", other, s.Name)
		}
		if s.Version <= highest {
			t.Errorf("migration %s comes after number %d", s.Name, highest)
		}
		if !s.AppliedAt.IsZero() {
			t.Errorf("%s is applied in an empty database", s.Name)
		}
		seen[s.Version] = s.Name
		highest = max(highest, s.Version)
	}
	if migrations.Latest() != highest {
		t.Errorf("Latest() = %d, the provider's highest is %d", migrations.Latest(), highest)
	}
	// The files in the folder, in case one of two with the same number is hidden.
	files, err := fs.Glob(os.DirFS("."), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[int64]string{}
	for _, file := range files {
		version, err := goose.NumericComponent(file)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := numbers[version]; ok {
			t.Errorf("%s and %s have the same number", other, file)
		}
		numbers[version] = file
	}
}

func TestStatusAfterUp(t *testing.T) {
	t.Parallel()
	m := open(t, migrated(t), schema)
	statuses, err := m.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statuses {
		if s.AppliedAt.IsZero() {
			t.Errorf("%s is pending after Up", s.Name)
		}
	}
	done, err := m.Up(t.Context())
	if err != nil || len(done) != 0 {
		t.Errorf("a second Up did %v, %v; want nothing", done, err)
	}
}

// A database's owner often makes the schema for a role that may not make any.
func TestSchemaMadeBeforehand(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	role := "syncer_test_" + strings.ToLower(rand.Text()[:10])
	run(t, conn, "CREATE ROLE "+role)
	t.Cleanup(func() {
		_, err := conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		if err != nil {
			t.Error(err)
		}
	})
	asRole := withParameter(t, url, "role", role)
	if _, err := open(t, asRole, schema).Up(t.Context()); err == nil || !strings.Contains(err.Error(), "create schema syncer") {
		t.Errorf("Up without the right to create a schema: %v", err)
	}
	run(t, conn, "CREATE SCHEMA syncer AUTHORIZATION "+role)
	up(t, open(t, asRole, schema))
	owners := column[string](t, conn, `SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'syncer'::regnamespace`)
	if diff := cmp.Diff([]string{role}, owners); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}

func TestErrorsTellNoPassword(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"no URL":          "postgres://syncer:s3cr3t@localhost:notaport/app",
		"slash":           "postgres://syncer:s3cr/3t@localhost/app",
		"percent":         "postgres://syncer:%zzs3cr3t@localhost/app",
		"keywords":        "host=localhost password=s3cr3t port=none",
		"at":              "postgres://syncer:s3cr@3t@:none/app",
		"spaced keywords": "host=localhost password=x s3cr3t user=syncer",
		"refused":         "postgres://syncer:s3cr3t@127.0.0.1:1/app",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema})
			if err == nil {
				t.Fatal("Open succeeded")
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				for _, part := range []string{"s3cr", "3t", "%zz"} {
					if strings.Contains(e.Error(), part) {
						t.Errorf("the error tells %q: %v", part, e)
					}
				}
			}
		})
	}
}

// TestLooking_changesNothing: only Up makes the schema.
func TestLooking_changesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	m := open(t, url, "syncer")
	statuses, err := m.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pending := 0
	for _, s := range statuses {
		if s.AppliedAt.IsZero() {
			pending++
		}
	}
	if pending == 0 || pending != len(statuses) || statuses[len(statuses)-1].Version != migrations.Latest() {
		t.Errorf("Status without a schema: %+v", statuses)
	}
	if version, err := m.Version(t.Context()); version != 0 || err != nil {
		t.Errorf("Version without a schema: %d, %v", version, err)
	}
	if done, err := m.Down(t.Context(), 0); len(done) != 0 || err != nil {
		t.Errorf("Down without a schema: %v, %v", done, err)
	}
	schemas := column[string](t, connect(t, url), `SELECT nspname::text FROM pg_namespace WHERE nspname = 'syncer'`)
	if len(schemas) != 0 {
		t.Errorf("looking made the schema")
	}
}
