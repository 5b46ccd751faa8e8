package userstable

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/singleflight"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
)

// limitedUsers reads a table of two users over one connection.
func limitedUsers(t *testing.T, c Config) (*Table, *pgx.Conn) {
	t.Helper()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	const tableSQL = `
CREATE TABLE public.users (id bigint PRIMARY KEY, uid text);
INSERT INTO public.users VALUES (1, 'a'), (2, 'b');
CREATE FUNCTION public.forget(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.users; RETURN true; END $$`
	if _, err := conn.Exec(t.Context(), tableSQL); err != nil {
		t.Fatal(err)
	}
	db, err := connect(t.Context(), url, 1, nil) // each statement comes over the connection of the one before
	if err != nil {
		t.Fatal(err)
	}
	c.Table, c.KeyColumn = []string{"public", "users"}, "id"
	users := newTable(c, db, new(singleflight.Group), false)
	t.Cleanup(users.Close)
	return users, conn
}

// TestUsers_slow: a statement that takes too long ends, with advice.
func TestUsers_slow(t *testing.T) {
	t.Parallel()
	users, _ := limitedUsers(t, Config{UserID: "uid", Where: "pg_sleep(3600) IS NOT NULL"})
	users.tries = []try{tryFor(50*time.Millisecond, grace), tryFor(100*time.Millisecond, grace)}
	_, err := users.Walk("").Page(t.Context(), nil, nil, 10)
	if err == nil || !strings.Contains(err.Error(), "canceling statement due to statement timeout") || !strings.Contains(err.Error(), "an index that serves [users] where is missing") {
		t.Errorf("Page: %v", err)
	}
}

// TestUsers_patience: a statement that takes longer than most has more time.
func TestUsers_patience(t *testing.T) {
	t.Parallel()
	users, _ := limitedUsers(t, Config{UserID: "uid", Where: "id > 0 AND pg_sleep(0.3) IS NOT NULL"})
	users.tries[0] = tryFor(50*time.Millisecond, grace)
	page, err := users.Walk("").Page(t.Context(), nil, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, page.IDs); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
}

// TestUsers_lost: where the database does not say that a statement took too long,
// the connection is lost, and given up at once. The next one is good.
func TestUsers_lost(t *testing.T) {
	t.Parallel()
	users, _ := limitedUsers(t, Config{UserID: "uid"})
	users.tries[0] = tryFor(50*time.Millisecond, 50*time.Millisecond)
	reads := 0
	err := users.read(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		reads++
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT pg_sleep(3600)`) // no word of it until then
		return err
	})
	if err = users.explain("read a page", err); !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "no connection to the database that [users] url names") || reads != 1 {
		t.Errorf("%d reads: %v", reads, err)
	}
	users.tries[0] = tryFor(time.Minute, time.Minute)
	page, err := users.Walk("").Page(t.Context(), nil, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, page.IDs); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
}

// TestUsers_settings: an expression that changes settings, the guards among
// them, finds them as they were with the next statement.
func TestUsers_settings(t *testing.T) {
	t.Parallel()
	const settings = `(SELECT concat_ws(' ', current_setting('transaction_read_only'), current_setting('datestyle'), set_config('datestyle', 'German', false),
current_setting('work_mem'), set_config('work_mem', '1GB', false), current_setting('statement_timeout'), set_config('statement_timeout', '0', false)))`
	users, conn := limitedUsers(t, Config{UserID: settings})
	for range 3 {
		page, err := users.Walk("").Page(t.Context(), nil, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"on ISO, MDY German, DMY 4MB 1GB 10s 0"}, page.IDs); diff != "" {
			t.Errorf("settings (-want +got):\n%s", diff)
		}
	}
	users.config.UserID = `(SELECT set_config('transaction_read_only', 'off', false) || public.forget(id))`
	if _, err := users.Walk("").Page(t.Context(), nil, nil, 1); err == nil || !strings.Contains(err.Error(), "read-write mode must be set before any query") {
		t.Errorf("a transaction is made writable: %v", err)
	}
	users.config.UserID, users.config.Where = "uid", "public.forget(id)"
	if _, err := users.Walk("").Page(t.Context(), nil, nil, 1); err == nil || !strings.Contains(err.Error(), "read-only transaction") {
		t.Errorf("a function writes: %v", err)
	}
	var left int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM public.users`).Scan(&left); err != nil || left != 2 {
		t.Errorf("%d users are left (%v), want 2", left, err)
	}
}

// TestUsers_silent: who was frozen amid reading has made no mistake in the
// configuration, and reads on.
func TestUsers_silent(t *testing.T) {
	t.Parallel()
	users, conn := limitedUsers(t, Config{UserID: "uid"})
	tries := users.tries
	short := tries[0]
	short.begin.BeginQuery += "; SET LOCAL idle_in_transaction_session_timeout = 10"
	users.tries = []try{short}
	err := users.read(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		for left := 1; left > 0; { // until the session has been ended
			if err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncer users' AND datname = current_database()`).Scan(&left); err != nil {
				return err
			}
		}
		return tx.QueryRow(ctx, `SELECT 1`).Scan(new(int))
	})
	if code := pg.SQLState(err); code != pg.IdleInTransactionTimeout {
		t.Fatalf("reading: %v", err)
	}
	if mistake, ok := errors.AsType[*Error](users.explain("read a page", err)); ok {
		t.Errorf("it is called a mistake: %v", mistake)
	}
	users.tries = tries
	page, err := users.Walk("").Page(t.Context(), nil, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, page.IDs); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
}

// TestUsers_size: a count that takes too long becomes the planner's estimate.
func TestUsers_size(t *testing.T) {
	t.Parallel()
	users, conn := limitedUsers(t, Config{UserID: "uid", Where: "id > 0 AND pg_sleep(0.3) IS NOT NULL"})
	if n, exact, err := users.Size(t.Context()); n != 2 || !exact || err != nil {
		t.Errorf("Size gives %d, %t, %v", n, exact, err)
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO public.users (id, uid) SELECT n, n::text FROM generate_series(1000, 9999) AS n; ANALYZE public.users`); err != nil {
		t.Fatal(err)
	}
	users.tries[0] = tryFor(50*time.Millisecond, grace)
	if n, exact, err := users.Size(t.Context()); n < 1000 || n > 10_000 || exact || err != nil {
		t.Errorf("Size gives %d, %t, %v, want the planner's estimate of 9,002", n, exact, err)
	}
	users.config.Where = "nothing"
	if _, _, err := users.Size(t.Context()); err == nil || !strings.Contains(err.Error(), "check [users] user_id, where and key_column") {
		t.Errorf("Size with a wrong condition: %v", err)
	}
}
