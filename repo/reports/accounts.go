package reports

import (
	"context"
	"time"
)

// AccountsRow is one local day of an app's accounts: the users imported at its end, as
// far as was known then, and what changed in it.
type AccountsRow struct {
	App               string `json:"app"`
	Day               string `json:"day"`
	Imported          int64  `json:"imported"`
	NotImported       int64  `json:"not_imported"`
	FirstSeen         int64  `json:"first_seen"` // users whose status became known
	BecameImported    int64  `json:"became_imported"`
	BecameNotImported int64  `json:"became_not_imported"`
	Gone              int64  `json:"gone"` // removed, or rejected by the API
}

// The numbers at the end of a day are those of the snapshots minus what changed since,
// also after as_of, so that they stay right when the beginning of the history is dropped.
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

// Accounts returns the import status by local day, from the first complete run on.
func (r *Reader) Accounts(ctx context.Context, s Span) ([]AccountsRow, error) {
	return read[AccountsRow](ctx, r, "the accounts", accountsSQL, s.App, s.firstDay(), r.lastDay(s), s.Location.String())
}

// AccountCoverageRow is what is known of an app's accounts now.
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

// AccountCoverage returns what is known of the accounts now.
func (r *Reader) AccountCoverage(ctx context.Context, s Span) ([]AccountCoverageRow, error) {
	return read[AccountCoverageRow](ctx, r, "what is known of accounts", accountCoverageSQL, s.App)
}
