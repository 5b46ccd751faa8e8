// Package migrations holds the schema: goose migrations in SQL, embedded, one file per
// subject, and one in Go that brings River's tables. Everything is in one schema, which
// the configuration names.
package migrations

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

//go:embed *.sql
var files embed.FS

// Config says where to migrate.
type Config struct {
	// URL of the database. It must reach Postgres itself, not a pooler in
	// transaction mode: migrations hold a session lock.
	URL string
	// Schema is created when missing. A simple lower-case identifier.
	Schema string
	// LockWait bounds for how long Up and Down try to get their locks. If 0, until
	// their context ends.
	LockWait time.Duration
	Log      *slog.Logger // nil: silent
}

// riverMigration is the number of the migration that brings River's tables, riverVersion
// the newest of River's own migrations that it applies. A newer River needs another
// migration here, not another riverVersion.
const (
	riverMigration = 11
	riverVersion   = 8
)

// Migrator changes the schema. Close it after use.
type Migrator struct {
	schema      string
	application string // application_name of its sessions
	lockWait    time.Duration
	log         *slog.Logger
	provider    *goose.Provider
	db          *sql.DB
	pool        *pgxpool.Pool
}

// Status is one migration and when it was applied.
type Status struct {
	Version   int64
	Name      string
	AppliedAt time.Time // zero: pending
}

// Open connects. Several processes may migrate at once: a session lock lets one
// at a time do it.
func Open(ctx context.Context, c Config) (*Migrator, error) {
	poolConfig, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("read the database URL: %w", errURL)
	}
	poolConfig.ConnConfig.RuntimeParams["search_path"] = pgx.Identifier{c.Schema}.Sanitize()
	application := "syncer migrate " + rand.Text()[:6]
	poolConfig.ConnConfig.RuntimeParams["application_name"] = application
	poolConfig.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	poolConfig.ConnConfig.RuntimeParams[probe] = "on"
	overrideSession(poolConfig)
	poolConfig.MaxConns = 3
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	m := &Migrator{pool: pool, schema: c.Schema, application: application, lockWait: c.LockWait, log: c.Log}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if err := m.probeDirect(ctx); err != nil { // the first contact
		pool.Close()
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	m.db = stdlib.OpenDB(*poolConfig.ConnConfig)
	river := goose.NewGoMigration(riverMigration,
		&goose.GoFunc{RunDB: m.migrateRiver(rivermigrate.DirectionUp, riverVersion)},
		&goose.GoFunc{RunDB: m.migrateRiver(rivermigrate.DirectionDown, -1)})
	river.Source = fmt.Sprintf("%05d_river.go", riverMigration)
	m.provider, err = goose.NewProvider(goose.DialectPostgres, m.db, files,
		goose.WithTableName(versionTable),
		goose.WithSessionLocker(migrationLock{}),
		goose.WithGoMigrations(river),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(m.log))
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}
	return m, nil
}

// errURL says nothing of what is in the URL: the driver hides the password in
// its own words, but of a URL that cannot be taken apart it has to guess where
// the password is.
var errURL = errors.New("it cannot be read as postgres://user:password@host:port/database?sslmode=…; in user and password @ is written %40, / %2F, : %3A and % %25")

// probe is a parameter of the start of a connection that Postgres takes and
// nobody reads. A pooler refuses it, or lets it pass and forgets it.
const probe = "syncer.migrate"

// errPooler: the session lock would be taken in one session and given back in
// another, and the search_path, in which all names are looked up, would be lost.
var errPooler = errors.New("a connection pooler is between here and the database, but migrations need Postgres itself: give its address with SYNCER_DATABASE_URL")

func (m *Migrator) probeDirect(ctx context.Context) error {
	var direct *bool
	err := m.pool.QueryRow(ctx, "SELECT current_setting('"+probe+"', true) = 'on'", pgx.QueryExecModeExec).Scan(&direct)
	const protocolViolation, refused = "08P01", "unsupported startup parameter" // PgBouncer's words
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == protocolViolation && strings.HasPrefix(pgErr.Message, refused) {
		return fmt.Errorf("%w\n%w", err, errPooler)
	}
	if err == nil && (direct == nil || !*direct) {
		return errPooler
	}
	return err
}

// hasSchema reports whether the schema is there.
func (m *Migrator) hasSchema(ctx context.Context) (bool, error) {
	var exists bool
	err := m.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", m.schema).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for schema %s: %w", m.schema, err)
	}
	return exists, nil
}

// createSchema makes the schema unless it is there. It looks first, because
// CREATE SCHEMA IF NOT EXISTS asks for the right to create one all the same. It
// is safe against another process that does the same: IF NOT EXISTS alone is not.
func (m *Migrator) createSchema(ctx context.Context) error {
	if exists, err := m.hasSchema(ctx); err != nil || exists {
		return err
	}
	_, err := m.pool.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{m.schema}.Sanitize())
	const uniqueViolation, duplicateSchema = "23505", "42P06"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && (pgErr.Code == uniqueViolation || pgErr.Code == duplicateSchema) {
		return nil
	}
	const insufficientPrivilege = "42501"
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == insufficientPrivilege {
		c := m.pool.Config().ConnConfig
		role, database, schema := pgx.Identifier{cmp.Or(c.RuntimeParams["role"], c.User)}.Sanitize(), pgx.Identifier{c.Database}.Sanitize(), pgx.Identifier{m.schema}.Sanitize()
		return fmt.Errorf("create schema %s: %w\nas the database's owner run one of\n\tGRANT CREATE ON DATABASE %s TO %s;\n\tCREATE SCHEMA %s AUTHORIZATION %s;",
			m.schema, err, database, role, schema, role)
	}
	if err != nil {
		return fmt.Errorf("create schema %s: %w", m.schema, err)
	}
	return nil
}

