package pgcluster

import (
	"testing"
)

// TestStandby: what a primary with a synchronous standby has committed, the
// standby has when it takes over.
func TestStandby(t *testing.T) {
	leavesNothing(t)
	primary := start(t, Options{Settings: map[string]string{"synchronous_commit": "on"}})
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	conn := connect(t, primary.URL("postgres"))
	for _, statement := range []string{
		"ALTER SYSTEM SET synchronous_standby_names = '" + StandbyName + "'",
		"SELECT pg_reload_conf()",
		"CREATE TABLE kept AS SELECT 1 AS n",
	} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// The new setting comes to each process of the server in its own time: the table may
	// have been committed before it held.
	const caughtUp = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND replay_lsn >= pg_current_wal_lsn())"
	for !queryOne[bool](t, conn, caughtUp) {
		if t.Context().Err() != nil {
			t.Fatal("the standby does not catch up")
		}
	}
	primary.StopServer(Immediate)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := queryOne[int](t, connect(t, standby.URL("postgres")), "UPDATE kept SET n = n + 1 RETURNING n"); got != 2 {
		t.Errorf("the standby has %d; want 2", got)
	}
}
