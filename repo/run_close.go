package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

const lockRunSQL = `
SELECT planned, erasures
FROM syncer.sync_run
WHERE run_id = $1 AND status = 'running'
`

// runLock is the strength of the lock on a run.
type runLock string

const (
	// forPage is the weakest lock: it holds up only the end of the run.
	forPage runLock = "FOR KEY SHARE"
	// forProgress excludes others that plan, finish ranges or close, but not pages: in a
	// large sweep there is almost always one in flight.
	forProgress runLock = "FOR NO KEY UPDATE"
	// forEnd also waits for the pages in flight.
	forEnd runLock = "FOR UPDATE"
)

// lockRun locks an open run. It returns ErrGone if the run is closed.
func lockRun(ctx context.Context, tx *pg.Tx, runID int64, lock runLock) error {
	return goneIfNone(tx.QueryRow(ctx, lockRunSQL+string(lock), runID).Scan(new(bool), new(int)))
}

// EndRun closes an open run as failed or cancelled. Pages in flight elsewhere write nothing
// from then on. It returns ErrGone if the run is closed already.
func (s *Store) EndRun(ctx context.Context, runID int64, status RunStatus, reason string) error {
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		if err := lockRun(ctx, tx, runID, forEnd); err != nil {
			return err
		}
		return s.closeRun(ctx, tx, runID, status, reason)
	})
	if err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("end run %d: %w", runID, err)
	}
	return err
}

// A run is silent if it was opened, last wrote a page, and its API last answered any
// process, all before $2. A slow run with few call times is not silent: it gets answers.
const silentSQL = `
SELECT greatest(page.last_at, quota.answered_at)
FROM syncer.sync_run AS u
CROSS JOIN (
    SELECT max(page_at) AS last_at
    FROM syncer.sync_range
    WHERE run_id = $1
) AS page
LEFT JOIN syncer.api_quota AS quota ON quota.app_id = u.app_id AND quota.api = u.kind
WHERE u.run_id = $1
  AND greatest(u.observed_from, page.last_at, quota.answered_at) < $2`

// silent reports whether a run has been silent since before a time. It returns the time of
// the last known answer, or zero.
func silent(ctx context.Context, tx *pg.Tx, runID int64, before time.Time) (lastAnswer time.Time, silent bool, err error) {
	var last *time.Time
	err = tx.QueryRow(ctx, silentSQL, runID, before).Scan(&last)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return time.Time{}, false, nil
	case err != nil || last == nil:
		return time.Time{}, err == nil, err
	default:
		return *last, true, nil
	}
}

// EndSilentRun fails a running run if no process wrote a page of it, or got an answer of
// its API, for silence. It reports whether it did. reason is called with the time of the
// last known answer, or zero.
func (s *Store) EndSilentRun(ctx context.Context, runID int64, silence time.Duration, reason func(lastAnswer time.Time) string) (ended bool, err error) {
	before := s.Now().Add(-silence)
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		// First without the lock, which would hold up the pages of other processes: one
		// that is cut off alone calls this often.
		_, isSilent, err := silent(ctx, tx, runID, before)
		if ended = false; err != nil || !isSilent {
			return err
		}
		if err := lockRun(ctx, tx, runID, forEnd); err != nil {
			return err
		}
		lastAnswer, isSilent, err := silent(ctx, tx, runID, before)
		if err != nil || !isSilent {
			return err
		}
		ended = true
		return s.closeRun(ctx, tx, runID, RunFailed, reason(lastAnswer))
	})
	if errors.Is(err, ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("end run %d if it is silent: %w", runID, err)
	}
	return ended, nil
}

const openRangesSQL = `
SELECT count(*) FILTER (WHERE status IN ('pending', 'running')),
       count(*) FILTER (WHERE status = 'failed'),
       coalesce(min(error) FILTER (WHERE status = 'failed'), '')
FROM syncer.sync_range
WHERE run_id = $1`

