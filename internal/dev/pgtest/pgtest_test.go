package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"syncer/internal/dev/pgcluster"
)

// preparerMode makes the test binary one of several processes that ask for the
// template it names.
const preparerMode = "SYNCER_PGTEST_TEST_TEMPLATE"

func TestMain(m *testing.M) { goleak.VerifyTestMain(M{M: m}) }

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func queryOne[T any](t testing.TB, url, sql string, args ...any) T {
	t.Helper()
	rows, err := connect(t, url).Query(context.Background(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// databaseExists asks the server whether it has a database.
func databaseExists(t testing.TB, name string) bool {
	t.Helper()
	return queryOne[bool](t, os.Getenv(pgcluster.EnvURL), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name)
}

// fill is a prepare that leaves one row.
func fill(url string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE filled AS SELECT 1 AS n")
	return errors.Join(err, conn.Close(ctx))
}

func TestDatabase(t *testing.T) {
	var name string
	t.Run("while the test runs", func(t *testing.T) {
		url, other := Database(t), Database(t)
		if url == other {
			t.Fatal("two databases have one URL")
		}
		name = queryOne[string](t, url, "SELECT current_database()")
		if got := queryOne[string](t, url, "SHOW server_encoding"); got != "UTF8" {
			t.Errorf("encoding %s; want UTF8", got)
		}
		if got := queryOne[int](t, url, "SELECT count(*)::int FROM pg_class WHERE relnamespace = 'public'::regnamespace"); got != 0 {
			t.Errorf("%d relations in a new database; want none", got)
		}
		// A connection that is left open must not keep the database from going.
		if _, err := pgx.Connect(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	})
	if databaseExists(t, name) {
		t.Errorf("database %s is there after its test", name)
	}
}

func TestTemplate(t *testing.T) {
	var calls atomic.Int32
	prepare := func(url string) error {
		calls.Add(1)
		return fill(url)
	}
	name := t.Name()
	t.Run("copies", func(t *testing.T) {
		for range 8 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				url := Template(t, name, prepare)
				if got := queryOne[int](t, url, "UPDATE filled SET n = n + 1 RETURNING n"); got != 2 {
					t.Errorf("read %d; want 2: the copies are not separate", got)
				}
			})
		}
	})
	if got := calls.Load(); got != 1 {
		t.Errorf("prepare was called %d times; want once", got)
	}
}

func TestTemplate_failedPrepare(t *testing.T) {
	template := templateName(t.Name())
	failed := errors.New("half done")
	err := admin(func(ctx context.Context, conn *pgx.Conn) error {
		return ensureTemplate(ctx, conn, template, func(url string) error {
			return errors.Join(fill(url), failed)
		})
	})
	if !errors.Is(err, failed) {
		t.Fatalf("error %v; want %v", err, failed)
	}
	if databaseExists(t, template) {
		t.Fatal("a template that was half prepared counts as prepared")
	}
	url := Template(t, t.Name(), fill)
	if got := queryOne[int](t, url, "SELECT n FROM filled"); got != 1 {
		t.Errorf("read %d; want 1", got)
	}
}

// TestTemplate_processes has several processes ask for one template at once;
// each counts its calls of prepare in a database of this process.
func TestTemplate_processes(t *testing.T) {
	if url := os.Getenv(preparerMode); url != "" {
		Template(t, t.Name(), func(filled string) error {
			queryOne[int](t, url, "INSERT INTO prepared VALUES (1) RETURNING n")
			return fill(filled)
		})
		return
	}
	url := Database(t)
	if _, err := connect(t, url).Exec(t.Context(), "CREATE TABLE prepared (n int)"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			cmd := exec.Command(self, "-test.run=^TestTemplate_processes$")
			cmd.Env = append(os.Environ(), preparerMode+"="+url, pgcluster.EnvRun+"="+runID())
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	group.Wait()
	if got := queryOne[int](t, url, "SELECT count(*)::int FROM prepared"); got != 1 {
		t.Errorf("prepare was called %d times by three processes; want once", got)
	}
}

func TestDropAbandoned(t *testing.T) {
	now := time.Now()
	names := map[string]bool{ // true: to be dropped
		fmt.Sprintf("%s%d_%s", prefix, now.Add(-abandonedAfter-time.Hour).Unix(), token()):   true,
		fmt.Sprintf("%s%d_%s_t", prefix, now.Add(-abandonedAfter-time.Hour).Unix(), token()): true,
		fmt.Sprintf("%s%d_%s", prefix, now.Add(-time.Hour).Unix(), token()):                  false,
		prefix + "kept_" + token(): false,
	}
	for name := range names {
		if err := admin(func(ctx context.Context, conn *pgx.Conn) error {
			return createFrom(ctx, conn, name, "template0", utf8)
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := admin(func(ctx context.Context, conn *pgx.Conn) error { return drop(ctx, conn, name) }); err != nil {
				t.Error(err)
			}
		})
	}
	if err := dropAbandoned(now); err != nil {
		t.Fatal(err)
	}
	for name, dropped := range names {
		if exists := databaseExists(t, name); exists == dropped {
			t.Errorf("database %s: there after the clean-up: %t; want %t", name, exists, !dropped)
		}
	}
}

func TestDatabaseURL_hidesPassword(t *testing.T) {
	for _, value := range []string{"host=db password=hush", "postgres://u:hush@[", "mysql://u:hush@db/x"} {
		t.Setenv(pgcluster.EnvURL, value)
		u, err := databaseURL("x")
		if err == nil {
			t.Errorf("%q was accepted as %q", value, u)
			continue
		}
		if strings.Contains(err.Error(), "hush") {
			t.Errorf("error shows the password: %v", err)
		}
	}
}
