package reports

import (
	"context"
	"time"
)

// StateRow is the state of one kind of an app.
type StateRow struct {
	App      string `json:"app"`
	Provider string `json:"provider"`
	Kind     string `json:"kind"`
	// Of the newest complete run; nil if there is none.
	CompleteRun   *int64     `json:"complete_run_id"`
	StartedAt     *time.Time `json:"complete_started_at"`
	ObservedUntil *time.Time `json:"observed_until"`
	Users         *int64     `json:"users"`
	Failed        *int64     `json:"failed"`
	Calls         *int64     `json:"calls"`
	Seconds       *float64   `json:"seconds"`
	MaxGapSeconds *float64   `json:"max_gap_seconds"` // nil: no scheduled run has to follow
	// Of the newest closed run, skipped ticks aside.
	LastRun     *int64     `json:"last_run_id"`
	LastStatus  *string    `json:"last_status"`
	LastAt      *time.Time `json:"last_finished_at"`
	LastError   *string    `json:"last_error"`
	HeldBack    *int64     `json:"held_back"`
	Rejected    *int64     `json:"rejected_answers"`
	Suspect     bool       `json:"suspect"`   // pages of the running run wait for their recheck
	GapSince    *time.Time `json:"gap_since"` // users have not been observed since
	OutageSince *time.Time `json:"outage_since"`
	OutageError *string    `json:"outage_error"`
	Rate        *float64   `json:"rate"`         // calls per second when the quota was last throttled, or the limit
	ThrottledAt *time.Time `json:"throttled_at"` // of the newest rate-limit answer
	LastTick    *time.Time `json:"last_tick"`
}

const statesSQL = `
SELECT a.name, a.provider, k.kind,
       done.run_id, done.started_at, done.observed_until, done.users, done.failed, done.calls,
       extract(epoch FROM done.finished_at - done.started_at)::float8, extract(epoch FROM done.max_gap)::float8,
       closed.run_id, closed.status, closed.finished_at, closed.error, closed.held_back, closed.rejected_answers,
       coalesce(running.suspect, false), gap.started_at, o.since, o.error, q.rate, q.throttled_at, tick.tick
FROM syncer.app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS k (kind)
LEFT JOIN LATERAL (
    SELECT u.*
    FROM syncer.sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = k.kind AND u.complete
    ORDER BY u.started_at DESC
    LIMIT 1
) AS done ON true
LEFT JOIN LATERAL (
    SELECT u.*
    FROM syncer.sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = k.kind AND u.status IN ('succeeded', 'partial', 'failed', 'cancelled')
      AND u.trigger NOT IN ('hint', 'hot') AND u.observed_until IS NOT NULL
    ORDER BY u.observed_until DESC
    LIMIT 1
) AS closed ON true
LEFT JOIN LATERAL (
    SELECT max(u.tick) AS tick
    FROM syncer.sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = k.kind AND u.job = coalesce(done.job, closed.job)
) AS tick ON true
LEFT JOIN syncer.sync_run AS running ON running.app_id = a.app_id AND running.kind = k.kind AND running.status = 'running' AND running.trigger NOT IN ('hint', 'hot')
LEFT JOIN syncer.sync_gap AS gap ON gap.app_id = a.app_id AND gap.kind = k.kind AND gap.ended_at IS NULL
LEFT JOIN syncer.api_outage AS o ON o.app_id = a.app_id AND o.api = k.kind
LEFT JOIN syncer.api_quota AS q ON q.app_id = a.app_id AND q.api = k.kind
ORDER BY a.name, k.kind DESC`

// States returns the state of both kinds of all apps.
func (r *Reader) States(ctx context.Context) ([]StateRow, error) {
	return read[StateRow](ctx, r, "the state of the apps", statesSQL)
}

const runningSQL = `
SELECT ` + runColumns + `
FROM syncer.sync_run AS u
JOIN syncer.app AS a ON a.app_id = u.app_id
` + runJoins + `
WHERE u.status = 'running'
ORDER BY a.name, u.kind DESC`

// Running returns the running runs with their counters so far.
func (r *Reader) Running(ctx context.Context) ([]RunRow, error) {
	return read[RunRow](ctx, r, "the running runs", runningSQL)
}

// InstanceRow is a process of syncer that is connected to the database, or works on
// ranges.
type InstanceRow struct {
	Process  string     `json:"process"`
	Sessions int64      `json:"sessions"` // connections to this server; 0 on a standby and behind a pooler
	Ranges   int64      `json:"ranges"`   // that it works on
	BeatAt   *time.Time `json:"beat_at"`  // its last sign of life among them
}

