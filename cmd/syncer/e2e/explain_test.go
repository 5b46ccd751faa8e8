package e2e

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/imsim"
)

// TestExplain goes with one user through what an operator meets: fine, rejected by
// the API, the daemon not up, the users table without the user.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 20})
	w.run(exitDone, "migrate", "up")
	stdout, _ := w.run(exitDone, "backfill", "--json")
	const user = "u00007"
	fine, _ := w.run(exitDone, "explain", user)
	wantText(t, fine, "User u00007, app main (tencent)", "User u00007, app chat (openim)", "All is well", "with key 7", "the last run that met everybody is")

	// syncer runs has the numbers of the summary, the newest first.
	type run struct {
		App, Kind, Status             string
		RunID                         int64 `json:"run_id"`
		Users, Changed, Failed, Calls int64
	}
	runs := func(text string) map[int64]run {
		var all struct{ Runs []run }
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		byID := map[int64]run{}
		for _, r := range all.Runs {
			byID[r.RunID] = r
		}
		return byID
	}
	listed, _ := w.run(exitDone, "runs", "--format", "json")
	if diff := cmp.Diff(runs(stdout), runs(listed)); diff != "" || len(runs(listed)) != 4 {
		t.Errorf("runs: backfill's summary (-) and the list (+):\n%s", diff)
	}

	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultUserCode, IDs: []string{user}, Code: 70107}); err != nil {
		t.Fatal(err)
	}
	w.run(exitPartial, "backfill", "--app", "main", "--job", "presence")
	stdout, stderr := w.run(exitPartial, "explain", user, "--app", "main")
	wantText(t, stdout, "with code 70107", "it was never imported", "Recorded 1 time", "since then it fails")
	wantText(t, stderr, "something is wrong with this user")
	last := w.text(`SELECT max(run_id) FROM syncer.sync_run`)
	shown, _ := w.run(exitDone, "runs", "show", last)
	wantText(t, shown, "Run "+last+": presence of app main (tencent)", "partial", "1 failed", "u00007   the provider does not know this user; it was never imported", "dropped: those of a run that went through are not kept")
	w.run(exitDone, "explain", user, "--app", "chat")

	w.exec(`UPDATE syncer.sync_run SET job = 'presence', trigger = 'cron', tick = now() - interval '1 hour' WHERE kind = 'presence' AND run_id <> $1::text::bigint`, last)
	stdout, _ = w.run(exitPartial, "explain", user, "--app", "chat")
	wantText(t, stdout, "the tick of job presence of", "syncer run up?")

	w.exec(`DELETE FROM public.users WHERE uid = $1`, user)
	stdout, stderr = w.run(exitPartial, "explain", user)
	wantText(t, stdout, "public.users has no row with this user id")
	wantText(t, stderr, "syncer does not poll this user")
	w.wantSQL("5", `SELECT count(*) FROM syncer.sync_run`) // nothing was begun
}
