package repo_test

import (
	"errors"
	"strings"
	"testing"

	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

// TestCheckSchema_renamed: after ALTER SCHEMA … RENAME the functions still use the
// old name. CheckSchema says so, and what mends it.
func TestCheckSchema_renamed(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	conn := connect(t, url)
	exec(t, conn, `ALTER SCHEMA syncer RENAME TO im_status`)
	store := openStore(t, pg.Config{URL: url, Schema: "im_status", MaxConns: 1, Process: "p"})
	err := store.CheckSchema(t.Context(), migrations.Latest())
	if !errors.Is(err, repo.ErrNoSchema) || !strings.Contains(err.Error(), "its functions still use schema syncer; run: syncer migrate up") {
		t.Errorf("CheckSchema: %v", err)
	}
	m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: "im_status"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.CheckSchema(t.Context(), migrations.Latest()); err != nil {
		t.Error(err)
	}
	if made, err := store.MakePartitions(t.Context(), "day", store.Now()); made != 2 || err != nil {
		t.Errorf("MakePartitions = %d, %v; want 2", made, err)
	}
	if err := store.RollUp(t.Context(), noon.Location(), noon); err != nil {
		t.Error(err)
	}
}

// TestCheckSchema_searchPath: syncer works whatever search_path the database sets.
func TestCheckSchema_searchPath(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = nowhere', current_database()); END $$`)
	store := b.open(t, "second")
	if err := store.CheckSchema(t.Context(), migrations.Latest()); err != nil {
		t.Error(err)
	}
	if made, err := store.MakePartitions(t.Context(), "day", at(3600)); made != 2 || err != nil {
		t.Errorf("MakePartitions = %d, %v; want 2", made, err)
	}
	if err := store.RollUp(t.Context(), noon.Location(), noon); err != nil {
		t.Error(err)
	}
}

// TestCheckSchema_development: the schema of a development version is refused whatever its
// version, and the error says what to do.
func TestCheckSchema_development(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `INSERT INTO syncer_migration (version_id, is_applied) VALUES (1, true)`)
	for _, want := range []int64{0, migrations.Latest() + 1} {
		err := b.store.CheckSchema(t.Context(), want)
		if !errors.Is(err, pg.ErrDevelopmentSchema) || !strings.Contains(err.Error(), `DROP SCHEMA "syncer" CASCADE;`) {
			t.Errorf("CheckSchema(%d): %v", want, err)
		}
	}
}

// TestCheckSchema_encoding: the tables are in a database that was restored in
// another encoding.
func TestCheckSchema_encoding(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			url := pgtest.DatabaseIn(t, encoding)
			conn := connect(t, url)
			exec(t, conn, `CREATE SCHEMA syncer`)
			exec(t, conn, `CREATE TABLE syncer.syncer_migration AS SELECT 9999 AS version_id, true AS is_applied`)
			store := openStore(t, pg.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "p"})
			err := store.CheckSchema(t.Context(), migrations.Latest())
			if !errors.Is(err, repo.ErrEncoding) || !strings.Contains(err.Error(), "it is "+encoding) || !strings.Contains(err.Error(), "CREATE DATABASE syncer ENCODING 'UTF8'") {
				t.Errorf("CheckSchema: %v", err)
			}
		})
	}
}

// TestCheckQueue: jobs of another program in the queue's tables are noticed.
func TestCheckQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `INSERT INTO river_job (kind, args, max_attempts) VALUES ('syncer_range', '{}', 3)`)
	if owns, err := b.store.CheckQueue(t.Context()); !owns || err != nil {
		t.Errorf("CheckQueue = %t, %v", owns, err)
	}
	exec(t, b.conn, `INSERT INTO river_job (kind, args, max_attempts) VALUES ('send_mail', '{}', 3)`)
	if _, err := b.store.CheckQueue(t.Context()); !errors.Is(err, repo.ErrForeignJobs) || !strings.Contains(err.Error(), "send_mail") {
		t.Errorf("CheckQueue: %v", err)
	}
}
