package repo_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// TestSilentSession: what a process has locked that is silent amid a
// transaction is free again, and the transaction is undone.
func TestSilentSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "frozen", SilentFor: 100 * time.Millisecond})
	tx, err := store.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE syncer.app SET name = 'frozen'`); err != nil {
		t.Fatal(err)
	}
	exec(t, b.conn, `SET lock_timeout = '60s'`)
	exec(t, b.conn, `UPDATE app SET name = name || ' still'`)
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("the silent session could commit")
	}
	if got := value[string](t, b.conn, `SELECT name FROM app`); got != "main still" {
		t.Errorf("the app's name is %q", got)
	}
	// The process goes on with another session.
	if err := store.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSilentAmidABatch: a process froze when the database had a part of what it
// was sending; what it has locked is free again, and rescued.
func TestSilentAmidABatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	b.plan(t, runID)
	frozen := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "frozen", Now: b.clock.Now, SilentFor: time.Minute})
	if _, err := frozen.ClaimRange(t.Context(), runID, 1, b.rangeJob(t, runID, 1), noon); err != nil {
		t.Fatal(err)
	}
	conn, err := frozen.Pool().Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	pipeline := conn.Conn().PgConn().StartPipeline(t.Context())
	pipeline.SendQueryParams(`SELECT FROM syncer.sync_range FOR UPDATE`, nil, nil, nil, nil)
	pipeline.SendFlushRequest() // no more of it, and not its end
	if err := pipeline.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := pipeline.GetResults(); err != nil {
		t.Fatal(err)
	}
	if got := value[int](t, b.conn, `SELECT count(*)::int FROM (SELECT FROM sync_range FOR UPDATE SKIP LOCKED) AS free`); got != 0 {
		t.Fatal("the range is not locked")
	}
	b.rescue(t, 0)
	b.clock.pass(2 * time.Minute)
	b.rescue(t, 0) // in the database's time it is not silent for long
	await(t, "the range is rescued", func() bool {
		rescued, err := b.store.Rescue(t.Context(), []int16{b.app.ID}, b.clock.Now(), enqueue)
		if err != nil {
			t.Fatal(err)
		}
		return rescued == 1
	})
	if err := pipeline.Sync(); err == nil {
		_, err = pipeline.GetResults()
		if err == nil {
			t.Error("the silent session could go on")
		}
	}
}

// TestSilentMachine: sessions are probed often enough to end within SilentFor.
func TestSilentMachine(t *testing.T) {
	t.Parallel()
	const settingsSQL = `
		SELECT name || ' ' || setting
		FROM pg_settings
		WHERE name LIKE 'tcp_%' OR name = 'idle_in_transaction_session_timeout'
		ORDER BY name`
	url := migrated(t)
	for silentFor, want := range map[time.Duration][]string{
		30 * time.Second:        {"idle_in_transaction_session_timeout 30000", "tcp_keepalives_count 3", "tcp_keepalives_idle 15", "tcp_keepalives_interval 5", "tcp_user_timeout 30000"},
		2500 * time.Millisecond: {"idle_in_transaction_session_timeout 2500", "tcp_keepalives_count 3", "tcp_keepalives_idle 1", "tcp_keepalives_interval 1", "tcp_user_timeout 2500"},
	} {
		store := openStore(t, pg.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "p", SilentFor: silentFor})
		rows, err := store.Pool().Query(t.Context(), settingsSQL)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("settings for %s (-want +got):\n%s", silentFor, diff)
		}
	}
}
