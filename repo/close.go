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
SELECT planned
FROM syncer.sync_run
WHERE run_id = $1 AND status = 'running'
`

// runLock is how strongly a run is locked.
type runLock string

const (
	// forPage is the weakest lock there is: it holds up only the end of the run.
	forPage runLock = "FOR KEY SHARE"
	// forProgress excludes all others that plan, finish ranges or close, but not
	// pages: in a big sweep there is hardly a moment without one in flight.
	forProgress runLock = "FOR NO KEY UPDATE"
	// forEnd waits for the pages in flight too.
	forEnd runLock = "FOR UPDATE"
)

// lockRun locks an open run, or says ErrGone. Locks are always taken in the
// order run, range.
func (s *Store) lockRun(ctx context.Context, tx *pg.Tx, runID int64, lock runLock) (planned bool, err error) {
	err = tx.QueryRow(ctx, lockRunSQL+string(lock), runID).Scan(&planned)
	return planned, goneIfNone(err)
}

// queueRunLock adds lockRun to a batch.
func (s *Store) queueRunLock(batch *pgx.Batch, runID int64, lock runLock, planned *bool) {
	batch.Queue(lockRunSQL+string(lock), runID).QueryRow(func(row pgx.Row) error {
		return goneIfNone(row.Scan(planned))
	})
}

// EndRun closes a run that is still open as failed or cancelled; pages in
// flight elsewhere write nothing from then on. A run that is closed already
// stays as it is: ErrGone.
func (s *Store) EndRun(ctx context.Context, runID int64, status RunStatus, reason string) error {
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		if _, err := s.lockRun(ctx, tx, runID, forEnd); err != nil {
			return err
		}
		return s.closeRun(ctx, tx, runID, status, reason)
	})
	if err != nil && !errors.Is(err, ErrGone) {
		return fmt.Errorf("end run %d: %w", runID, err)
	}
	return err
}

// A run is silent when it was opened, last wrote a page and its API last answered
// anybody before $2. A run that is slow, because it has few call times, is not: it
// has answers.
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

// silent reports whether a run has been silent since before a time, and when the
// last answer came that anybody knows of, or the zero time.
func (s *Store) silent(ctx context.Context, tx *pg.Tx, runID int64, before time.Time) (lastAnswer time.Time, silent bool, err error) {
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

// EndSilentRun closes an open run as failed of which nobody has written a page for
// so long, and whose API has given nobody an answer either, and reports whether it
// did. reason is given when the last answer came that anybody knows of, or the zero
// time.
func (s *Store) EndSilentRun(ctx context.Context, runID int64, silence time.Duration, reason func(lastAnswer time.Time) string) (ended bool, err error) {
	before := s.Now().Add(-silence)
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		// Without the lock first: a process that is cut off alone asks often, and the
		// lock would hold up the pages of the others.
		_, silent, err := s.silent(ctx, tx, runID, before)
		if ended = false; err != nil || !silent {
			return err
		}
		if _, err := s.lockRun(ctx, tx, runID, forEnd); err != nil {
			return err
		}
		lastAnswer, silent, err := s.silent(ctx, tx, runID, before)
		if err != nil || !silent {
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

// Nobody has left the users table when the users whom the run met and who had a
// snapshot are those whom the previous complete run knew, and no other run has
// met any since that one began: it failed, was limited to a list, or was opened
// again after a newer one.
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

// ErrUnreconciled says that a run cannot be closed yet: users may have left the
// users table, and it must be found out who. See Values.Reconcile.
var ErrUnreconciled = errors.New("users may have left the users table")

// closeIfDone closes a run whose ranges are all cut and none of them is open.
// The caller has locked the run.
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

// A run that has written no page since it was opened again, or none at all, has
// looked no longer than until its last one. Of a run that read the whole users
// table known_users and known_hash are the rows whose user had a snapshot then: if
// they are not those that it met, it does not know all. A run that held users back did
// not see them, so it is not complete; Reconcile has said why.
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

// The time between two complete runs, in the order in which they ended, is a gap
// when it is longer than either of them allows. Of a run that stood still, or was
// opened again, only the time since then counts: some users were seen after it
// alone.
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

// A run without answers has a row too, or curves would go on from the last value:
// of users who all failed nothing is known, and of no users none is online.
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

// A failure that a complete run which records all of them did not meet again is
// of a user who left the users table, or of rows that were mended: users who
// succeed have none left.
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

// closeRun sums up the ranges, in one round trip. Those of a run that went
// through are dropped, and so is its list of users: there is nothing left to
// resume.
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
