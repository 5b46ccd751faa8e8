package reports

import (
	"context"
	"time"
)

// RunRow is a run. Counters are those at its end; LatestRuns has those so far.
type RunRow struct {
	App             string     `json:"app"`
	RunID           int64      `json:"run_id"`
	Kind            string     `json:"kind"`
	Job             string     `json:"job"`
	Trigger         string     `json:"trigger"`
	Tick            *time.Time `json:"tick"`
	Status          string     `json:"status"`
	StartedAt       time.Time  `json:"started_at"`
	FinishedAt      *time.Time `json:"finished_at"`
	Seconds         float64    `json:"seconds"` // until its end, or so far
	Users           int64      `json:"users"`
	Changed         int64      `json:"changed"`
	Failed          int64      `json:"failed"`
	Removed         int64      `json:"removed"`
	HeldBack        int64      `json:"held_back"`
	SuspectPages    int64      `json:"suspect_pages"`
	RejectedAnswers int64      `json:"rejected_answers"`
	Calls           int64      `json:"calls"`
	Retries         int64      `json:"retries"`
	Error           *string    `json:"error"` // of a running run: why it waits
}

// errorSQL is the error of a run u, or while it is running what keeps it waiting: an
// outage o of its API.
const errorSQL = `coalesce(u.error, CASE WHEN u.status = 'running' THEN
           'no answer from the API since ' || to_char(o.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC: ' || o.error END)`

const runsSQL = `
SELECT a.name, u.run_id, u.kind, u.job, u.trigger, u.tick, u.status, u.started_at, u.finished_at,
       greatest(extract(epoch FROM coalesce(u.finished_at, syncer.as_of()) - u.started_at), 0)::float8,
       u.users, u.changed, u.failed, u.removed, u.held_back, u.suspect_pages, u.rejected_answers, u.calls, u.retries,
       ` + errorSQL + `
FROM syncer.sync_run AS u
JOIN syncer.app AS a ON a.app_id = u.app_id
LEFT JOIN syncer.api_outage AS o ON o.app_id = u.app_id AND o.api = u.kind
WHERE u.started_at >= $2 AND u.started_at < $3 AND ($1::text IS NULL OR a.name = $1)
ORDER BY u.started_at DESC, u.run_id DESC`

// Runs returns the runs that began within the span, the newest first.
func (r *Reader) Runs(ctx context.Context, s Span) ([]RunRow, error) {
	return read[RunRow](ctx, r, "the runs", runsSQL, s.App, s.From, s.To)
}

// GapRow is a stretch of time in which an app's users were not observed.
type GapRow struct {
	App           string     `json:"app"`
	Kind          string     `json:"kind"`
	StartedAt     time.Time  `json:"started_at"`
	EndedAt       *time.Time `json:"ended_at"` // nil: still open
	Seconds       float64    `json:"seconds"`
	SecondsInSpan float64    `json:"seconds_in_span"`
	LastSeenFrom  time.Time  `json:"last_seen_from"`
	NextSeenBy    *time.Time `json:"next_seen_by"`
}

const gapsSQL = `
SELECT g.app, g.kind, g.started_at, g.ended_at, g.seconds,
       extract(epoch FROM least(coalesce(g.ended_at, syncer.as_of()), $3) - greatest(g.started_at, $2))::float8,
       g.last_seen_from, g.next_seen_by
FROM syncer.sync_gap AS g
WHERE g.started_at < $3 AND coalesce(g.ended_at, syncer.as_of()) > $2 AND ($1::text IS NULL OR g.app = $1)
ORDER BY g.app, g.kind DESC, g.started_at`

// Gaps returns the gaps that overlap the span.
func (r *Reader) Gaps(ctx context.Context, s Span) ([]GapRow, error) {
	return read[GapRow](ctx, r, "the gaps", gapsSQL, s.App, s.From, s.To)
}

// CoverageRow is how much of the span an app's users were observed in one kind.
type CoverageRow struct {
	App  string `json:"app"`
	Kind string `json:"kind"`
	Gaps int64  `json:"gaps"`
	// Since is when the first complete run began, or the span if that is later.
	Since           time.Time `json:"since"`
	Seconds         float64   `json:"seconds"` // from Since to the end of the span, or now
	GapSeconds      float64   `json:"gap_seconds"`
	ObservedSeconds float64   `json:"observed_seconds"`
	ObservedShare   *float64  `json:"observed_share"`
}

const coverageSQL = `
SELECT a.name, k.kind, coalesce(g.gaps, 0), f.since, size.seconds, coalesce(g.seconds, 0),
       size.seconds - coalesce(g.seconds, 0), (size.seconds - coalesce(g.seconds, 0)) / nullif(size.seconds, 0)
FROM syncer.app AS a
CROSS JOIN (VALUES ('presence'), ('accounts')) AS k (kind)
CROSS JOIN LATERAL (
    SELECT greatest(u.observed_from, $2) AS since
    FROM syncer.sync_run AS u
    WHERE u.app_id = a.app_id AND u.kind = k.kind AND u.complete
    ORDER BY u.started_at
    LIMIT 1
) AS f
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM least($3, syncer.as_of()) - f.since)::float8 AS seconds
) AS size
LEFT JOIN LATERAL (
    SELECT count(*) AS gaps,
           sum(extract(epoch FROM least(coalesce(g.ended_at, syncer.as_of()), $3) - greatest(g.started_at, f.since)))::float8 AS seconds
    FROM syncer.sync_gap AS g
    WHERE g.app_id = a.app_id AND g.kind = k.kind
      AND g.started_at < $3 AND coalesce(g.ended_at, syncer.as_of()) > f.since
) AS g ON true
WHERE size.seconds >= 0 AND ($1::text IS NULL OR a.name = $1)
ORDER BY a.name, k.kind DESC`

// Coverage returns how much of the span is known, by app and kind.
func (r *Reader) Coverage(ctx context.Context, s Span) ([]CoverageRow, error) {
	return read[CoverageRow](ctx, r, "what was observed", coverageSQL, s.App, s.From, s.To)
}
