package repo

import (
	"context"
	"time"
)

// RunRow is a run, and how it ended.
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
	Seconds         float64    `json:"seconds"` // so far, when it is not finished
	Users           int64      `json:"users"`
	Changed         int64      `json:"changed"`
	Failed          int64      `json:"failed"`
	Removed         int64      `json:"removed"`
	HeldBack        int64      `json:"held_back"`
	SuspectPages    int64      `json:"suspect_pages"`
	RejectedAnswers int64      `json:"rejected_answers"`
	Calls           int64      `json:"calls"`
	Retries         int64      `json:"retries"`
	Error           *string    `json:"error"`
}

const runsSQL = `
SELECT a.name, u.run_id, u.kind, u.job, u.trigger, u.tick, u.status, u.started_at, u.finished_at,
       greatest(extract(epoch FROM coalesce(u.finished_at, syncer.as_of()) - u.started_at), 0)::float8,
       u.users, u.changed, u.failed, u.removed, u.held_back, u.suspect_pages, u.rejected_answers, u.calls, u.retries, u.error
FROM syncer.sync_run AS u
JOIN syncer.app AS a ON a.app_id = u.app_id
WHERE u.started_at >= $2 AND u.started_at < $3 AND ($1::text IS NULL OR a.name = $1)
ORDER BY u.started_at DESC, u.run_id DESC`

// Runs gives the runs that began within the span, the newest first.
func (r *Reader) Runs(ctx context.Context, s Span) ([]RunRow, error) {
	return read[RunRow](ctx, r, "the runs", runsSQL, s.App, s.From, s.To)
}

