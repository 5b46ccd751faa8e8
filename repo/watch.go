package repo

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
)

// AppWatch is how it stands with one kind of an app.
type AppWatch struct {
	AppID        int16
	Kind         imclient.Kind
	RunningSince *time.Time // start of the run that is going; nil: none is
	Suspect      bool       // some of its pages are suspect
	Users        int64      // of the newest complete run, as is Failed
	Failed       int64
	HeldBack     int64 // users whom a run since that one would have removed, and did not
	Gaps         int64 // recorded: those that are over
	// ObservedUntil is when the last look of any complete run ended, and MaxGap how
	// long after it the time begins to count as not observed. nil: no run was
	// complete; MaxGap also when the last one was a backfill, after which nothing is
	// sure to come.
	ObservedUntil *time.Time
	MaxGap        *time.Duration
}

const watchAppsSQL = `
SELECT k.app_id, k.kind, running.started_at, coalesce(running.suspect, false),
       coalesce(done.users, 0), coalesce(done.failed, 0), coalesce(held.users, 0), coalesce(gap.gaps, 0), seen.observed_until, seen.max_gap
FROM (
    SELECT unnest($1::smallint[]), unnest($2::text[])
) AS k (app_id, kind)
LEFT JOIN syncer.sync_run AS running
    ON running.app_id = k.app_id AND running.kind = k.kind AND running.status = 'running'
LEFT JOIN LATERAL (
    SELECT users, failed, started_at
    FROM syncer.sync_run
    WHERE app_id = k.app_id AND kind = k.kind AND complete
    ORDER BY started_at DESC
    LIMIT 1
) AS done ON true
LEFT JOIN LATERAL (
    SELECT held_back AS users
    FROM syncer.sync_run
    WHERE app_id = k.app_id AND kind = k.kind AND held_back > 0 AND observed_until > coalesce(done.started_at, '-infinity')
    ORDER BY observed_until DESC
    LIMIT 1
) AS held ON true
LEFT JOIN syncer.sync_observed AS seen ON seen.app_id = k.app_id AND seen.kind = k.kind
LEFT JOIN (
    SELECT app_id, kind, count(*) AS gaps
    FROM syncer.observation_gap
    GROUP BY app_id, kind
) AS gap ON gap.app_id = k.app_id AND gap.kind = k.kind
ORDER BY k.app_id, k.kind`

// WatchApps tells how it stands with all kinds of some apps.
func (s *Store) WatchApps(ctx context.Context, appIDs []int16) ([]AppWatch, error) {
	var ids []int16
	var kinds []string
	for _, id := range appIDs {
		for _, kind := range imclient.Kinds() {
			ids, kinds = append(ids, id), append(kinds, string(kind))
		}
	}
	rows, err := s.Query(ctx, watchAppsSQL, ids, kinds)
	if err != nil {
		return nil, fmt.Errorf("look how it stands with the apps: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[AppWatch])
	if err != nil {
		return nil, fmt.Errorf("look how it stands with the apps: %w", err)
	}
	return all, nil
}

// AppJob is a scheduled job of an app.
type AppJob struct {
	AppID int16
	Kind  imclient.Kind
	Job   string
}

// JobWatch is how far a job of an app came. All are nil when it never did.
type JobWatch struct {
	FirstTick  *time.Time // the oldest tick on record
	LastTick   *time.Time // that of the newest complete run
	LastDoneAt *time.Time // when that run was closed
}

// By the index of the ticks: to find the newest complete run only those that came
// after it are walked over.
const watchJobsSQL = `
SELECT first.tick, done.tick, done.finished_at
FROM (
    SELECT unnest($1::smallint[]), unnest($2::text[]), unnest($3::text[]), generate_series(1, cardinality($1))
) AS j (app_id, kind, job, no)
LEFT JOIN LATERAL (
    SELECT tick
    FROM syncer.sync_run
    WHERE app_id = j.app_id AND kind = j.kind AND job = j.job AND tick IS NOT NULL
    ORDER BY tick
    LIMIT 1
) AS first ON true
LEFT JOIN LATERAL (
    SELECT tick, finished_at
    FROM syncer.sync_run
    WHERE app_id = j.app_id AND kind = j.kind AND job = j.job AND tick IS NOT NULL AND complete
    ORDER BY tick DESC
    LIMIT 1
) AS done ON true
ORDER BY j.no`

// WatchJobs tells how far some jobs came, in their order.
func (s *Store) WatchJobs(ctx context.Context, wanted []AppJob) ([]JobWatch, error) {
	ids, kinds, names := make([]int16, len(wanted)), make([]string, len(wanted)), make([]string, len(wanted))
	for i, w := range wanted {
		ids[i], kinds[i], names[i] = w.AppID, string(w.Kind), w.Job
	}
	rows, err := s.Query(ctx, watchJobsSQL, ids, kinds, names)
	if err != nil {
		return nil, fmt.Errorf("look how far the jobs came: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[JobWatch])
	if err != nil {
		return nil, fmt.Errorf("look how far the jobs came: %w", err)
	}
	return all, nil
}

// QuotaWatch is how a quota stands, for all instances together.
type QuotaWatch struct {
	AppID int16
	Kind  imclient.Kind
	Limit float64       // the configured calls a second
	Rate  float64       // those in force: fewer for a while after a rate-limit answer
	Pause time.Duration // until the next call time that is not taken
}

const watchQuotasSQL = `
SELECT app_id, api, rate, throttled_at, next_at
FROM syncer.api_quota`

// WatchQuotas tells how some quotas stand, in their order.
func (s *Store) WatchQuotas(ctx context.Context, quotas []*Quota) ([]QuotaWatch, error) {
	type key struct {
		appID int16
		api   string
	}
	type row struct {
		key         key
		rate        float64
		throttledAt *time.Time
		nextAt      time.Time
	}
	rows, err := s.Query(ctx, watchQuotasSQL)
	if err != nil {
		return nil, fmt.Errorf("look how the quotas stand: %w", err)
	}
	used := make(map[key]row)
	_, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (struct{}, error) {
		var q row
		err := r.Scan(&q.key.appID, &q.key.api, &q.rate, &q.throttledAt, &q.nextAt)
		used[q.key] = q
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("look how the quotas stand: %w", err)
	}
	now := s.Now()
	all := make([]QuotaWatch, len(quotas))
	for i, q := range quotas {
		w := QuotaWatch{AppID: q.appID, Kind: imclient.Kind(q.api), Limit: q.Limit(), Rate: q.Limit()}
		if u, ok := used[key{q.appID, q.api}]; ok {
			w.Pause = max(u.nextAt.Sub(now), 0)
			if u.throttledAt != nil {
				w.Rate = recovered(u.rate, q.Limit(), now.Sub(*u.throttledAt))
			}
		}
		all[i] = w
	}
	return all, nil
}

// recovered is rateSQL in Go: the rate in force some time after a throttling that
// left the given one.
func recovered(left, limit float64, since time.Duration) float64 {
	steps := max(math.Floor(since.Seconds()/recoveryStep.Seconds()), 0)
	return min(limit, left+limit*recoveryGain*steps)
}
