package pgtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Template is Database with contents: it returns the URL of a fresh copy of a
// database that prepare has filled, for example with migrations. Prepare is
// called once per run and name, whichever test and whichever process comes first;
// all others wait for it. It must close its connections. A prepare that fails
// fails the test, and is called again by the next.
func Template(t testing.TB, name string, prepare func(url string) error) string {
	t.Helper()
	template := templateName(name)
	if err := admin(func(ctx context.Context, conn *pgx.Conn) error {
		return ensureTemplate(ctx, conn, template, prepare)
	}); err != nil {
		t.Fatalf("pgtest: template %s: %v", name, err)
	}
	return create(t, template, utf8)
}

// templateName returns the name of a template's database, whatever the length
// and the characters of the name it is asked for by.
func templateName(name string) string {
	return fmt.Sprintf("%s%s_t_%.8x", prefix, runID(), sha256.Sum256([]byte(name)))
}

// ensureTemplate fills the template's database unless that has been done. The
// database gets its name last, so that one with that name is complete; one that
// a killed process left half filled has another name and is done afresh.
func ensureTemplate(ctx context.Context, conn *pgx.Conn, template string, prepare func(url string) error) error {
	// The lock is the session's: it ends with the connection, even of a killed
	// process.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(hashtextextended($1, 0))", template); err != nil {
		return fmt.Errorf("waiting for another test that prepares it: %w", err)
	}
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", template).Scan(&exists)
	if err != nil || exists {
		return err
	}
	unfinished := template + "_new"
	if err := drop(ctx, conn, unfinished); err != nil {
		return err
	}
	if err := createFrom(ctx, conn, unfinished, "template0", utf8); err != nil {
		return err
	}
	u, err := databaseURL(unfinished)
	if err != nil {
		return err
	}
	if err := prepare(u); err != nil {
		return fmt.Errorf("preparing it: %w", err)
	}
	// A database that refuses connections can always be copied.
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(unfinished)+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(unfinished)+" RENAME TO "+quote(template)); err != nil {
		return fmt.Errorf("finishing it (has prepare closed its connections?): %w", err)
	}
	return nil
}

// dropAbandoned drops the databases that killed runs have left on a server that
// outlives them.
func dropAbandoned(now time.Time) error {
	return admin(func(ctx context.Context, conn *pgx.Conn) error {
		var mine bool
		err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", prefix).Scan(&mine)
		if err != nil || !mine { // another process is at it
			return err
		}
		rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, name := range names {
			if !abandoned(name, now) {
				continue
			}
			if err := drop(ctx, conn, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// abandoned reports whether a database's name tells of a run long ago.
func abandoned(name string, now time.Time) bool {
	since, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "_")
	seconds, err := strconv.ParseInt(since, 10, 64)
	return err == nil && now.Sub(time.Unix(seconds, 0)) > abandonedAfter
}
