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

// Trigger says why a run was started.
type Trigger string

// The triggers.
const (
	TriggerCron     Trigger = "cron"
	TriggerCatchUp  Trigger = "catch_up"
	TriggerBackfill Trigger = "backfill"
)

// RunStatus says how far a run is.
type RunStatus string

// The statuses. Succeeded and partial runs went through all their users; in a
// partial one some users failed, the answers about them were rejected, or
// they were missing from the users table and not removed.
const (
	RunRunning   RunStatus = "running"
	RunSucceeded RunStatus = "succeeded"
	RunPartial   RunStatus = "partial"
	RunFailed    RunStatus = "failed"
	RunCancelled RunStatus = "cancelled"
	RunSkipped   RunStatus = "skipped"
)

// Counters are what a run, a range or a page did.
type Counters struct {
	Users   int64 // asked about
	Changed int64 // written: new or different
	Failed  int64 // without a value
	Calls   int64 // API calls
	Retries int64 // calls that repeated a failed one
}

// Add adds what another piece of work did.
func (c *Counters) Add(d Counters) {
	c.Users += d.Users
	c.Changed += d.Changed
	c.Failed += d.Failed
	c.Calls += d.Calls
	c.Retries += d.Retries
}

// Run is one row of sync_run.
type Run struct {
	ID             int64
	AppID          int16
	Job            string
	Kind           imclient.Kind
	Trigger        Trigger
	Tick           *time.Time
	Status         RunStatus
	StartedAt      time.Time
	FinishedAt     *time.Time
	Listed         bool
	Planned        bool
	KeyOrder       string // in which the keys of its ranges are; "" for a list, and until the first is cut
	PrevCompleteAt *time.Time
	MaxGap         time.Duration // 0: nothing is scheduled to come after it
	// RecordFailures says that failures which go on are recorded anew, not only new
	// ones.
	RecordFailures bool
	Counters
	LetLeave        bool  // the operator confirmed that any number of users may have left
	Removed         int64 // users who were found to have left the users table
	HeldBack        int64 // users who seem to have left and were not removed, being too many
	Suspect         bool  // some of its pages are suspect right now and wait for their recheck
	SuspectPages    int64 // pages that were suspect
	RejectedAnswers int64 // users whose pages stayed suspect and were not written
	Error           string
}

// Duration is how long the run took, or has been going at the given time.
func (r *Run) Duration(now time.Time) time.Duration {
	if r.FinishedAt != nil {
		now = *r.FinishedAt
	}
	return now.Sub(r.StartedAt)
}

// runColumns goes with fields: what of a run is read, in one order everywhere.
const runColumns = `
    u.run_id, u.app_id, u.job, u.kind, u.trigger, u.tick, u.status, u.started_at, u.finished_at,
    u.listed, u.planned, coalesce(u.key_order, ''), u.prev_complete_at, coalesce(u.max_gap, '0'), coalesce(u.failures_recorded_at = u.started_at, true),
    u.users, u.changed, u.failed, u.calls, u.retries, u.let_leave, u.removed, u.held_back,
    u.suspect, u.suspect_pages, u.rejected_answers, coalesce(u.error, '')`

func (r *Run) fields(more ...any) []any {
	return append([]any{&r.ID, &r.AppID, &r.Job, &r.Kind, &r.Trigger, &r.Tick, &r.Status, &r.StartedAt, &r.FinishedAt,
		&r.Listed, &r.Planned, &r.KeyOrder, &r.PrevCompleteAt, &r.MaxGap, &r.RecordFailures,
		&r.Users, &r.Changed, &r.Failed, &r.Calls, &r.Retries, &r.LetLeave, &r.Removed, &r.HeldBack,
		&r.Suspect, &r.SuspectPages, &r.RejectedAnswers, &r.Error}, more...)
}

func scanRun(row pgx.CollectableRow) (Run, error) {
	var r Run
	err := row.Scan(r.fields()...)
	return r, err
}

