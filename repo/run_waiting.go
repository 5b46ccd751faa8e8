package repo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// QueueOf names the queue of an app and kind.
type QueueOf struct {
	AppID int16
	Kind  imclient.Kind
	Name  string
}

// Waiting is work that is due and that no worker has taken.
type Waiting struct {
	Queue    QueueOf
	RunID    int64
	RangeNo  *int       // PlanRange: the planning; nil: all ranges are done, but the run is open
	JobState string     // of the queue's job; "" if there is none
	PausedAt *time.Time // when the queue was paused; nil: it is not
}

// Work is due unless the run (recheck_after, $4) or the queue postpones it. The transaction
// that ends the last range closes the run.
const waitingSQL = `
SELECT DISTINCT ON (q.app_id, q.kind) q.app_id, q.kind, q.name, u.run_id, w.range_no, coalesce(j.state::text, ''), p.paused_at
FROM unnest($1::smallint[], $2::text[], $3::text[]) AS q (app_id, kind, name)
JOIN syncer.sync_run AS u ON u.app_id = q.app_id AND u.kind = q.kind AND u.status = 'running'
CROSS JOIN LATERAL (
    SELECT 0 AS range_no, u.plan_job_id AS job_id
    WHERE NOT u.planned AND u.plan_beat_at IS NULL
    UNION ALL
    SELECT r.range_no, r.job_id
    FROM syncer.sync_range AS r
    WHERE r.run_id = u.run_id AND r.status = 'pending' AND coalesce(r.recheck_after <= $4, true)
    UNION ALL
    SELECT NULL, NULL
    WHERE u.planned AND NOT EXISTS (
        SELECT FROM syncer.sync_range AS r
        WHERE r.run_id = u.run_id AND r.status IN ('pending', 'running'))
) AS w
LEFT JOIN syncer.river_job AS j ON j.id = w.job_id
LEFT JOIN syncer.river_queue AS p ON p.name = q.name
WHERE j.id IS NULL OR j.state NOT IN ('available', 'scheduled', 'retryable', 'pending') OR j.scheduled_at <= now()
ORDER BY q.app_id, q.kind, w.range_no`

// WaitingWork returns the first piece of waiting work of each of the queues that has any.
func (s *Store) WaitingWork(ctx context.Context, queues []QueueOf) ([]Waiting, error) {
	ids, kinds, names := make([]int16, len(queues)), make([]string, len(queues)), make([]string, len(queues))
	for i, q := range queues {
		ids[i], kinds[i], names[i] = q.AppID, string(q.Kind), q.Name
	}
	all, err := pg.Collect(ctx, s, func(row pgx.CollectableRow) (Waiting, error) {
		var w Waiting
		err := row.Scan(&w.Queue.AppID, &w.Queue.Kind, &w.Queue.Name, &w.RunID, &w.RangeNo, &w.JobState, &w.PausedAt)
		return w, err
	}, waitingSQL, ids, kinds, names, s.Now())
	if err != nil {
		return nil, fmt.Errorf("look for work that waits: %w", err)
	}
	return all, nil
}

// Describe returns what is waiting and, if that is known, why and what to do.
func (s *Store) Describe(w Waiting) string {
	var b strings.Builder
	switch {
	case w.RangeNo == nil:
		fmt.Fprintf(&b, "run %d has no range left and is not closed; to end it: UPDATE %s SET status = 'failed', finished_at = now() WHERE run_id = %d;", w.RunID, s.SQL("syncer.sync_run"), w.RunID)
		return b.String()
	case *w.RangeNo == PlanRange:
		fmt.Fprintf(&b, "the planning of run %d", w.RunID)
	default:
		fmt.Fprintf(&b, "range %d of run %d", *w.RangeNo, w.RunID)
	}
	switch {
	case w.PausedAt != nil:
		fmt.Fprintf(&b, ": its queue has been paused since %s; to go on: UPDATE %s SET paused_at = NULL WHERE name = %s;",
			pg.Instant(*w.PausedAt), s.SQL("syncer.river_queue"), pg.Literal(w.Queue.Name))
	case w.JobState == "":
		b.WriteString(" has no job in the queue")
	default:
		fmt.Fprintf(&b, ": its job in the queue is %s; the log may have what the queue says", w.JobState)
	}
	return b.String()
}

const newestTicksSQL = `
SELECT (
    SELECT max(tick)
    FROM syncer.sync_run
    WHERE app_id = j.app_id AND kind = j.kind AND job = j.job
)
FROM (
    SELECT unnest($1::smallint[]), unnest($2::text[]), unnest($3::text[]), generate_series(1, cardinality($1))
) AS j (app_id, kind, job, no)
ORDER BY j.no`

// NewestTicks returns the newest recorded tick of each of the jobs, zero if there is none.
func (s *Store) NewestTicks(ctx context.Context, wanted []AppJob) ([]time.Time, error) {
	ticks, err := pg.Collect(ctx, s, func(row pgx.CollectableRow) (time.Time, error) {
		var tick *time.Time
		if err := row.Scan(&tick); err != nil || tick == nil {
			return time.Time{}, err
		}
		return tick.UTC(), nil
	}, newestTicksSQL, jobColumns(wanted)...)
	if err != nil {
		return nil, fmt.Errorf("find the newest ticks of the jobs: %w", err)
	}
	return ticks, nil
}
