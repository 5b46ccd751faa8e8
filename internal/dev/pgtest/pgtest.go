// Package pgtest gives tests databases of their own on a real Postgres server.
//
// A package's tests begin with
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }
//
// or, to look for leaked goroutines too, goleak.VerifyTestMain(pgtest.M{M: m}).
// Tests then call Database or Template. The server is the one at
// SYNCER_TEST_DATABASE_URL, which `make test` provides for all packages; without
// it the test binary starts a throwaway cluster. No test is ever skipped for want
// of a server.
//
// The databases are named syncer_test_RUN_…, where RUN starts with the time of
// the run. What a killed test leaves behind therefore never gets in the way of a
// later run, and is dropped by one when it is old.
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
	// patience bounds each administrative task: creating, preparing, copying,
	// dropping.
	patience = 5 * time.Minute
	// abandonedAfter is the age at which a run's databases belong to nobody any
	// more. It is far above the time limit of go test.
	abandonedAfter = 6 * time.Hour
)

// runID identifies the test run in the names of databases: "<unix time>_<random>".
// with-postgres gives all processes of a run the same; a process that was
// started by hand is a run of its own, which keeps it from taking a template
// that older code has filled.
var runID = sync.OnceValue(func() string {
	return cmp.Or(os.Getenv(pgcluster.EnvRun), fmt.Sprintf("%d_%s", time.Now().Unix(), token()))
})

// token returns what makes a name unique.
func token() string { return strings.ToLower(rand.Text()[:10]) }

// M is a testing.M whose Run is pgtest.Run.
type M struct{ *testing.M }

// Run is pgtest.Run of the wrapped M.
func (m M) Run() int { return Run(m.M) }

// Run runs the tests with a database server and returns the exit code. It starts
// a cluster, and stops it afterwards, unless SYNCER_TEST_DATABASE_URL is set.
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
	// In the environment, so that processes that tests start share the server.
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

// Database creates an empty database for the test and returns its URL. The
// database is dropped when the test ends, whoever is still connected to it. It is
// UTF8 with the server's default collation, which is "C" on our own clusters.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, "template0", utf8)
}

// DatabaseIn is Database for another encoding, for example LATIN1 or SQL_ASCII.
// The collation is "C", which goes with all of them.
func DatabaseIn(t testing.TB, encoding string) string {
	t.Helper()
	return create(t, "template0", encoding)
}

// utf8 is the encoding of all databases but DatabaseIn's.
const utf8 = "UTF8"

// create makes a database from a template and has it dropped when the test ends.
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
	// Deferred, because a prepare may leave by t.FailNow, and the connection may
	// hold the template's lock.
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(ctx, conn)
}

// databaseURL returns the server's URL with another database in it.
func databaseURL(name string) (string, error) {
	u, err := url.Parse(os.Getenv(pgcluster.EnvURL))
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		// The value may hold a password, and url.Parse's error the value.
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
	// Copied through the log instead, it costs more, and so does dropping it.
	// Before Postgres 15 there is no other way, and no option.
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