func (s *Store) oneRun(ctx context.Context, statement string, args ...any) (Run, error) {
	rows, err := s.Query(ctx, statement, args...)
	if err != nil {
		return Run{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scanRun)
}

// NewRun is a run to be started.
type NewRun struct {
	AppID   int16
	Job     string
	Kind    imclient.Kind
	Trigger Trigger
	Tick    time.Time // zero for a backfill
	// MaxGap is how much later than its end the next complete run may begin
	// before the time between counts as not observed; 0: any time does.
	MaxGap time.Duration
	Listed []string // distinct ids to limit it to; nil: the whole users table
	// LetLeave confirms that any number of users may have left the users table.
	LetLeave bool
}

// ErrBusy says that another run of the same app and kind is going.
var ErrBusy = errors.New("a run of this app and kind is going already")

// ErrTicked says that the tick has been dealt with before, here or elsewhere.
var ErrTicked = errors.New("this tick has a run already")

// recordFailures is how often failures that go on are recorded anew: once an hour,
// also by a job that runs every hour, give or take. More often would write as
// much as is observed where many of the users were never imported.
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

// StartRun starts a run and lets enqueue put its planning into the queue, in
// the same transaction; enqueue returns the queue's job. Two unique indexes
// decide among any number of instances: a tick that was dealt with before is
// ErrTicked; a tick that meets a running run is recorded as skipped, and that
// and a backfill that meets one is ErrBusy.
func (s *Store) StartRun(ctx context.Context, n NewRun, enqueue func(tx pgx.Tx, runID int64) (int64, error)) (int64, error) {
	// A second look is needed when another instance started between our look
	// for a running run and our insert.
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
		row := tx.QueryRow(ctx, startRunSQL, n.AppID, n.Job, n.Kind, n.Trigger, tick, n.Listed != nil, s.Now(), n.MaxGap, recordFailures, n.LetLeave)
		if err := row.Scan(&runID, &status); err != nil || status == RunSkipped {
			return err
		}
		if err := s.addListed(ctx, tx, runID, n.Listed); err != nil {
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

func (s *Store) addListed(ctx context.Context, tx *pg.Tx, runID int64, ids []string) error {
	if len(ids) == 0 {
		return nil // a COPY of nothing is two round trips all the same
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{s.Schema(), "sync_run_user"}, []string{"run_id", "user_id"},
		pgx.CopyFromSlice(len(ids), func(i int) ([]any, error) { return []any{runID, ids[i]}, nil }))
	if err != nil {
		return fmt.Errorf("store the listed users: %w", err)
	}
	return nil
}

const findRunSQL = `
SELECT ` + runColumns + `
FROM syncer.sync_run AS u
WHERE u.run_id = $1`

const rangeSumsSQL = `
SELECT coalesce(sum(users), 0), coalesce(sum(changed), 0), coalesce(sum(failed), 0),
       coalesce(sum(calls), 0), coalesce(sum(retries), 0), coalesce(sum(suspect_pages), 0), coalesce(sum(rejected_answers), 0)
FROM syncer.sync_range
WHERE run_id = $1`

// FindRun gives a run. Of one that is running the counters are those of the
// pages written so far.
func (s *Store) FindRun(ctx context.Context, runID int64) (Run, error) {
	run, err := s.oneRun(ctx, findRunSQL, runID)
	if err == nil && run.Status == RunRunning {
		err = s.QueryRow(ctx, rangeSumsSQL, runID).
			Scan(&run.Users, &run.Changed, &run.Failed, &run.Calls, &run.Retries, &run.SuspectPages, &run.RejectedAnswers)
	}
	if err != nil {
		return Run{}, fmt.Errorf("find run %d: %w", runID, err)
	}
	return run, nil
}

const runningRunSQL = `
SELECT ` + runColumns + `
FROM syncer.sync_run AS u
WHERE u.app_id = $1 AND u.kind = $2 AND u.status = 'running'`

// RunningRun gives the run of an app and kind that is going; ok is false when
// there is none.
func (s *Store) RunningRun(ctx context.Context, appID int16, kind imclient.Kind) (run Run, ok bool, err error) {
	return s.maybeRun(ctx, "find the running run", runningRunSQL, appID, kind)
}

const lastBackfillSQL = `
SELECT ` + runColumns + `
FROM syncer.sync_run AS u
WHERE u.app_id = $1 AND u.kind = $2 AND u.trigger = 'backfill'
ORDER BY u.run_id DESC
LIMIT 1`

// LastBackfill gives the newest backfill of an app and kind; ok is false when
// there was none.
func (s *Store) LastBackfill(ctx context.Context, appID int16, kind imclient.Kind) (run Run, ok bool, err error) {
	return s.maybeRun(ctx, "find the last backfill", lastBackfillSQL, appID, kind)
}

func (s *Store) maybeRun(ctx context.Context, doing, statement string, args ...any) (Run, bool, error) {
	run, err := s.oneRun(ctx, statement, args...)
	if errors.Is(err, pgx.ErrNoRows) {
		return Run{}, false, nil
	}
	if err != nil {
		return Run{}, false, fmt.Errorf("%s: %w", doing, err)
	}
	return run, true, nil
}

const lastTickSQL = `
SELECT max(tick)
FROM syncer.sync_run
WHERE app_id = $1 AND kind = $2 AND job = $3`

// LastTick gives the newest tick of a job that was dealt with; zero when there
// was none.
func (s *Store) LastTick(ctx context.Context, appID int16, kind imclient.Kind, job string) (time.Time, error) {
	var tick *time.Time
	if err := s.QueryRow(ctx, lastTickSQL, appID, kind, job).Scan(&tick); err != nil {
		return time.Time{}, fmt.Errorf("find the last tick of job %s: %w", job, err)
	}
	if tick == nil {
		return time.Time{}, nil
	}
	return tick.UTC(), nil
}
