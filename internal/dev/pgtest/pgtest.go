// Package pgtest makes databases for tests on a real Postgres server.
//
// A package's tests begin with
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
//
// or, to find leaked goroutines, too, goleak.VerifyTestMain(pgtest.M{M: m}). Tests
// then call Database or Template. The server is that of SYNCER_TEST_DATABASE_URL,
// which `make test` sets; without it the test binary starts a cluster (package
// pgcluster). No test is skipped for lack of a server.
//
// Databases are named syncer_test_RUN_…, where RUN begins with the time of the run.
// So those of a killed test do not disturb later runs, which drop them when they are
// old.
package pgtest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
)

const (
	prefix = "syncer_test_"
	// patience bounds each administrative task.
	patience = 5 * time.Minute
	// abandonedAfter is the age at which databases of another run are dropped, far
	// above the time limit of go test.
	abandonedAfter = 6 * time.Hour
)

// runID identifies the test run in names of databases: "<unix time>_<random>". All
// processes under with-postgres share one. A process started by hand is a run of its
// own, so that it does not use a template filled by older code.
var runID = sync.OnceValue(func() string {
	return cmp.Or(os.Getenv(pgcluster.EnvRun), fmt.Sprintf("%d_%s", time.Now().Unix(), token()))
})

// token returns a unique part of a name.
func token() string { return strings.ToLower(rand.Text()[:10]) }

// M is a testing.M whose Run is pgtest.Run.
type M struct{ *testing.M }

// Run is pgtest.Run of the wrapped M.
func (m M) Run() int { return Run(m.M) }

// Run runs the tests with a database server and returns the exit code. It starts a
// cluster unless SYNCER_TEST_DATABASE_URL is set.
func Run(m *testing.M) int {
	if os.Getenv(pgcluster.EnvURL) != "" {
		if err := dropAbandoned(time.Now()); err != nil {
			fmt.Fprintf(os.Stderr, "pgtest: using the server at %s: %v\n", pgcluster.EnvURL, err)
			return 1
		}
		return m.Run()
	}
	cluster, err := pgcluster.Start(context.Background(), pgcluster.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return 1
	}
	// In the environment, so that child processes share the server.
	if err := os.Setenv(pgcluster.EnvURL, cluster.URL("postgres")); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", errors.Join(err, cluster.Stop()))
		return 1
	}
	code := m.Run()
	if err := cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		return max(code, 1)
	}
	return code
}

// Database creates an empty database and returns its URL. It is dropped when the test
// ends, even with open connections. It is UTF8 with the server's default collation,
// "C" on our own clusters.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, "template0", utf8)
}

// DatabaseIn is Database for another encoding, such as LATIN1 or SQL_ASCII. The
// collation is "C", which suits all of them.
func DatabaseIn(t testing.TB, encoding string) string {
	t.Helper()
	return create(t, "template0", encoding)
}

// utf8 is the encoding of all databases but DatabaseIn's.
const utf8 = "UTF8"

// create makes a database from a template and drops it when the test ends.
func create(t testing.TB, template, encoding string) string {
	t.Helper()
	name := prefix + runID() + "_" + token()
	if err := admin(func(ctx context.Context, conn *pgx.Conn) error {
		return createFrom(ctx, conn, name, template, encoding)
	}); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := admin(func(ctx context.Context, conn *pgx.Conn) error {
			return drop(ctx, conn, name)
		}); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	u, err := databaseURL(name)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return u
}

// admin calls do with a connection to the server's administrative database.
func admin(do func(context.Context, *pgx.Conn) error) (err error) {
	server := os.Getenv(pgcluster.EnvURL)
	if server == "" {
		return errors.New("no database server: the package's TestMain must call pgtest.Run")
	}
	// Not the test's context, which ends before its clean-up.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	// Deferred, because prepare may call t.FailNow while the connection holds the
	// template's lock.
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(ctx, conn)
}

// databaseURL returns the server's URL for another database.
func databaseURL(name string) (string, error) {
	u, err := url.Parse(os.Getenv(pgcluster.EnvURL))
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		// The value may contain a password, and url.Parse's error the value.
		return "", fmt.Errorf("%s is no URL of the form postgres://user@host/database", pgcluster.EnvURL)
	}
	u.Path = "/" + name
	return u.String(), nil
}

func createFrom(ctx context.Context, conn *pgx.Conn, name, template, encoding string) error {
	sql := "CREATE DATABASE " + quote(name) + " TEMPLATE " + quote(template) + " ENCODING " + quote(encoding)
	if encoding != utf8 {
		sql += " LC_COLLATE 'C' LC_CTYPE 'C'"
	}
	// Copying through the write-ahead log costs more, and so does dropping. Before
	// Postgres 15 files are always copied, without an option.
	if major, _, _ := strings.Cut(conn.PgConn().ParameterStatus("server_version"), "."); major != "14" {
		sql += " STRATEGY file_copy"
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("creating database %s from %s: %w", name, template, err)
	}
	return nil
}

func drop(ctx context.Context, conn *pgx.Conn, name string) error {
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+quote(name)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("dropping database %s: %w", name, err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
