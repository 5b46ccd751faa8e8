package reports

import (
	"context"
	"time"
)

// RunFilter limits a list of runs. A nil field does not.
type RunFilter struct {
	RunID          *int64
	App, Job, Kind *string
	Statuses       []string
	Complete       bool  // only complete ones
	Hints          *bool // only work on hints, or none
	Limit          int
}

// runColumns are the columns of a RunRow, of a run u of an app a and runJoins. The
// counters of a running run are those of its pages so far.
const runColumns = `a.name, u.run_id, u.kind, u.job, u.trigger, u.tick, u.status, u.started_at, u.finished_at,
       greatest(extract(epoch FROM coalesce(u.finished_at, syncer.as_of()) - u.started_at), 0)::float8,
       coalesce(so_far.users, u.users), coalesce(so_far.changed, u.changed), coalesce(so_far.failed, u.failed), u.removed, u.held_back,
       coalesce(so_far.suspect_pages, u.suspect_pages), coalesce(so_far.rejected_answers, u.rejected_answers),
       coalesce(so_far.calls, u.calls), coalesce(so_far.retries, u.retries),
       ` + errorSQL

const runJoins = `LEFT JOIN syncer.api_outage AS o ON o.app_id = u.app_id AND o.api = u.kind
LEFT JOIN LATERAL (
    SELECT sum(r.users)::bigint AS users, sum(r.changed)::bigint AS changed, sum(r.failed)::bigint AS failed,
           sum(r.suspect_pages)::bigint AS suspect_pages, sum(r.rejected_answers)::bigint AS rejected_answers,
           sum(r.calls)::bigint AS calls, sum(r.retries)::bigint AS retries
    FROM syncer.sync_range AS r
    WHERE r.run_id = u.run_id
) AS so_far ON u.status = 'running'`

const latestRunsSQL = `
SELECT ` + runColumns + `
FROM (
    SELECT u.*
    FROM syncer.sync_run AS u
    WHERE ($1::text IS NULL OR u.app_id = (SELECT app_id FROM syncer.app WHERE name = $1))
      AND ($2::text IS NULL OR u.job = $2) AND ($3::text IS NULL OR u.kind = $3)
      AND ($4::text[] IS NULL OR u.status = ANY ($4)) AND (NOT $5 OR u.complete)
      AND ($6::bigint IS NULL OR u.run_id = $6) AND ($8::bool IS NULL OR (u.trigger = 'hint') = $8)
    ORDER BY u.run_id DESC
    LIMIT $7
) AS u
JOIN syncer.app AS a ON a.app_id = u.app_id
` + runJoins + `
ORDER BY u.run_id DESC`

// LatestRuns returns the newest runs that pass the filter, the newest first.
func (r *Reader) LatestRuns(ctx context.Context, f RunFilter) ([]RunRow, error) {
	return read[RunRow](ctx, r, "the runs", latestRunsSQL, f.App, f.Job, f.Kind, f.Statuses, f.Complete, f.RunID, f.Limit, f.Hints)
}

// RunMore is the rest of what is recorded of a run.
type RunMore struct {
	AppID          int16      `json:"-"`
	Provider       string     `json:"provider"`
	Listed         bool       `json:"listed"` // limited to a list of users
	Complete       bool       `json:"complete"`
	PrevCompleteAt *time.Time `json:"prev_complete_at"`
	ObservedFrom   time.Time  `json:"observed_from"`
	ObservedUntil  *time.Time `json:"observed_until"`
	Suspect        bool       `json:"suspect"` // pages are waiting for their recheck
	Planned        bool       `json:"planned"` // all ranges are cut
	Newest         bool       `json:"-"`       // the app and kind have no newer run, skipped ticks aside
}

// RangeGroup counts the ranges of a run with one status.
type RangeGroup struct {
	Status string `json:"status"`
	Ranges int64  `json:"ranges"`
	Users  int64  `json:"users"` // so far
}

// RangeRow is a range of a run.
type RangeRow struct {
	No              int        `json:"range_no"`
	Status          string     `json:"status"`
	Lower           *string    `json:"lower_key"` // keys above it; nil: from the start
	Upper           *string    `json:"upper_key"` // keys up to and with it; nil: to the end
	Attempt         int        `json:"attempt"`
	Owner           *string    `json:"owner"`
	BeatAt          *time.Time `json:"beat_at"`
	Users           int64      `json:"users"`
	SuspectAnswers  int        `json:"suspect_answers"`
	RecheckAfter    *time.Time `json:"recheck_after"`
	RejectedAnswers int64      `json:"rejected_answers"`
	Error           *string    `json:"error"`
}

// FailureRow is the number of users of an app who fail now with the same code.
type FailureRow struct {
	Code    string    `json:"code"`
	Users   int64     `json:"users"`
	FirstAt time.Time `json:"first_at"` // of the one that has failed for the longest time
	Example string    `json:"example"`  // one of them; "" stands for rows without an id
	Message string    `json:"message"`  // of one of them
}