// Names of processes end with a number and six random characters.
const instancesSQL = `
SELECT process, sum(sessions)::bigint, sum(ranges)::bigint, max(beat_at)
FROM (
    SELECT substr(application_name, length('syncer ') + 1) AS process, 1 AS sessions, 0 AS ranges, NULL::timestamptz AS beat_at
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name ~ '^syncer .+-\d+-[A-Z2-7]{6}$'
    UNION ALL
    SELECT r.owner, 0, 1, r.beat_at
    FROM syncer.sync_run AS u
    JOIN syncer.sync_range AS r ON r.run_id = u.run_id
    WHERE u.status = 'running' AND r.status = 'running' AND r.owner IS NOT NULL
    UNION ALL
    SELECT u.plan_owner, 0, 0, u.plan_beat_at
    FROM syncer.sync_run AS u
    WHERE u.status = 'running' AND u.plan_owner IS NOT NULL AND u.plan_beat_at IS NOT NULL
) AS seen
GROUP BY process
ORDER BY process`

// Instances returns the processes that are alive.
func (r *Reader) Instances(ctx context.Context) ([]InstanceRow, error) {
	return read[InstanceRow](ctx, r, "the instances", instancesSQL)
}

// CellRow summarises the runs of an app, kind and job that began in one bucket of time.
type CellRow struct {
	App       string  `json:"app"`
	Kind      string  `json:"kind"`
	Job       string  `json:"job"`
	Bucket    int     `json:"bucket"` // from 1
	Runs      int64   `json:"runs"`
	Succeeded int64   `json:"succeeded"`
	Partial   int64   `json:"partial"`
	Failed    int64   `json:"failed"`
	Cancelled int64   `json:"cancelled"`
	Skipped   int64   `json:"skipped"`
	Running   int64   `json:"running"`
	Worst     string  `json:"worst"`  // status
	RunID     int64   `json:"run_id"` // the newest with that status
	Seconds   float64 `json:"longest_seconds"`
}

const gridSQL = `
SELECT a.name, c.kind, c.job, c.no, c.runs, c.succeeded, c.partial, c.failed, c.cancelled, c.skipped, c.running,
       CASE c.worst / 1000000000000000 WHEN 6 THEN 'failed' WHEN 5 THEN 'cancelled' WHEN 4 THEN 'partial' WHEN 3 THEN 'running' WHEN 2 THEN 'succeeded' ELSE 'skipped' END,
       c.worst % 1000000000000000, c.seconds
FROM (
    SELECT u.app_id, u.kind, u.job, width_bucket(u.started_at, $2::timestamptz[]) AS no, count(*) AS runs,
           count(*) FILTER (WHERE u.status = 'succeeded') AS succeeded, count(*) FILTER (WHERE u.status = 'partial') AS partial,
           count(*) FILTER (WHERE u.status = 'failed') AS failed, count(*) FILTER (WHERE u.status = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE u.status = 'skipped') AS skipped, count(*) FILTER (WHERE u.status = 'running') AS running,
           -- The severity before the number, so that one maximum finds both.
           max(1000000000000000 * CASE u.status WHEN 'failed' THEN 6 WHEN 'cancelled' THEN 5 WHEN 'partial' THEN 4 WHEN 'running' THEN 3 WHEN 'succeeded' THEN 2 ELSE 1 END + u.run_id) AS worst,
           coalesce(max(extract(epoch FROM u.finished_at - u.started_at)) FILTER (WHERE u.status <> 'skipped'), 0)::float8 AS seconds
    FROM syncer.sync_run AS u
    WHERE u.started_at >= ($2::timestamptz[])[1] AND ($1::text IS NULL OR u.app_id = (SELECT app_id FROM syncer.app WHERE name = $1))
    GROUP BY 1, 2, 3, 4
) AS c
JOIN syncer.app AS a ON a.app_id = c.app_id
ORDER BY a.name, c.kind DESC, c.job, c.no`

// Grid returns the runs since the first bucket, summarised by bucket. buckets are the
// starts of the buckets, ascending. If app is nil, it returns those of all apps.
func (r *Reader) Grid(ctx context.Context, app *string, buckets []time.Time) ([]CellRow, error) {
	return read[CellRow](ctx, r, "the runs", gridSQL, app, buckets)
}

// FailureGroup counts the users of an app who fail now in one kind with one code.
type FailureGroup struct {
	App      string `json:"app"`
	Provider string `json:"provider"`
	Kind     string `json:"kind"`
	FailureRow
	LastAt time.Time `json:"last_at"`
}

const failureGroupsSQL = `
SELECT a.name, a.provider, f.kind, f.code, count(*), min(f.first_at), min(f.user_id), min(f.message), max(f.last_at)
FROM syncer.user_failure AS f
JOIN syncer.app AS a ON a.app_id = f.app_id
WHERE ($1::text IS NULL OR a.name = $1) AND ($2::text IS NULL OR f.kind = $2) AND ($3::text IS NULL OR f.code = $3)
GROUP BY a.name, a.provider, f.kind, f.code
ORDER BY count(*) DESC, a.name, f.kind, f.code
LIMIT $4`

// Failures returns the users who fail now, by app, kind and code. A nil filter does not
// limit them.
func (r *Reader) Failures(ctx context.Context, app, kind, code *string, limit int) ([]FailureGroup, error) {
	return read[FailureGroup](ctx, r, "who fails", failureGroupsSQL, app, kind, code, limit)
}
