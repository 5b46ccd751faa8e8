package repo_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// TestPollOnly: a session has its name, and is ended when it is silent, within a
// transaction alone; nothing is left in it for the next one to find.
func TestPollOnly(t *testing.T) {
	t.Parallel()
	const sessionSQL = `
		SELECT concat_ws(' ', quote_literal(current_setting('application_name')), current_setting('idle_in_transaction_session_timeout'),
		                 (SELECT count(*) FROM pg_prepared_statements WHERE name <> ''))`
	b := newBench(t)
	store := openStore(t, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 1, Process: "o'host-1", Now: b.clock.Now, SilentFor: 90 * time.Second, PollOnly: true})
	session := func(conn interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}) string {
		var said string
		if err := conn.QueryRow(t.Context(), sessionSQL).Scan(&said); err != nil {
			t.Fatal(err)
		}
		return said
	}
	got := []string{session(store.Pool())}
	_, err := store.StartRun(t.Context(), b.backfill(imclient.KindPresence), func(tx pgx.Tx, runID int64) (int64, error) {
		got = append(got, session(tx))
		return enqueuePlan(tx, runID)
	})
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, session(store.Pool()))
	want := []string{"'syncer' 0 0", "'syncer o''host-1' 90s 0", "'syncer' 0 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the session (-want +got):\n%s", diff)
	}
}
