package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Connect opens a connection on which tables of schema syncer need no schema, and times
// are in UTC. It is closed when the test ends.
func Connect(t testing.TB, databaseURL string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), WithParameters(t, databaseURL, "search_path", "syncer,public", "timezone", "UTC"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// WithParameters returns a URL with parameters of the session added, each a name and a
// value.
func WithParameters(t testing.TB, databaseURL string, namesAndValues ...string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	for i := 0; i < len(namesAndValues); i += 2 {
		query.Set(namesAndValues[i], namesAndValues[i+1])
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Exec executes statements that must succeed.
func Exec(t testing.TB, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
}

// Lines returns a statement's rows, each as one line of its columns: of times the time of
// day in UTC, of NULL a hyphen.
func Lines(t testing.TB, conn *pgx.Conn, statement string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		words := make([]string, len(values))
		for i, value := range values {
			switch v := value.(type) {
			case nil:
				words[i] = "-"
			case time.Time:
				words[i] = ClockTime(v)
			default:
				words[i] = fmt.Sprint(v)
			}
		}
		return strings.Join(words, " "), err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	return all
}

// ClockTime returns a time as Lines shows it.
func ClockTime(at time.Time) string { return at.UTC().Format("15:04:05.999999") }

// Value returns the only column of a statement's only row.
func Value[T any](t testing.TB, conn *pgx.Conn, statement string, args ...any) T {
	t.Helper()
	rows, err := conn.Query(t.Context(), statement, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%v\n%s", err, statement)
	}
	return v
}

// NewRole creates a role without privileges, and drops it when the test ends. asRole is
// the URL of sessions that have its privileges.
func NewRole(t testing.TB, conn *pgx.Conn, databaseURL string) (name, asRole string) {
	t.Helper()
	name = prefix + strings.ToLower(rand.Text()[:10])
	Exec(t, conn, `CREATE ROLE `+name)
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, databaseURL)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.Exec(ctx, `DROP OWNED BY `+name+`; DROP ROLE `+name); err != nil {
			t.Error(err)
		}
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return name, WithParameters(t, databaseURL, "role", name)
}

// Await polls until a condition holds. After five minutes it fails the test.
func Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !holds() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// AwaitLocked polls until n sessions of conn's database wait for a lock.
func AwaitLocked(t testing.TB, conn *pgx.Conn, n int) {
	t.Helper()
	Await(t, fmt.Sprintf("%d sessions wait for a lock", n), func() bool {
		return Value[int](t, conn, `SELECT count(*)::int FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'`) >= n
	})
}