// No user has left the users table if the users with a snapshot that the run met are
// those that the previous complete run knew, and no other run met any since that one
// began (a run that failed, was limited to a list, or was reopened after a newer one).
const reconciledSQL = `
SELECT u.listed OR u.reconciled
    OR CASE WHEN prev.run_id IS NULL THEN r.kept_users = 0
            ELSE coalesce(r.kept_users = prev.known_users AND r.kept_hash = prev.known_hash, false) END
    AND NOT EXISTS (
        SELECT FROM syncer.sync_run AS other
        WHERE other.app_id = u.app_id AND other.kind = u.kind AND other.users > 0
          AND other.observed_until > coalesce(prev.started_at, '-infinity')
          AND other.run_id <> u.run_id AND other.run_id IS DISTINCT FROM prev.run_id)
FROM syncer.sync_run AS u
CROSS JOIN (
    SELECT coalesce(sum(kept_users), 0) AS kept_users, (coalesce(sum(kept_hash), 0) % 4611686018427387904)::bigint AS kept_hash
    FROM syncer.sync_range
    WHERE run_id = $1
) AS r
LEFT JOIN LATERAL (
    SELECT run_id, started_at, known_users, known_hash
    FROM syncer.sync_run
    WHERE app_id = u.app_id AND kind = u.kind AND complete
    ORDER BY started_at DESC
    LIMIT 1
) AS prev ON true
WHERE u.run_id = $1`

// ErrUnreconciled reports that a run cannot be closed before Values.Reconcile: users may
// have left the users table.
var ErrUnreconciled = errors.New("users may have left the users table")

// closeIfDone closes a run if it is planned and no range is open. It reports whether it
// did. The caller has locked the run.
func (s *Store) closeIfDone(ctx context.Context, tx *pg.Tx, runID int64, planned bool) (closed bool, err error) {
	if !planned {
		return false, nil
	}
	var open, failed int
	var reason string
	if err := tx.QueryRow(ctx, openRangesSQL, runID).Scan(&open, &failed, &reason); err != nil {
		return false, fmt.Errorf("count open ranges: %w", err)
	}
	switch {
	case open > 0:
		return false, nil
	case failed > 0:
		return true, s.closeRun(ctx, tx, runID, RunFailed, reason)
	}
	rejection, err := s.rejection(ctx, tx, runID)
	if err != nil {
		return false, err
	}
	if rejection != "" {
		return true, s.closeRun(ctx, tx, runID, RunSucceeded, rejection)
	}
	var reconciled bool
	if err := tx.QueryRow(ctx, reconciledSQL, runID).Scan(&reconciled); err != nil {
		return false, fmt.Errorf("compare the users with the previous run's: %w", err)
	}
	if !reconciled {
		return false, ErrUnreconciled
	}
	return true, s.closeRun(ctx, tx, runID, RunSucceeded, "")
}

// A run that wrote no page since it was reopened, or none at all, observed only until its
// last one. After Reconcile known_users and known_hash are those of the users table's rows
// with a snapshot; if the run met others, it does not know them all. A run that held users
// back did not see them, so it is not complete; Reconcile set the reason.
const closeRunSQL = `
UPDATE syncer.sync_run AS u
SET status = CASE WHEN $2 = 'succeeded' AND (r.failed > 0 OR u.held_back > 0) THEN 'partial' ELSE $2 END,
    complete = $2 = 'succeeded' AND NOT u.listed AND r.rejected_answers = 0 AND u.held_back = 0,
    suspect = false, suspect_pages = r.suspect_pages, rejected_answers = r.rejected_answers,
    finished_at = $3,
    error = coalesce(nullif($4, ''), u.error),
    observed_from = least(u.observed_from, r.page_at), observed_until = coalesce(r.page_at, u.observed_from),
    users = r.users, changed = r.changed, failed = r.failed, calls = r.calls, retries = r.retries,
    known_users = CASE WHEN NOT u.reconciled OR u.known_users = r.known_users AND u.known_hash = r.known_hash THEN r.known_users END,
    known_hash = r.known_hash
FROM (
    SELECT coalesce(sum(users), 0) AS users, coalesce(sum(changed), 0) AS changed, coalesce(sum(failed), 0) AS failed,
           coalesce(sum(calls), 0) AS calls, coalesce(sum(retries), 0) AS retries, max(page_at) AS page_at,
           coalesce(sum(suspect_pages), 0) AS suspect_pages, coalesce(sum(rejected_answers), 0) AS rejected_answers,
           coalesce(sum(known_users), 0) AS known_users, (coalesce(sum(known_hash), 0) % 4611686018427387904)::bigint AS known_hash
    FROM syncer.sync_range
    WHERE run_id = $1
) AS r
WHERE u.run_id = $1`