// LeftRow counts the users whose snapshot a run removed.
type LeftRow struct {
	State    string   `json:"state"` // removed or rejected
	Users    int64    `json:"users"`
	Examples []string `json:"examples"`
}

// SeenRow is the number of users whom a complete presence run found in a state.
type SeenRow struct {
	State string `json:"state"`
	Users int64  `json:"users"`
}

// EndedGap is the gap that a run ended.
type EndedGap struct {
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
}

// RunDetail is everything that is known of a run. Its lists are limited.
type RunDetail struct {
	RunRow
	RunMore
	Groups   []RangeGroup
	Ranges   []RangeRow // running, failed, suspect, or with an error
	Failures []FailureRow
	Left     []LeftRow
	Seen     []SeenRow
	Gaps     []EndedGap
}

const runMoreSQL = `
SELECT u.app_id, a.provider, u.listed, u.complete, u.prev_complete_at, u.observed_from, u.observed_until, u.suspect, u.planned,
       NOT EXISTS (
           SELECT FROM syncer.sync_run AS newer
           WHERE newer.app_id = u.app_id AND newer.kind = u.kind AND newer.run_id > u.run_id AND newer.status <> 'skipped' AND newer.trigger <> 'hint')
FROM syncer.sync_run AS u
JOIN syncer.app AS a ON a.app_id = u.app_id
WHERE u.run_id = $1`

const rangeGroupsSQL = `
SELECT status, count(*), sum(users)::bigint
FROM syncer.sync_range
WHERE run_id = $1
GROUP BY status
ORDER BY status`

const troubledRangesSQL = `
SELECT range_no, status, lower_key, upper_key, attempt, owner, beat_at, users, suspect_answers, recheck_after, rejected_answers, error
FROM syncer.sync_range
WHERE run_id = $1 AND (status IN ('running', 'failed') OR suspect_answers > 0 OR error IS NOT NULL)
ORDER BY range_no
LIMIT $2`

const failureRowsSQL = `
SELECT code, count(*), min(first_at), min(user_id), min(message)
FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2
GROUP BY code
ORDER BY count(*) DESC, code
LIMIT $3`

// The time of the run limits the partitions that are read.
const leftPresenceSQL = `
SELECT h.state::text, count(*), (array_agg(h.user_id ORDER BY h.user_id))[1:5]
FROM syncer.presence_history AS h
WHERE h.app_id = $1 AND h.run_id = $2 AND h.state IN ('removed', 'rejected') AND h.observed_at >= $3 AND h.observed_at <= $4
GROUP BY h.state
ORDER BY h.state`

const leftAccountsSQL = `
SELECT h.status::text, count(*), (array_agg(h.user_id ORDER BY h.user_id))[1:5]
FROM syncer.account_history AS h
WHERE h.app_id = $1 AND h.run_id = $2 AND h.status IN ('removed', 'rejected') AND h.observed_at >= $3 AND h.observed_at <= $4
GROUP BY h.status
ORDER BY h.status`

const seenSQL = `
SELECT c.state::text, c.users
FROM syncer.presence_count AS c
WHERE c.app_id = $1 AND c.run_id = $2 AND c.platform = 'all'
ORDER BY c.state`

const endedGapsSQL = `
SELECT started_at, ended_at
FROM syncer.observation_gap
WHERE run_id = $1
ORDER BY started_at`

// RunDetail returns what is known of a run, at most limit rows of each list. It reports
// false if there is no such run.
func (r *Reader) RunDetail(ctx context.Context, runID int64, limit int) (d RunDetail, ok bool, err error) {
	rows, err := r.LatestRuns(ctx, RunFilter{RunID: &runID, Limit: 1})
	if err != nil || len(rows) == 0 {
		return d, false, err
	}
	more, err := read[RunMore](ctx, r, "the run", runMoreSQL, runID)
	if err != nil || len(more) == 0 {
		return d, false, err
	}
	d.RunRow, d.RunMore = rows[0], more[0]
	if d.Groups, err = read[RangeGroup](ctx, r, "the ranges", rangeGroupsSQL, runID); err != nil {
		return d, false, err
	}
	if d.Ranges, err = read[RangeRow](ctx, r, "the ranges", troubledRangesSQL, runID, limit); err != nil {
		return d, false, err
	}
	if d.Failures, err = read[FailureRow](ctx, r, "who fails", failureRowsSQL, d.AppID, d.Kind, limit); err != nil {
		return d, false, err
	}
	until := r.AsOf
	if d.FinishedAt != nil {
		until = *d.FinishedAt
	}
	left := leftPresenceSQL
	if d.Kind != "presence" {
		left = leftAccountsSQL
	}
	if d.Left, err = read[LeftRow](ctx, r, "who left", left, d.AppID, runID, d.StartedAt, until); err != nil {
		return d, false, err
	}
	if d.Seen, err = read[SeenRow](ctx, r, "what was seen", seenSQL, d.AppID, runID); err != nil {
		return d, false, err
	}
	d.Gaps, err = read[EndedGap](ctx, r, "the gap", endedGapsSQL, runID)
	return d, err == nil, err
}
