package e2e

import (
	"strings"
	"testing"
	"time"

	"syncer/internal/dev/pgtest"
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

// TestClockAhead: the database's clock is three years ahead. The daemon is not ready and
// says why, a backfill is refused. An operator overrules that by mistake, and the clock is
// put right: what was recorded meanwhile is removed by repair-clock, what was known
// before is known again, and the daemon and backfills go on from there.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	dbURL := pgtest.Database(t)
	set := pgtest.Clock(t, dbURL)
	f := oneDaemon(t, worldOptions{dbURL: dbURL})
	f.backfill().wait(exitPartial)
	const presenceSQL = `SELECT jsonb_agg(to_jsonb(s) - 'asked_at' - 'run_id' ORDER BY user_id)::text FROM syncer.presence_snapshot AS s`
	known := f.text(presenceSQL)

	set(3 * 365 * 24 * time.Hour)
	f.grow(1)
	p := f.processes[0]
	const why = "the database's clock is not believed: it says "
	f.unready(p, why)
	_, stderr := f.backfill().wait(exitFailed)
	wantText(t, stderr, why, "this machine's clock says "+time.Now().UTC().Format("2006-"), "the newest time on record is "+time.Now().UTC().Format("2006-"), "syncer backfill --trust-clock")
	f.wantSQL("1", `SELECT count(*) FROM syncer.sync_run`)

	f.change()
	f.start(append(f.env, "backfill", "--app", "main", "--trust-clock")...).wait(exitPartial)
	f.ready(p) // it believes what is on record
	f.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE job = 'presence' AND status = 'partial'`)
	f.stop()
	set(0)
	_, stderr = f.backfill().wait(exitFailed)
	wantText(t, stderr, "the database's clock was set back: it says ", "if the record is wrong, because it was ahead for a while: syncer repair-clock")

	const allSQL = `SELECT (SELECT count(*) FROM syncer.sync_run), (SELECT count(*) FROM syncer.presence_history), (SELECT count(*) FROM syncer.account_snapshot)`
	before := f.text(`SELECT (r)::text FROM (` + allSQL + `) AS r`)
	stdout, _ := f.run(exitDone, "repair-clock")
	wantText(t, stdout, "rows of the histories removed", "nothing was changed")
	f.wantSQL(before, `SELECT (r)::text FROM (`+allSQL+`) AS r`)
	stdout, _ = f.run(exitDone, "repair-clock", "--yes")
	wantText(t, stdout, "done; start run again")
	f.wantSQL(known, presenceSQL)
	f.wantSQL("0", `SELECT count(*) FROM syncer.account_snapshot`) // first seen while it was wrong
	f.wantSQL("0", `SELECT count(*) FROM syncer.history_partitions('syncer.presence_history') WHERE lower_end > now() + interval '100 days'`)
	stdout, _ = f.run(exitDone, "repair-clock", "--yes")
	wantText(t, stdout, "nothing to do")
	repaired := f.text(`SELECT pg_catalog.now()::text`)

	f.change()
	f.backfill().wait(exitPartial)
	f.wantSQL("true", `SELECT count(*) > 100 FROM syncer.presence_history WHERE prev_state IS NOT NULL`)
	f.wantSQL("0", `SELECT count(*) FROM syncer.presence_history WHERE observed_at > pg_catalog.now() OR prev_state IS NOT NULL AND (not_before > $1::timestamptz OR observed_at < $1::timestamptz)`, repaired)
	stdout, _ = f.run(exitDone, "report", "gaps", "--format", "csv")
	wantText(t, stdout, "main,presence,")
	f.processes = nil
	f.grow(1)
	f.ready(f.processes[0])
	f.swept()
	f.stop()
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE greatest(started_at, finished_at, tick) > pg_catalog.now()`)
}
