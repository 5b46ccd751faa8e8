package main

import (
	"strings"
	"testing"
)

// TestClockBehind: the database's clock is an hour behind what is on record, as when
// it was ahead and has been put right. The daemon waits and says why, a backfill is
// refused, and the next daemon goes on when the clock is there again.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	f := oneDaemon(t, worldOptions{})
	f.grow(1)
	f.swept()
	f.stop()
	f.finish()
	// Instead of the clock the times on record are moved.
	move := func(by string) {
		t.Helper()
		f.exec(`BEGIN;
			LOCK TABLE syncer.sync_run, syncer.api_quota;
			UPDATE syncer.sync_run SET tick = tick + interval '` + by + `', started_at = started_at + interval '` + by + `', finished_at = finished_at + interval '` + by + `';
			UPDATE syncer.api_quota SET next_at = next_at + interval '` + by + `', answered_at = answered_at + interval '` + by + `';
			COMMIT`)
	}
	move("1 hour")
	f.processes = nil
	f.grow(1)
	p := f.processes[0]
	const why = "the database's clock was set back: it says "
	f.unready(p, why)
	_, stderr := f.backfill().wait(exitFailed)
	wantText(t, stderr, why, "nothing is asked until it is there again")
	stdout, _ := f.run(exitPartial, "explain", "--app", "main", "u00001")
	wantText(t, stdout, "still to come: the database's clock was set back, and nothing is")
	if n := strings.Count(p.spoken(), why); n != 1 {
		t.Errorf("it was said %d times, want once:\n%s", n, p.spoken())
	}
	f.stop()
	move("-1 hour")
	f.processes = nil
	f.grow(1)
	f.ready(f.processes[0])
	f.change()
	f.swept()
	f.survived()
}
