package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// NewRun describes a run to start.
type NewRun struct {
	AppID   int16
	Job     string
	Kind    imclient.Kind
	Trigger Trigger
	Tick    time.Time // zero for a backfill
	// MaxGap is how long after its end the next complete run may begin without a gap; 0:
	// any time between them is a gap.
	MaxGap time.Duration
	Listed []string // distinct ids to limit it to; nil: the whole users table
	// ListedAt is when Listed began to be compared with the users table: users who were
	// erased since are left out, by Salt.
	ListedAt time.Time
	Salt     Salt
	LetLeave bool // any number of users may have left the users table
}

// ErrBusy reports that another run of the same app and kind is running.
var ErrBusy = errors.New("a run of this app and kind is going already")

// ErrTicked reports that the tick is recorded already, by this process or another.
var ErrTicked = errors.New("this tick has a run already")

// recordFailures is how often lasting failures are recorded again: once an hour, also by a
// job that runs about every hour. Where many users were never imported, more often would
// write as much as is read.
const recordFailures = 59 * time.Minute

const startRunSQL = `
INSERT INTO syncer.sync_run (app_id, job, kind, trigger, tick, listed, started_at, observed_from, max_gap, prev_complete_at, failures_recorded_at, let_leave, status, finished_at)
SELECT $1, $2, $3, $4, $5, $6, $7::timestamptz, $7::timestamptz, nullif($8::interval, '0'), prev.started_at,
       CASE WHEN $4 <> 'backfill' AND prev.failures_recorded_at > $7::timestamptz - $9::interval
            THEN prev.failures_recorded_at ELSE $7::timestamptz END,
       $10, busy.status, busy.finished_at
FROM (
    SELECT CASE WHEN count(*) = 0 THEN 'running' ELSE 'skipped' END AS status,
           CASE WHEN count(*) > 0 THEN $7::timestamptz END AS finished_at
    FROM syncer.sync_run
    WHERE app_id = $1 AND kind = $3 AND status = 'running'
) AS busy
LEFT JOIN LATERAL (
    SELECT started_at, failures_recorded_at
    FROM syncer.sync_run
    WHERE app_id = $1 AND kind = $3 AND complete
    ORDER BY started_at DESC
    LIMIT 1
) AS prev ON true
WHERE busy.status = 'running' OR $5::timestamptz IS NOT NULL
ON CONFLICT DO NOTHING
RETURNING run_id, status`

const tickedSQL = `
SELECT EXISTS (
    SELECT FROM syncer.sync_run
    WHERE app_id = $1 AND job = $2 AND kind = $3 AND tick = $4
)`

const setPlanJobSQL = `
UPDATE syncer.sync_run
SET plan_job_id = $2
WHERE run_id = $1`

// StartRun starts a run. In the same transaction enqueue puts its planning into the queue
// and returns the queue's job. Two unique indexes decide among any number of instances:
// StartRun returns ErrTicked if the tick is recorded already, and ErrBusy if a run is
// running, after it recorded the tick, if any, as skipped; ErrMoved or ErrAppLost, wrapped,
// if the app is not the one that this process knows.
func (s *Store) StartRun(ctx context.Context, n NewRun, enqueue func(tx pgx.Tx, runID int64) (int64, error)) (int64, error) {
	// Another instance may start a run between the check for a running one and the insert.
	for range 3 {
		runID, status, err := s.tryStartRun(ctx, n, enqueue)
		switch {
		case err == nil && status == RunRunning:
			return runID, nil
		case err == nil:
			return runID, ErrBusy
		case !errors.Is(err, pgx.ErrNoRows):
			return 0, fmt.Errorf("start a run of job %s: %w", n.Job, err)
		case n.Tick.IsZero():
			return 0, ErrBusy
		}
		var ticked bool
		if err := s.QueryRow(ctx, tickedSQL, n.AppID, n.Job, n.Kind, n.Tick).Scan(&ticked); err != nil {
			return 0, fmt.Errorf("look for the run of a tick of job %s: %w", n.Job, err)
		}
		if ticked {
			return 0, ErrTicked
		}
	}
	return 0, fmt.Errorf("start a run of job %s: runs come and go too fast", n.Job)
}

func (s *Store) tryStartRun(ctx context.Context, n NewRun, enqueue func(tx pgx.Tx, runID int64) (int64, error)) (runID int64, status RunStatus, err error) {
	var tick *time.Time
	if !n.Tick.IsZero() {
		tick = &n.Tick
	}
	err = s.InTx(ctx, func(tx *pg.Tx) error {
		if err := s.keepApp(ctx, tx, n.AppID); err != nil {
			return err
		}
		row := tx.QueryRow(ctx, startRunSQL, n.AppID, n.Job, n.Kind, n.Trigger, tick, n.Listed != nil, s.Now(), n.MaxGap, recordFailures, n.LetLeave)
		if err := row.Scan(&runID, &status); err != nil || status == RunSkipped {
			return err
		}
		if err := s.addListed(ctx, tx, runID, n); err != nil {
			return err
		}
		jobID, err := enqueue(tx, runID)
		if err != nil {
			return fmt.Errorf("enqueue its planning: %w", err)
		}
		_, err = tx.Exec(ctx, setPlanJobSQL, runID, jobID)
		return err
	})
	return runID, status, err
}

const erasedSinceSQL = `
SELECT user_hash, salt_id
FROM syncer.erasure
WHERE app_id = $1 AND erased_at >= $2`

// addListed stores the ids of a run's list. The run's row keeps erasures of the app waiting
// until the end of the transaction, and these then find the list.
func (s *Store) addListed(ctx context.Context, tx *pg.Tx, runID int64, n NewRun) error {
	if len(n.Listed) == 0 {
		return nil // an empty COPY takes two round trips too
	}
	erased, err := pg.Collect(ctx, tx, pgx.RowToStructByPos[erasedHash], erasedSinceSQL, n.AppID, n.ListedAt)
	if err != nil {
		return err
	}
	ids, err := n.Salt.without(erased, n.Listed)
	if err != nil {
		return err
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{s.Schema(), "sync_run_user"}, []string{"run_id", "user_id"},
		pgx.CopyFromSlice(len(ids), func(i int) ([]any, error) { return []any{runID, ids[i]}, nil }))
	if err != nil {
		return fmt.Errorf("store the listed users: %w", err)
	}
	return nil
}
