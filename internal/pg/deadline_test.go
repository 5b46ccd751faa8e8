package pg_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
)

// TestAnswerWithin: a statement, a batch or a copy that gets no answer is given
// up, and the next ones are good.
func TestAnswerWithin(t *testing.T) {
	t.Parallel()
	db := open(t, pg.Config{URL: pgtest.Database(t), MaxConns: 4, Process: "p", AnswerWithin: 5 * time.Second})
	batch := &pgx.Batch{}
	batch.Queue(`SELECT 1`)
	batch.Queue(`SELECT pg_sleep(600)`)
	scanned := func(rows pgx.Rows, err error) error {
		if err != nil {
			return err
		}
		rows.Next()
		rows.Close()
		return rows.Err()
	}
	// All at once, so that the limit can be long enough for what is answered.
	var asked sync.WaitGroup
	for name, ask := range map[string]func() error{
		"statement": func() error {
			_, err := db.Exec(t.Context(), `SELECT pg_sleep(600)`)
			return err
		},
		"row": func() error {
			var text string
			return db.QueryRow(t.Context(), `SELECT pg_sleep(600)::text`).Scan(&text)
		},
		"rows read one by one": func() error { return scanned(db.Query(t.Context(), `SELECT pg_sleep(600)`)) },
		"transaction": func() error {
			return db.InTx(t.Context(), func(tx *pg.Tx) error {
				_, err := tx.Exec(t.Context(), `SELECT pg_sleep(600)`)
				return err
			})
		},
		"batch": func() error { return db.RunBatch(t.Context(), batch) },
	} {
		asked.Go(func() {
			if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if err := db.Ping(t.Context()); err != nil {
				t.Errorf("after a %s: %v", name, err)
			}
		})
	}
	asked.Wait()
}

// TestReadOnlySession: a session that began while the database was read-only is
// not used again once it refused to write.
func TestReadOnlySession(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	db := open(t, pg.Config{URL: url, MaxConns: 1, Process: "p"})
	pgtest.Exec(t, conn, `CREATE TABLE public.note (text text)`)
	const write = `INSERT INTO public.note VALUES ('written')`
	session, err := db.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Exec(t.Context(), `SET default_transaction_read_only = on`); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Exec(t.Context(), write); err == nil {
		t.Fatal("a read-only session wrote")
	}
	session.Release()
	if _, err := db.Pool().Exec(t.Context(), write); err != nil {
		t.Error(err)
	}
	if got := pgtest.Value[string](t, conn, `SELECT string_agg(text, ' ') FROM public.note`); got != "written" {
		t.Errorf("the note is %q", got)
	}
}

// TestIsolation: whatever the database prefers, statements see what was
// committed before them, which locking relies on.
func TestIsolation(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	pgtest.Exec(t, conn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$`)
	db := open(t, pg.Config{URL: url, MaxConns: 1, Process: "p"})
	var level string
	if err := db.Pool().QueryRow(t.Context(), `SHOW transaction_isolation`).Scan(&level); err != nil {
		t.Fatal(err)
	}
	if level != "read committed" {
		t.Errorf("the isolation level is %s", level)
	}
}

// TestConnectTimeout: a server that accepts a connection and sends nothing is
// given up, in good time when the URL does not say when.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for more, want := range map[string]time.Duration{"": 10 * time.Second, "&connect_timeout=7": 7 * time.Second} {
		db := open(t, pg.Config{URL: url + more, MaxConns: 1, Process: "p"})
		if got := db.Pool().Config().ConnConfig.ConnectTimeout; got != want {
			t.Errorf("%q: %s, want %s", more, got, want)
		}
	}
}
