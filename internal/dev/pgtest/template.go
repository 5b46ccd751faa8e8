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

// Template returns the URL of a copy of a database that prepare has filled, for
// example with migrations. prepare runs once per run and name, in one process; others
// wait. It must close its connections. If it fails, the test fails and the next one
// calls it again.
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

// templateName returns the name of a template's database for any name.
func templateName(name string) string {
	return fmt.Sprintf("%s%s_t_%.8x", prefix, runID(), sha256.Sum256([]byte(name)))
}

// ensureTemplate fills the template's database unless that was done. The database is
// renamed last, so one with the final name is complete; a half-filled one of a killed
// process is dropped and made again.
func ensureTemplate(ctx context.Context, conn *pgx.Conn, template string, prepare func(url string) error) error {
	// The session's lock ends with the connection, even if the process is killed.
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
	// Without connections a database can always be copied.
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(unfinished)+" ALLOW_CONNECTIONS false"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+quote(unfinished)+" RENAME TO "+quote(template)); err != nil {
		return fmt.Errorf("finishing it (has prepare closed its connections?): %w", err)
	}
	return nil
}

// dropAbandoned drops the databases of killed runs on a server that outlives runs.
func dropAbandoned(now time.Time) error {
	return admin(func(ctx context.Context, conn *pgx.Conn) error {
		var mine bool
		err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", prefix).Scan(&mine)
		if err != nil || !mine { // another process does it
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

// abandoned reports whether a database's name is from an old run.
func abandoned(name string, now time.Time) bool {
	since, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "_")
	seconds, err := strconv.ParseInt(since, 10, 64)
	return err == nil && now.Sub(time.Unix(seconds, 0)) > abandonedAfter
}
