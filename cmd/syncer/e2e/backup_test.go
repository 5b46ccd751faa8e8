package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
	"syncer/internal/imsim"
)

// TestRestore follows docs/backup.md: what was written since the backup is lost, the
// next sweep finds what is so now, and its brackets begin when the backup last knew
// the users.
func TestRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 400, change: 0.3})
	programs, err := pgcluster.Find()
	if err != nil {
		t.Fatal(err)
	}
	postgres := func(program string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(w.ctx, filepath.Join(programs.Dir, program), args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	backfill := func(round int) {
		t.Helper()
		w.rounds.SetRound(round)
		w.run(exitDone, "backfill", "--app", "chat", "--job", "presence")
	}
	w.run(exitDone, "migrate", "up")
	backfill(0)
	dump := filepath.Join(t.TempDir(), "syncer.dump")
	postgres("pg_dump", "--format=custom", "--file="+dump, "--schema=syncer", "--dbname="+w.dbURL)
	backedUp := query(w, pgx.RowTo[time.Time], `SELECT clock_timestamp()`)[0]
	before := query(w, pgx.RowTo[string], `SELECT user_id || ' ' || state FROM syncer.presence_snapshot ORDER BY 1`)

	backfill(1) // lost
	w.exec(`DROP SCHEMA syncer CASCADE`)
	postgres("pg_restore", "--exit-on-error", "--dbname="+w.dbURL, dump)
	if diff := cmp.Diff(before, query(w, pgx.RowTo[string], `SELECT user_id || ' ' || state FROM syncer.presence_snapshot ORDER BY 1`)); diff != "" {
		t.Errorf("snapshots before and after the restore:\n%s", diff)
	}
	backfill(2)

	type row struct{ UserID, Value string }
	now := map[string]string{}
	for _, r := range query(w, pgx.RowToStructByPos[row], `SELECT user_id, state::text || ' ' || platforms::text FROM syncer.presence_snapshot`) {
		now[r.UserID] = r.Value
	}
	want := map[string]string{}
	for _, id := range query(w, pgx.RowTo[string], `SELECT uid FROM public.users`) {
		served := w.sim.Served(imsim.OpenIMPresence, id)
		want[id] = w.spelled(served[len(served)-1])
	}
	if diff := cmp.Diff(want, now); diff != "" {
		t.Errorf("what is so now (-served +stored):\n%s", diff)
	}
	w.wantSQL("true", `SELECT count(*) > 50 FROM syncer.presence_history WHERE observed_at > $1`, backedUp)
	w.wantSQL("0", `SELECT count(*) FROM syncer.presence_history WHERE observed_at > $1 AND (not_before IS NULL OR not_before >= $1)`, backedUp)
	w.wantSQL("0", `SELECT count(*) FROM syncer.presence_history AS h JOIN syncer.presence_history AS p USING (app_id, user_id)
WHERE p.observed_at < $1 AND h.observed_at > $1 AND h.prev_state <> p.state`, backedUp)
}