// GapRow is a stretch of time in which nobody looked.
type GapRow struct {
	App           string     `json:"app"`
	Kind          string     `json:"kind"`
	StartedAt     time.Time  `json:"started_at"`
	EndedAt       *time.Time `json:"ended_at"` // nil: it goes on
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

// Gaps gives the gaps that touch the span.
func (r *Reader) Gaps(ctx context.Context, s Span) ([]GapRow, error) {
	return read[GapRow](ctx, r, "the gaps", gapsSQL, s.App, s.From, s.To)
}

// CoverageRow is how much of the span somebody looked at an app's users.
type CoverageRow struct {
	App  string `json:"app"`
	Kind string `json:"kind"`
	Gaps int64  `json:"gaps"`
	// Since is the first complete run's beginning, or the span's if that is
	// later; nothing was to be known before.
	Since           time.Time `json:"since"`
	Seconds         float64   `json:"seconds"` // from there to the end of the span, or now
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

// Coverage gives how much of the span is known, by app and kind.
func (r *Reader) Coverage(ctx context.Context, s Span) ([]CoverageRow, error) {
	return read[CoverageRow](ctx, r, "what was observed", coverageSQL, s.App, s.From, s.To)
}

// AccountsRow is one local day of the accounts of an app: how many users were
// imported at its end, as far as was known then, and what changed in it.
type AccountsRow struct {
	App               string `json:"app"`
	Day               string `json:"day"`
	Imported          int64  `json:"imported"`
	NotImported       int64  `json:"not_imported"`
	FirstSeen         int64  `json:"first_seen"` // users of whom a status is known for the first time
	BecameImported    int64  `json:"became_imported"`
	BecameNotImported int64  `json:"became_not_imported"`
	Gone              int64  `json:"gone"` // removed, or rejected by the API
}

// The numbers at the end of a day are those of the snapshots, less what changed
// since, also after as_of: so they stay right when the beginning of the history is
// dropped.
const accountsSQL = `
WITH change AS (
    SELECT h.app_id, (h.observed_at AT TIME ZONE $4)::date AS day,
           count(*) FILTER (WHERE h.prev_status IS NULL) AS first_seen,
           count(*) FILTER (WHERE h.status = 'imported' AND h.prev_status IS NOT NULL) AS became_imported,
           count(*) FILTER (WHERE h.status = 'not_imported' AND h.prev_status IS NOT NULL) AS became_not_imported,
           count(*) FILTER (WHERE h.status NOT IN ('imported', 'not_imported')) AS gone,
           count(*) FILTER (WHERE h.status = 'imported') - count(*) FILTER (WHERE h.prev_status = 'imported') AS imported,
           count(*) FILTER (WHERE h.status = 'not_imported') - count(*) FILTER (WHERE h.prev_status = 'not_imported') AS not_imported
    FROM syncer.account_history AS h
    WHERE h.observed_at >= syncer.day_start($2::date, $4) AND h.observed_at <= syncer.as_of()
    GROUP BY 1, 2
), later AS (
    SELECT h.app_id,
           count(*) FILTER (WHERE h.status = 'imported') - count(*) FILTER (WHERE h.prev_status = 'imported') AS imported,
           count(*) FILTER (WHERE h.status = 'not_imported') - count(*) FILTER (WHERE h.prev_status = 'not_imported') AS not_imported
    FROM syncer.account_history AS h
    WHERE h.observed_at > syncer.as_of()
    GROUP BY 1
), daily AS (
    SELECT v.app, d.day::date AS day,
           v.imported - coalesce(l.imported, 0) - coalesce(sum(c.imported) OVER following, 0) AS imported,
           v.not_imported - coalesce(l.not_imported, 0) - coalesce(sum(c.not_imported) OVER following, 0) AS not_imported,
           coalesce(c.first_seen, 0) AS first_seen,
           coalesce(c.became_imported, 0) AS became_imported,
           coalesce(c.became_not_imported, 0) AS became_not_imported,
           coalesce(c.gone, 0) AS gone
    FROM syncer.account_coverage AS v
    CROSS JOIN LATERAL (
        SELECT (min(u.started_at) AT TIME ZONE $4)::date AS day
        FROM syncer.sync_run AS u
        WHERE u.app_id = v.app_id AND u.kind = 'accounts' AND u.complete
    ) AS first
    CROSS JOIN LATERAL generate_series(
        greatest($2::date, first.day)::timestamp, (syncer.as_of() AT TIME ZONE $4)::date::timestamp, '1 day') AS d (day)
    LEFT JOIN change AS c ON c.app_id = v.app_id AND c.day = d.day
    LEFT JOIN later AS l ON l.app_id = v.app_id
    WHERE ($1::text IS NULL OR v.app = $1) AND first.day IS NOT NULL
    WINDOW following AS (PARTITION BY v.app ORDER BY d.day DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT app, to_char(day, 'YYYY-MM-DD'), imported::bigint, not_imported::bigint, first_seen, became_imported, became_not_imported, gone
FROM daily
WHERE day <= $3::date
ORDER BY app, day`

// Accounts gives the import status by local day, from the first complete run on.
func (r *Reader) Accounts(ctx context.Context, s Span) ([]AccountsRow, error) {
	return read[AccountsRow](ctx, r, "the accounts", accountsSQL, s.App, s.firstDay(), r.lastDay(s), s.Location.String())
}

// AccountCoverageRow is what is known of the accounts of an app now.
type AccountCoverageRow struct {
	App           string     `json:"app"`
	Imported      int64      `json:"imported"`
	NotImported   int64      `json:"not_imported"`
	NeverChecked  int64      `json:"never_checked"`
	LastCheckedAt *time.Time `json:"last_checked_at"`
}

const accountCoverageSQL = `
SELECT v.app, v.imported, v.not_imported, v.never_checked, v.last_checked_at
FROM syncer.account_coverage AS v
WHERE $1::text IS NULL OR v.app = $1
ORDER BY v.app`

// AccountCoverage gives what is known of the accounts now.
func (r *Reader) AccountCoverage(ctx context.Context, s Span) ([]AccountCoverageRow, error) {
	return read[AccountCoverageRow](ctx, r, "what is known of accounts", accountCoverageSQL, s.App)
}
