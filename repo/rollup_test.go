package repo_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

const addStretchSQL = `
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since)
VALUES ($1, 'user', 'online', 'offline', '{}', $3, $3, 1, $2)`

const rolledUpSQL = `
SELECT a.name || ' ' || r.until_day || coalesce(' ' || p.day || ' ' || p.online_seconds, '')
FROM presence_rollup AS r
JOIN app AS a USING (app_id)
LEFT JOIN presence_day AS p USING (app_id)
ORDER BY a.name, p.day`

func TestRollUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	second, err := b.store.EnsureApp(t.Context(), "second", imclient.ProviderOpenIM, "second")
	if err != nil {
		t.Fatal(err)
	}
	// An app without a run has nothing to roll up, and keeps no other from it.
	if _, err := b.store.EnsureApp(t.Context(), "idle", imclient.ProviderOpenIM, "idle"); err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, app := range []int16{b.app.ID, second.ID} {
		exec(t, b.conn, `INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, observed_from, observed_until)
VALUES ($1, 'presence', 'presence', 'backfill', 'succeeded', $2, $3, true, $2, $3)`, app, noon.AddDate(0, 0, 20), noon.AddDate(0, 0, 20).Add(time.Minute))
		exec(t, b.conn, addStretchSQL, app, noon.AddDate(0, 0, 1), noon.AddDate(0, 0, 1).Add(12*time.Hour))
	}
	if err := b.store.RollUp(t.Context(), berlin, time.Time{}); err != nil {
		t.Fatal(err)
	}
	// Three weeks, in more than one step; local midnight is at 23:00.
	want := strings.Split("main 2026-12-11 2026-11-23 39600|main 2026-12-11 2026-11-24 3600|second 2026-12-11 2026-11-23 39600|second 2026-12-11 2026-11-24 3600", "|")
	if diff := cmp.Diff(want, lines(t, b.conn, rolledUpSQL)); diff != "" {
		t.Errorf("rolled up (-want +got):\n%s", diff)
	}
	exec(t, b.conn, `DELETE FROM presence_history`)
	if err := b.store.RollUp(t.Context(), time.UTC, noon.AddDate(0, 0, 2)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, lines(t, b.conn, rolledUpSQL)); diff != "" {
		t.Errorf("rolled up in another zone, without the history (-want +got):\n%s", diff)
	}
}

// A zone that only Go knows fails for each app, and says so.
func TestRollUpInAnUnknownZone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	exec(t, b.conn, `INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, observed_from, observed_until)
VALUES ($1, 'presence', 'presence', 'backfill', 'succeeded', $2, $2, true, $2, $2)`, b.app.ID, noon)
	err := b.store.RollUp(t.Context(), time.FixedZone("Mars/Olympus", 0), time.Time{})
	want := `roll up the presence of app 1: ERROR: time zone "Mars/Olympus" not recognized (SQLSTATE 22023)`
	if err == nil || err.Error() != want {
		t.Errorf("RollUp: %v; want %s", err, want)
	}
}
