package repo

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/pg"
)

// AppWatch is the state of one kind of an app.
type AppWatch struct {
	AppID        int16
	Kind         imclient.Kind
	RunningSince *time.Time // start of the running run; nil: none is running
	Suspect      bool       // pages are waiting for their recheck
	Users        int64      // of the newest complete run, as is Failed
	Failed       int64
	HeldBack     int64 // users held back by a run since that one
	Gaps         int64 // recorded, which are those that ended
	// ObservedUntil is when the newest complete run ended, and MaxGap how long after that a
	// gap begins. Both are nil if no run was complete, and MaxGap also after a backfill,
	// which no scheduled run has to follow.
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

// WatchApps returns the state of all kinds of some apps.
func (s *Store) WatchApps(ctx context.Context, appIDs []int16) ([]AppWatch, error) {
	var ids []int16
	var kinds []string
	for _, id := range appIDs {
		for _, kind := range imclient.Kinds() {
			ids, kinds = append(ids, id), append(kinds, string(kind))
		}
	}
	all, err := pg.Collect(ctx, s, pgx.RowToStructByPos[AppWatch], watchAppsSQL, ids, kinds)
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

// jobColumns are $1 app_id, $2 kind, $3 job.
func jobColumns(all []AppJob) []any {
	ids, kinds, names := make([]int16, len(all)), make([]string, len(all)), make([]string, len(all))
	for i, j := range all {
		ids[i], kinds[i], names[i] = j.AppID, string(j.Kind), j.Job
	}
	return []any{ids, kinds, names}
}

// JobWatch is the progress of a job of an app. All are nil if it never ran.
type JobWatch struct {
	FirstTick  *time.Time // the oldest tick on record
	LastTick   *time.Time // that of the newest complete run
	LastDoneAt *time.Time // when that run was closed
}

// The index of ticks serves this: to find the newest complete run Postgres reads only the
// ticks after it.
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

// WatchJobs returns the progress of some jobs, in their order.
func (s *Store) WatchJobs(ctx context.Context, wanted []AppJob) ([]JobWatch, error) {
	all, err := pg.Collect(ctx, s, pgx.RowToStructByPos[JobWatch], watchJobsSQL, jobColumns(wanted)...)
	if err != nil {
		return nil, fmt.Errorf("look how far the jobs came: %w", err)
	}
	return all, nil
}

// QuotaWatch is the state of a quota, which all instances share.
type QuotaWatch struct {
	AppID int16
	Kind  imclient.Kind
	Limit float64       // configured calls per second
	Rate  float64       // calls per second in force: fewer for a while after a rate-limit answer
	Pause time.Duration // until the next free call time
}

const watchQuotasSQL = `
SELECT app_id, api, rate, throttled_at, next_at
FROM syncer.api_quota`

// WatchQuotas returns the state of some quotas, in their order.
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
	used := make(map[key]row)
	_, err := pg.Collect(ctx, s, func(r pgx.CollectableRow) (struct{}, error) {
		var q row
		err := r.Scan(&q.key.appID, &q.key.api, &q.rate, &q.throttledAt, &q.nextAt)
		used[q.key] = q
		return struct{}{}, err
	}, watchQuotasSQL)
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

// recovered is rateSQL in Go: the rate in force some time after a throttling that left the
// given rate.
func recovered(left, limit float64, since time.Duration) float64 {
	steps := max(math.Floor(since.Seconds()/recoveryStep.Seconds()), 0)
	return min(limit, left+limit*recoveryGain*steps)
}
