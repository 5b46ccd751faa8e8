package repo_test

import (
	"context"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/repo"
)

// TestEndSilentRun: a run is ended for an outage only when it has been open for so
// long, has written no page meanwhile, and its API, no other one, has given no answer.
func TestEndSilentRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const outage = 5 * time.Minute
	other := b.store.Quota(b.app.ID, imclient.KindAccounts, 1)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	var told time.Time
	ended := func() bool {
		t.Helper()
		ok, err := b.store.EndSilentRun(t.Context(), r.Run.ID, outage, func(last time.Time) string {
			told = last
			return "no answer since " + clockTime(last)
		})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	goOn := func(why string, step func()) {
		t.Helper()
		step()
		for range 2 {
			b.clock.pass(outage / 2)
			other.Answered(b.clock.Now())
			reserve(t, other, 1)
			if ended() {
				t.Fatalf("the run was ended although %s", why)
			}
		}
		b.clock.pass(time.Second) // now it is silent, but for the next step
	}
	goOn("it was only opened", func() {})
	goOn("a page was written", func() { save(t, b.store.Presence(), r, alicePage(), 1) })
	goOn("another process had an answer", func() {
		q := b.open(t, "second").Quota(b.app.ID, imclient.KindPresence, 1)
		q.Answered(b.clock.Now())
		reserve(t, q, 1)
		// One that had none since is not asked.
		reserve(t, b.store.Quota(b.app.ID, imclient.KindPresence, 1), 1)
	})
	lastAnswer := b.clock.Now().Add(-outage - time.Second)
	if !ended() || !told.Equal(lastAnswer) {
		t.Errorf("the run was not ended, or as of %s, want %s", told, lastAnswer)
	}
	if ended() {
		t.Error("a run that is closed was ended")
	}
	wantLines(t, b.conn, "run", `SELECT status, error FROM sync_run`, "failed no answer since "+clockTime(lastAnswer))

	// Opened again it has its time anew.
	if err := b.store.ResumeRun(t.Context(), r.Run, enqueue); err != nil {
		t.Fatal(err)
	}
	if ended() {
		t.Error("the run was ended although it was only opened again")
	}
}

// TestEndSilentRun_pageOnItsWay: a page that is being written counts, when its
// transaction comes to an end first.
func TestEndSilentRun_pageOnItsWay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	b.clock.pass(time.Hour)
	writer := connect(t, b.url)
	exec(t, writer, `BEGIN`)
	exec(t, writer, `SELECT FROM sync_run WHERE run_id = $1 FOR KEY SHARE`, r.Run.ID)
	exec(t, writer, `UPDATE sync_range SET page_at = $2 WHERE run_id = $1`, r.Run.ID, b.clock.Now())
	type result struct {
		ended bool
		err   error
	}
	done := make(chan result, 1)
	go func() {
		ended, err := b.store.EndSilentRun(context.WithoutCancel(t.Context()), r.Run.ID, time.Minute, func(time.Time) string { return "silent" })
		done <- result{ended, err}
	}()
	pgtest.AwaitLocked(t, b.conn, 1)
	exec(t, writer, `COMMIT`)
	if got := <-done; got.ended || got.err != nil {
		t.Errorf("ended %t, %v", got.ended, got.err)
	}
	wantLines(t, b.conn, "run", `SELECT status FROM sync_run`, string(repo.RunRunning))
}