// migrateRiver runs River's own migrations. They keep a version table of their
// own and do nothing when already there, so that it does no harm that they
// commit apart from goose's bookkeeping.
func (m *Migrator) migrateRiver(direction rivermigrate.Direction, target int) func(context.Context, *sql.DB) error {
	return func(ctx context.Context, _ *sql.DB) error {
		if direction == rivermigrate.DirectionUp {
			if err := m.markRiver(ctx, true); err != nil {
				return err
			}
		}
		migrator, err := rivermigrate.New(riverpgxv5.New(m.pool), &rivermigrate.Config{Schema: m.schema, Logger: m.log})
		if err != nil {
			return fmt.Errorf("prepare River's migrations: %w", err)
		}
		if _, err := migrator.Migrate(ctx, direction, &rivermigrate.MigrateOpts{TargetVersion: target}); err != nil {
			return fmt.Errorf("run River's migrations: %w", err)
		}
		if direction == rivermigrate.DirectionDown {
			return m.markRiver(ctx, false)
		}
		return nil
	}
}

// Up creates the schema if it is missing, applies all pending migrations and returns
// them. If the schema was renamed, Up binds the functions to its new name.
// It changes nothing if it returns ErrForeign, ErrEncoding or pg.ErrDevelopmentSchema.
func (m *Migrator) Up(ctx context.Context) ([]Status, error) {
	if err := m.checkEncoding(ctx); err != nil {
		return nil, err
	}
	if err := m.createSchema(ctx); err != nil {
		return nil, err
	}
	return m.persist(ctx, "up", func() ([]*goose.MigrationResult, error) {
		o, err := m.own(ctx)
		if err == nil && o.started {
			err = m.prepare(ctx, o)
		}
		if err != nil {
			return nil, err
		}
		return m.provider.Up(ctx)
	})
}

// Down reverts the newest migrations until version is the newest that is left; 0 reverts
// all. It changes nothing if it returns ErrForeign or pg.ErrDevelopmentSchema.
func (m *Migrator) Down(ctx context.Context, version int64) ([]Status, error) {
	return m.persist(ctx, "down", func() ([]*goose.MigrationResult, error) {
		o, err := m.look(ctx)
		if err != nil || !o.started {
			return nil, err
		}
		if version < riverMigration && o.version >= riverMigration {
			err = m.checkQueue(ctx)
		}
		if err == nil {
			err = m.prepare(ctx, o)
		}
		if err != nil {
			return nil, err
		}
		return m.provider.DownTo(ctx, version)
	})
}

func applied(results []*goose.MigrationResult) []Status {
	var done []Status
	for _, r := range results {
		if r.Error == nil {
			done = append(done, Status{Version: r.Source.Version, Name: r.Source.Path, AppliedAt: time.Now()})
		}
	}
	return done
}

func migrationError(direction string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("migrate %s: %w", direction, err)
}

// look returns what is syncer's in the schema: nothing if there is no schema.
func (m *Migrator) look(ctx context.Context) (ownership, error) {
	if exists, err := m.hasSchema(ctx); err != nil || !exists {
		return ownership{}, err
	}
	return m.own(ctx)
}

const appliedAtSQL = `
SELECT version_id, max(tstamp)
FROM ` + versionTable + `
WHERE is_applied
GROUP BY version_id`

// Status lists every migration, oldest first. It changes nothing.
func (m *Migrator) Status(ctx context.Context) ([]Status, error) {
	o, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	appliedAt := make(map[int64]time.Time)
	if o.started {
		rows, err := m.pool.Query(ctx, appliedAtSQL)
		if err != nil {
			return nil, fmt.Errorf("read the migrations' status: %w", err)
		}
		var version int64
		var at time.Time
		_, err = pgx.ForEachRow(rows, []any{&version, &at}, func() error {
			appliedAt[version] = at
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the migrations' status: %w", err)
		}
	}
	var statuses []Status
	for _, source := range m.provider.ListSources() {
		statuses = append(statuses, Status{Version: source.Version, Name: source.Path, AppliedAt: appliedAt[source.Version]})
	}
	return statuses, nil
}

// Version is the newest applied migration; 0 when there is none, or no schema.
func (m *Migrator) Version(ctx context.Context) (int64, error) {
	o, err := m.look(ctx)
	return o.version, err
}

// Latest is the newest migration that this program brings.
func Latest() int64 {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // an embedded folder can be read
	}
	var latest int64
	for _, e := range entries {
		if version, err := goose.NumericComponent(e.Name()); err == nil {
			latest = max(latest, version)
		}
	}
	return latest
}

// Close ends the connections.
func (m *Migrator) Close() {
	m.db.Close()
	m.pool.Close()
}
