package migrations_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
	"syncer/migrations"
)

// lines is a log that hands on each of its lines.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// next waits for the next line.
func (l lines) next(t testing.TB) string {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(patience):
		t.Fatal("nothing was logged")
		return ""
	}
}

// TestMigrateWaits: while a long transaction keeps a migration from its lock on a table,
// other sessions continue to write to the table, and the log names the holder. When the
// transaction ends, the migration is applied.
func TestMigrateWaits(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		table   string
		hold    string
		migrate func(context.Context, *migrations.Migrator) ([]migrations.Status, error)
	}{
		"up": {"app", `LOCK TABLE app IN ROW EXCLUSIVE MODE`, func(ctx context.Context, m *migrations.Migrator) ([]migrations.Status, error) { return m.Up(ctx) }},
		"down, the queue's": {"river_queue", `SELECT FROM river_queue`, func(ctx context.Context, m *migrations.Migrator) ([]migrations.Status, error) {
			return m.Down(ctx, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := migrated(t)
			if name == "up" {
				// The next migration makes foreign keys to app.
				if _, err := open(t, url, schema).Down(t.Context(), riverMigration); err != nil {
					t.Fatal(err)
				}
			}
			log := make(lines, 1000)
			m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			before, err := m.Version(t.Context())
			if err != nil {
				t.Fatal(err)
			}

			holder, writer := connect(t, url), connect(t, url)
			run(t, holder, `SET application_name = 'a long report'`)
			run(t, holder, `BEGIN`)
			run(t, holder, tc.hold)
			type result struct {
				done []migrations.Status
				err  error
			}
			migrated := make(chan result, 1)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			go func() {
				done, err := tc.migrate(ctx, m)
				migrated <- result{done, err}
			}()
			pid := holder.PgConn().PID()
			for _, want := range []string{"migrations wait for a lock", fmt.Sprintf("session %d", pid), "a long report", "idle in transaction", fmt.Sprintf("SELECT pg_terminate_backend(%d);", pid)} {
				if line := log.next(t); !strings.Contains(line, want) {
					t.Errorf("the log says %s; want %s", line, want)
				} else {
					log <- line // for the next one
				}
			}
			// Behind a waiting migration, again and again, a writer gets its turn.
			poll := time.NewTicker(20 * time.Millisecond)
			defer poll.Stop()
			for range 2 {
				for waiting := false; !waiting; <-poll.C {
					waiting = column[bool](t, writer, `
SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
               WHERE NOT granted AND relation = $1::regclass AND application_name LIKE 'syncer migrate%')`, tc.table)[0]
				}
				if _, err := writer.Exec(ctx, `DELETE FROM `+tc.table); err != nil {
					t.Fatalf("a writer behind the migration: %v", err)
				}
			}
			select {
			case r := <-migrated:
				t.Fatalf("migrated while the lock was held: %v, %v", r.done, r.err)
			default:
			}
			run(t, holder, `COMMIT`)
			r := <-migrated
			if r.err != nil {
				t.Fatal(r.err)
			}
			after, err := m.Version(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var versions []int64
			for _, s := range r.done {
				versions = append(versions, s.Version)
			}
			want := versionsBetween(t, m, min(before, after), max(before, after))
			if after < before {
				slices.Reverse(want)
			}
			if diff := cmp.Diff(want, versions); diff != "" || len(want) == 0 {
				t.Errorf("migrated from %d to %d, but told (-want +got):\n%s", before, after, diff)
			}
		})
	}
}

// TestMigrateGivesUp: a migration that does not get its lock in time says for whom
// it waited; what was applied before is told.
func TestMigrateGivesUp(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema, LockWait: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	reader := connect(t, url)
	run(t, reader, `BEGIN`)
	run(t, reader, `SELECT FROM api_quota`)
	done, err := m.Down(t.Context(), 0)
	for _, want := range []string{"migrate down: gave up after ", "lock timeout", fmt.Sprintf("SELECT pg_terminate_backend(%d);", reader.PgConn().PID())} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Down while a table is read: %v; want %q", err, want)
		}
	}
	version, versionErr := m.Version(t.Context())
	if versionErr != nil || version == 0 || len(done) != len(versionsBetween(t, m, version, migrations.Latest())) {
		t.Errorf("Down told %d migrations; the version is %d, %v", len(done), version, versionErr)
	}
}

// TestMigrateForeignLock: a session that holds the lock of migrations is named.
func TestMigrateForeignLock(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	holder := connect(t, url)
	run(t, holder, `SET application_name = 'mallory'`)
	run(t, holder, `SELECT pg_advisory_lock(4097083626)`)
	m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: schema, LockWait: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, err = m.Up(t.Context())
	for _, want := range []string{"another session holds the lock of migrations", `application "mallory"`, fmt.Sprintf("SELECT pg_terminate_backend(%d);", holder.PgConn().PID())} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Up: %v; want %q", err, want)
		}
	}
	run(t, holder, `SELECT pg_advisory_unlock(4097083626)`)
	up(t, m)
}
