package migrations_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"syncer/internal/dev/pgtest"
	"syncer/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// patience ends a test that hangs; it is many times what any needs on a slow and
// busy machine.
const patience = 5 * time.Minute

// Numbers of migrations.
const (
	riverMigration      = 11
	partitionsMigration = 16
)

// schema is where the tests migrate to unless they are about that.
const schema = "syncer"

// open makes a migrator of a database; it is closed with the test.
func open(t testing.TB, url, schema string) *migrations.Migrator {
	t.Helper()
	m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// up migrates all the way.
func up(t testing.TB, m *migrations.Migrator) {
	t.Helper()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// migrated gives the URL of a fresh database with all migrations applied.
func migrated(t testing.TB) string {
	t.Helper()
	return pgtest.Template(t, "migrated", func(url string) error {
		m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema})
		if err != nil {
			return err
		}
		defer m.Close()
		_, err = m.Up(t.Context())
		return err
	})
}

// connect opens a connection whose search_path is the schema.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	return connectTo(t, url, schema)
}

// connectTo opens a connection with another search_path.
func connectTo(t testing.TB, url, schema string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = schema
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// column gives the only column of a statement's rows.
func column[T any](t testing.TB, conn *pgx.Conn, statement string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	return values
}

// run runs a statement that must succeed.
func run(t testing.TB, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
}

// withParameter puts a run-time parameter of the session into a URL.
func withParameter(t testing.TB, databaseURL, name, value string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set(name, value)
	u.RawQuery = query.Encode()
	return u.String()
}

// versionsBetween returns the versions above low up to high, in order. Not every
// number need have a migration.
func versionsBetween(t *testing.T, m *migrations.Migrator, low, high int64) []int64 {
	t.Helper()
	all, err := m.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var versions []int64
	for _, s := range all {
		if s.Version > low && s.Version <= high {
			versions = append(versions, s.Version)
		}
	}
	return versions
}
