package migrations

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// versionTable records which migrations are applied. It has a name of its own, and
// not goose's usual goose_db_version: another program that uses goose in the same
// schema must not take it for its own, nor the reverse.
const versionTable = "syncer_migration"

// gooseTable is the usual name of goose's table, which syncer's had in early development.
const gooseTable = "goose_db_version"

// riverStarted is the comment on the version table once River's migrations have begun.
// They commit one by one, before riverMigration is recorded: if they are interrupted,
// the comment shows that the tables are syncer's.
const riverStarted = "Which of syncer's migrations are applied; goose writes it. The tables of River beside it are syncer's too."

// ErrForeign reports that the schema holds tables, types or functions of another
// program under names that syncer uses.
var ErrForeign = errors.New("the schema holds objects of another program under names that syncer uses")

// ErrEncoding reports that the database does not store text as UTF-8.
var ErrEncoding = errors.New("the database's encoding is not UTF8")

var created = regexp.MustCompile(`(?m)^CREATE (?:OR REPLACE |UNIQUE )?(?:TABLE|VIEW|TYPE|INDEX|FUNCTION) (\w+)`)

// ownNames returns the names of what the SQL migrations create. River's all begin
// with river_.
func ownNames() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // an embedded folder can be read
	}
	var names []string
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		for _, match := range created.FindAllStringSubmatch(string(text), -1) {
			names = append(names, match[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// One statement: it sees one state of the catalogs. The version table is committed
// before anything else of syncer's.
const namesSQL = `
WITH named AS (
    SELECT c.relname::text AS name, c.oid, 'pg_class'::regclass AS catalog, c.relowner AS owner
    FROM pg_class AS c
    WHERE c.relnamespace = $1::text::regnamespace
    UNION ALL
    SELECT p.proname::text, p.oid, 'pg_proc'::regclass, p.proowner
    FROM pg_proc AS p
    WHERE p.pronamespace = $1::text::regnamespace
    UNION ALL
    SELECT t.typname::text, t.oid, 'pg_type'::regclass, t.typowner
    FROM pg_type AS t
    WHERE t.typnamespace = $1::text::regnamespace AND t.typtype IN ('e', 'd', 'c')
), chosen AS (
    SELECT n.name, n.owner
    FROM named AS n
    WHERE (n.name = ANY ($2) OR n.name LIKE 'river\_%')
      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = n.catalog AND d.objid = n.oid AND d.deptype = 'e')
)
SELECT coalesce(array_agg(DISTINCT c.name ORDER BY c.name), '{}'),
       coalesce(min(c.owner::regrole::text) FILTER (WHERE NOT pg_has_role(c.owner, 'USAGE')), ''),
       EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = to_regclass('sync_run') AND a.attname = 'plan_beat_at'),
       current_user::text
FROM chosen AS c`

// The table is named without a schema: it is the search_path.
const appliedSQL = `
SELECT coalesce(max(version_id), 0),
       coalesce(bool_or(version_id = $2), false),
       coalesce(obj_description('` + versionTable + `'::regclass, 'pg_class') = $1, false)
FROM ` + versionTable + `
WHERE is_applied`

// ownership is what a schema holds of syncer's.
type ownership struct {
	version int64 // the newest migration that is applied
	started bool  // the version table is there
	// notOwner says what to do if the role may not change syncer's tables and
	// functions. nil: it may.
	notOwner error
}

// own looks at the schema, which exists, without changing anything. It returns
// ErrForeign if the schema holds another program's objects under syncer's names, and
// pg.ErrDevelopmentSchema if a development version of syncer made it.
func (m *Migrator) own(ctx context.Context) (ownership, error) {
	names, owner, runs, role := []string(nil), "", false, ""
	wanted := append(ownNames(), versionTable, gooseTable)
	if err := m.pool.QueryRow(ctx, namesSQL, m.schema, wanted).Scan(&names, &owner, &runs, &role); err != nil {
		return ownership{}, fmt.Errorf("look at schema %s: %w", m.schema, err)
	}
	o := ownership{started: slices.Contains(names, versionTable)}
	if !o.started && slices.Contains(names, gooseTable) && runs {
		return ownership{}, pg.DevelopmentSchema(m.schema)
	}
	if owner != "" {
		o.notOwner = fmt.Errorf("role %[1]s does not own all of syncer's tables and functions in schema %[2]s, some belong to %[3]s: connect as %[3]s, or as a superuser run: REASSIGN OWNED BY %[3]s TO %[1]s",
			pgx.Identifier{role}.Sanitize(), m.schema, owner)
	}
	var development, riverOurs bool
	if o.started {
		if err := m.pool.QueryRow(ctx, appliedSQL, riverStarted, pg.DevelopmentMigration).Scan(&o.version, &development, &riverOurs); err != nil {
			if o.notOwner != nil {
				return ownership{}, o.notOwner
			}
			return ownership{}, fmt.Errorf("read the version of schema %s: %w", m.schema, err)
		}
	}
	if development {
		return ownership{}, pg.DevelopmentSchema(m.schema)
	}
	foreign := slices.DeleteFunc(names, func(name string) bool {
		switch {
		case name == versionTable, name == gooseTable && o.started:
			return true // the latter is another program's, which syncer leaves alone
		case strings.HasPrefix(name, "river_"):
			return o.version >= riverMigration || riverOurs
		default:
			return o.version >= 1
		}
	})
	if len(foreign) > 0 {
		return ownership{}, fmt.Errorf("%w: schema %s has %s; nothing was changed. Give syncer a schema of its own, for example [database] schema = \"syncer\"",
			ErrForeign, m.schema, enumerate(foreign))
	}
	return o, nil
}

// enumerate lists names, but not hundreds.
func enumerate(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

const encodingSQL = `
SELECT datname::text, pg_encoding_to_char(encoding)
FROM pg_database
WHERE datname = current_database()`

// checkEncoding returns ErrEncoding unless the database stores text as UTF-8.
// SQL_ASCII stores any bytes, so that one client's text is another's garbage.
func (m *Migrator) checkEncoding(ctx context.Context) error {
	var database, encoding string
	if err := m.pool.QueryRow(ctx, encodingSQL).Scan(&database, &encoding); err != nil {
		return fmt.Errorf("read the database's encoding: %w", err)
	}
	if encoding == "UTF8" {
		return nil
	}
	return fmt.Errorf(`%w: database %s is in %s. Make one for syncer, and name it in [database] url; the users table may stay where it is, see [users] url:
CREATE DATABASE syncer ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`, ErrEncoding, database, encoding)
}

// prepare makes a schema of syncer's ready for migrations: the role owns it, and the
// functions work.
func (m *Migrator) prepare(ctx context.Context, o ownership) error {
	if o.notOwner != nil {
		return o.notOwner
	}
	return m.rebind(ctx)
}

// markRiver records whether River's tables in the schema are syncer's.
func (m *Migrator) markRiver(ctx context.Context, ours bool) error {
	text := "NULL"
	if ours {
		text = "'" + strings.ReplaceAll(riverStarted, "'", "''") + "'"
	}
	if _, err := m.pool.Exec(ctx, "COMMENT ON TABLE "+versionTable+" IS "+text); err != nil {
		return fmt.Errorf("mark River's tables as syncer's: %w", err)
	}
	return nil
}

const foreignJobsSQL = `
SELECT coalesce(array_agg(DISTINCT name ORDER BY name), '{}')
FROM (
    SELECT 'job ' || kind FROM river_job WHERE kind NOT LIKE 'syncer\_%'
    UNION ALL
    SELECT 'queue ' || name FROM river_queue WHERE name !~ '^app\d+_(presence|accounts)$'
) AS other (name)`

// checkQueue returns ErrForeign if another program works with River's tables in
// the schema, which came there after syncer.
func (m *Migrator) checkQueue(ctx context.Context) error {
	var others []string
	if err := m.pool.QueryRow(ctx, foreignJobsSQL).Scan(&others); err != nil {
		return fmt.Errorf("look for other programs' jobs: %w", err)
	}
	if len(others) > 0 {
		return fmt.Errorf("%w: another program uses River's tables in schema %s (%s); they would be dropped. Move that program to a schema of its own first", ErrForeign, m.schema, enumerate(others))
	}
	return nil
}

// Functions keep the search_path of their making, as a name: renaming the schema
// leaves the old one there. Views and functions with bound bodies follow.
const staleSQL = `
SELECT format('ALTER FUNCTION %s SET search_path = %I%s', p.oid::regprocedure, $1::text, coalesce(substring(c.setting FROM ',.*$'), ''))
FROM pg_proc AS p
CROSS JOIN unnest(p.proconfig) AS c (setting)
WHERE p.pronamespace = $1::text::regnamespace AND p.proname = ANY ($2)
  AND c.setting LIKE 'search\_path=%'
  AND trim('"' FROM split_part(substr(c.setting, length('search_path=') + 1), ',', 1)) <> $1
ORDER BY 1`

// rebind makes syncer's functions work in the schema that they are in, after it was
// renamed.
func (m *Migrator) rebind(ctx context.Context) error {
	stale, err := m.stale(ctx, m.pool)
	if err == nil && len(stale) > 0 {
		err = pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
			// One process at a time: a second one finds nothing to do.
			if _, err := tx.Exec(ctx, "LOCK TABLE "+versionTable+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
				return err
			}
			stale, err := m.stale(ctx, tx)
			for _, statement := range stale {
				if err == nil {
					_, err = tx.Exec(ctx, statement)
				}
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("bind the functions to schema %s: %w", m.schema, err)
	}
	return nil
}

// stale returns the statements that rebind has to run.
func (m *Migrator) stale(ctx context.Context, db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}) ([]string, error) {
	rows, err := db.Query(ctx, staleSQL, m.schema, ownNames())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
