package repo_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/repo"
)

// TestSilentSession: what a process has locked that is silent amid a
// transaction is free again, and the transaction is undone.
func TestSilentSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	store := openStore(t, repo.Config{URL: b.url, Schema: "syncer", MaxConns: 2, Process: "frozen", SilentFor: 100 * time.Millisecond})
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
		store := openStore(t, repo.Config{URL: url, Schema: "syncer", MaxConns: 1, Process: "p", SilentFor: silentFor})
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