// The time between two complete runs, in the order in which they ended, is a gap if it
// is longer than either of them allows. A run that stood still or was reopened counts
// from then on, because it saw some users only after that.
const saveGapSQL = `
INSERT INTO syncer.observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id)
SELECT u.app_id, u.kind, prev.observed_until, u.observed_from, prev.started_at, u.observed_until, u.run_id
FROM syncer.sync_run AS u
CROSS JOIN LATERAL (
    SELECT started_at, observed_until, max_gap
    FROM syncer.sync_run
    WHERE app_id = u.app_id AND kind = u.kind AND complete AND observed_until IS NOT NULL AND run_id <> u.run_id
    ORDER BY observed_until DESC
    LIMIT 1
) AS prev
WHERE u.run_id = $1 AND u.complete
  AND prev.observed_until < u.observed_from
  AND (prev.max_gap IS NULL OR u.observed_from - prev.observed_until > least(prev.max_gap, u.max_gap))
ON CONFLICT DO NOTHING`

// A run without answers has a row too, or curves would continue from the last value: if
// all users failed nothing is known, and if there are none, none is online.
const savePresenceCountSQL = `
INSERT INTO syncer.presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT u.app_id, u.run_id, u.finished_at, states.key::syncer.presence_state, platforms.key, sum(platforms.value::bigint)
FROM syncer.sync_run AS u
JOIN syncer.sync_range AS r USING (run_id)
CROSS JOIN LATERAL jsonb_each(r.counts) AS states
CROSS JOIN LATERAL jsonb_each_text(states.value) AS platforms
WHERE u.run_id = $1 AND u.complete AND u.kind = 'presence'
GROUP BY u.app_id, u.run_id, u.finished_at, states.key, platforms.key
UNION ALL
SELECT u.app_id, u.run_id, u.finished_at,
       CASE WHEN u.failed > 0 THEN syncer.presence_state 'rejected' ELSE 'offline' END, 'all', u.failed
FROM syncer.sync_run AS u
WHERE u.run_id = $1 AND u.complete AND u.kind = 'presence'
  AND NOT EXISTS (SELECT FROM syncer.sync_range AS r WHERE r.run_id = $1 AND r.counts <> '{}')`

// A failure that a complete run with RecordFailures did not meet is of a user who left the
// users table, or of rows that were corrected: users who succeed have none left.
const dropPastFailuresSQL = `
DELETE FROM syncer.user_failure AS f
USING syncer.sync_run AS u
WHERE u.run_id = $1 AND u.complete AND u.failures_recorded_at = u.started_at
  AND f.app_id = u.app_id AND f.kind = u.kind AND f.last_at < u.started_at`

const dropRangesSQL = `
DELETE FROM syncer.sync_range
WHERE run_id = $1`

const dropListedSQL = `
DELETE FROM syncer.sync_run_user
WHERE run_id = $1`

// closeRun adds up the ranges, in one round trip. If the run went through all its users, it
// also deletes its ranges and its list of users: there is nothing to resume.
func (s *Store) closeRun(ctx context.Context, tx *pg.Tx, runID int64, status RunStatus, reason string) error {
	var batch pgx.Batch
	batch.Queue(closeRunSQL, runID, string(status), s.Now(), reason)
	if status == RunSucceeded {
		for _, statement := range []string{saveGapSQL, savePresenceCountSQL, dropPastFailuresSQL, dropRangesSQL, dropListedSQL} {
			batch.Queue(statement, runID)
		}
	}
	if err := tx.RunBatch(ctx, &batch); err != nil {
		return fmt.Errorf("close run %d: %w", runID, err)
	}
	return nil
}
