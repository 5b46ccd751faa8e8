package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
)

// Counters count what a run, a range or a page did.
type Counters struct {
	Users   int64 // users asked about
	Changed int64 // users whose value was new or different, and written
	Failed  int64 // users without a value
	Calls   int64 // API calls
	Retries int64 // API calls that repeated a failed one
}

// Add adds the counters of another piece of work.
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
	KeyOrder       string // of the keys of its ranges; "": of a list, or none is cut yet
	PrevCompleteAt *time.Time
	MaxGap         time.Duration // 0: no later run is scheduled
	RecordFailures bool          // lasting failures are recorded again, not only new ones
	Counters
	LetLeave        bool  // the operator confirmed that any number of users may have left
	Removed         int64 // users who had left the users table
	HeldBack        int64 // users who seem to have left, and were not removed because they are too many
	Suspect         bool  // pages are waiting for their recheck
	SuspectPages    int64 // pages that were suspect
	RejectedAnswers int64 // users whose pages stayed suspect, and were not written
	Error           string
}

// Duration returns how long the run took, or has been running at a time.
func (r *Run) Duration(now time.Time) time.Duration {
	if r.FinishedAt != nil {
		now = *r.FinishedAt
	}
	return now.Sub(r.StartedAt)
}

// runColumns are the columns that Run.fields scans.
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

const findRunSQL = `
SELECT ` + runColumns + `
FROM syncer.sync_run AS u
WHERE u.run_id = $1`

const rangeSumsSQL = `
SELECT coalesce(sum(users), 0), coalesce(sum(changed), 0), coalesce(sum(failed), 0),
       coalesce(sum(calls), 0), coalesce(sum(retries), 0), coalesce(sum(suspect_pages), 0), coalesce(sum(rejected_answers), 0)
FROM syncer.sync_range
WHERE run_id = $1`

// FindRun returns a run; the counters of a running one are those of the pages written so
// far. The error wraps pgx.ErrNoRows if there is no such run.
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

// RunningRun returns the running run of an app and kind. It reports false if there is
// none.
func (s *Store) RunningRun(ctx context.Context, appID int16, kind imclient.Kind) (run Run, ok bool, err error) {
	return s.maybeRun(ctx, "find the running run", runningRunSQL, appID, kind)
}

const lastBackfillSQL = `
SELECT ` + runColumns + `
FROM syncer.sync_run AS u
WHERE u.app_id = $1 AND u.kind = $2 AND u.trigger = 'backfill'
ORDER BY u.run_id DESC
LIMIT 1`

// LastBackfill returns the newest backfill of an app and kind. It reports false if there
// is none.
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

// LastTick returns the newest recorded tick of a job, zero if there is none.
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
