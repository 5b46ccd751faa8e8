package reports

import (
	"context"
	"time"
)

// ConcurrencyRow is what was observed of an app in one bucket of time. The counts are nil
// if all of it is a gap.
type ConcurrencyRow struct {
	App             string    `json:"app"`
	Bucket          time.Time `json:"bucket"` // its start
	BucketSeconds   float64   `json:"bucket_seconds"`
	ObservedSeconds float64   `json:"observed_seconds"` // of it, outside of gaps
	Runs            int64     `json:"runs"`
	Users           *int64    `json:"users"`
	OnlineMin       *int64    `json:"online_min"`
	OnlineAvg       *float64  `json:"online_avg"`
	OnlineMax       *int64    `json:"online_max"`
	PushOnlineAvg   *float64  `json:"push_online_avg"`
}

// A bucket without a run has a row only if all of it lies in gaps: if runs are further
// apart than buckets are long, nothing is missing. In the first bucket the time before
// the first run was not observed.
const concurrencySQL = `
WITH bucket AS (
    SELECT b.no, b.started_at, coalesce(lead(b.started_at) OVER (ORDER BY b.no), $4) AS ended_at
    FROM unnest($2::timestamptz[]) WITH ORDINALITY AS b (started_at, no)
), seen AS (
    SELECT c.app, width_bucket(c.observed_at, $2::timestamptz[]) AS no, count(*) AS runs, max(c.users) AS users,
           min(c.online) AS online_min, avg(c.online)::float8 AS online_avg, max(c.online) AS online_max,
           avg(c.push_online)::float8 AS push_online_avg
    FROM syncer.presence_concurrency AS c
    WHERE c.observed_at >= $3 AND c.observed_at < $4 AND ($1::text IS NULL OR c.app = $1)
    GROUP BY 1, 2
), unseen AS (
    SELECT g.app, g.started_at, coalesce(g.ended_at, syncer.as_of()) AS ended_at
    FROM syncer.sync_gap AS g
    WHERE g.kind = 'presence' AND ($1::text IS NULL OR g.app = $1)
    UNION ALL
    -- The bucket of the first run begins before it.
    SELECT o.app, b.started_at, least(r.first_at, o.first_started_at)
    FROM syncer.sync_observed AS o
    LEFT JOIN syncer.presence_rollup AS r ON r.app_id = o.app_id
    JOIN bucket AS b ON least(r.first_at, o.first_started_at) > b.started_at AND least(r.first_at, o.first_started_at) < b.ended_at
    WHERE o.kind = 'presence' AND ($1::text IS NULL OR o.app = $1)
), gap AS (
    SELECT u.app, b.no, sum(extract(epoch FROM least(u.ended_at, b.ended_at) - greatest(u.started_at, b.started_at)))::float8 AS seconds
    FROM unseen AS u
    JOIN bucket AS b ON u.started_at < b.ended_at AND u.ended_at > b.started_at
    GROUP BY 1, 2
)
SELECT coalesce(s.app, g.app) AS app, b.started_at, size.seconds,
       greatest(size.seconds - coalesce(g.seconds, 0), 0), coalesce(s.runs, 0), s.users,
       s.online_min, s.online_avg, s.online_max, s.push_online_avg
FROM seen AS s
FULL JOIN gap AS g ON g.app = s.app AND g.no = s.no
JOIN bucket AS b ON b.no = coalesce(s.no, g.no)
CROSS JOIN LATERAL (
    -- The bucket that is not over yet ends now.
    SELECT extract(epoch FROM least(b.ended_at, syncer.as_of()) - b.started_at)::float8 AS seconds
) AS size
WHERE s.runs IS NOT NULL OR g.seconds >= size.seconds
ORDER BY 1, 2`

// Concurrency returns the number of users online. buckets are the starts of the buckets,
// ascending; the last one ends with the span.
func (r *Reader) Concurrency(ctx context.Context, s Span, buckets []time.Time) ([]ConcurrencyRow, error) {
	return read[ConcurrencyRow](ctx, r, "how many were online", concurrencySQL, s.App, buckets, s.From, s.To)
}

// ActiveUsersRow is the number of users of an app who were online on a local day, and in
// the 7 and 30 days that end with it.
type ActiveUsersRow struct {
	App             string  `json:"app"`
	Day             string  `json:"day"`
	Daily           int64   `json:"daily"`
	Weekly          int64   `json:"weekly"`
	Monthly         int64   `json:"monthly"`
	ObservedSeconds float64 `json:"observed_seconds"`
	DaySeconds      float64 `json:"day_seconds"` // not 86,400 when clocks change
}

const activeUsersSQL = `
SELECT a.app, to_char(a.day, 'YYYY-MM-DD'), a.daily, a.weekly, a.monthly, a.observed_seconds,
       extract(epoch FROM syncer.day_start(a.day + 1, $4) - syncer.day_start(a.day, $4))::float8
FROM syncer.active_users($2::date, $3::date, $4) AS a
WHERE $1::text IS NULL OR a.app = $1
ORDER BY a.app, a.day`

// ActiveUsers returns the number of distinct users online, by local day.
func (r *Reader) ActiveUsers(ctx context.Context, s Span) ([]ActiveUsersRow, error) {
	return read[ActiveUsersRow](ctx, r, "the active users", activeUsersSQL, s.App, s.firstDay(), r.lastDay(s), s.Location.String())
}

// SessionsRow summarises the sessions of an app that began on one local day, or, if Day is
// nil, within the span.
type SessionsRow struct {
	App            string  `json:"app"`
	Day            *string `json:"day"`
	Sessions       int64   `json:"sessions"`
	CutByGap       int64   `json:"cut_by_gap"`
	Open           int64   `json:"open"`
	MedianSeconds  float64 `json:"median_seconds"`
	P90Seconds     float64 `json:"p90_seconds"`
	LongestSeconds float64 `json:"longest_seconds"`
}

// Percentiles are those of percentile_cont over whole seconds. Sessions of one length are
// counted first, which parallel workers share; percentile_cont would have one process sort
// all sessions.
const sessionsSQL = `
WITH begun AS (
    SELECT s.app, (s.started_at AT TIME ZONE $4)::date AS day, round(s.estimated_seconds) AS seconds,
           count(*) AS sessions, count(*) FILTER (WHERE s.ended_by = 'gap') AS cut, count(*) FILTER (WHERE s.ended_by = 'open') AS open,
           max(s.estimated_seconds) AS longest
    FROM syncer.presence_session AS s
    WHERE s.started_at >= $2 AND s.started_at < $3 AND ($1::text IS NULL OR s.app = $1)
    GROUP BY 1, 2, 3
), summed AS (
    SELECT app, day, seconds, sum(sessions)::bigint AS sessions, sum(cut)::bigint AS cut, sum(open)::bigint AS open, max(longest) AS longest
    FROM begun
    GROUP BY GROUPING SETS ((app, day, seconds), (app, seconds))
), ranked AS (
    SELECT s.*, sum(sessions) OVER shorter AS up_to, 0.5 * (sum(sessions) OVER all_of - 1) AS median_at, 0.9 * (sum(sessions) OVER all_of - 1) AS p90_at
    FROM summed AS s
    WINDOW all_of AS (PARTITION BY app, day), shorter AS (PARTITION BY app, day ORDER BY seconds)
), percentile AS ( -- between the two sessions next to its place
    SELECT app, day, sum(sessions)::bigint AS sessions, sum(cut)::bigint AS cut, sum(open)::bigint AS open, max(longest) AS longest,
           max(median_at - floor(median_at)) AS median_part, max(p90_at - floor(p90_at)) AS p90_part,
           min(seconds) FILTER (WHERE up_to > floor(median_at)) AS median_low, min(seconds) FILTER (WHERE up_to > ceil(median_at)) AS median_high,
           min(seconds) FILTER (WHERE up_to > floor(p90_at)) AS p90_low, min(seconds) FILTER (WHERE up_to > ceil(p90_at)) AS p90_high
    FROM ranked
    GROUP BY app, day
)
SELECT app, to_char(day, 'YYYY-MM-DD'), sessions, cut, open,
       median_low + median_part * (median_high - median_low), p90_low + p90_part * (p90_high - p90_low), longest
FROM percentile
ORDER BY app, day`

// Sessions returns summaries of the sessions that began within the span.
func (r *Reader) Sessions(ctx context.Context, s Span) (byDay, overall []SessionsRow, err error) {
	rows, err := read[SessionsRow](ctx, r, "the sessions", sessionsSQL, s.App, s.From, s.To, s.Location.String())
	for _, row := range rows {
		if row.Day == nil {
			overall = append(overall, row)
		} else {
			byDay = append(byDay, row)
		}
	}
	return byDay, overall, err
}

// SessionRow is one session of one user.
type SessionRow struct {
	App              string     `json:"app"`
	UserID           string     `json:"user_id"`
	StartedAfter     *time.Time `json:"started_after"`
	StartedAt        time.Time  `json:"started_at"`
	EndedAfter       *time.Time `json:"ended_after"`
	EndedAt          *time.Time `json:"ended_at"`
	KnownSeconds     float64    `json:"known_seconds"`
	EstimatedSeconds float64    `json:"estimated_seconds"`
	EndedBy          string     `json:"ended_by"`
}

const longestSessionsSQL = `
SELECT s.app, s.user_id, s.started_after, s.started_at, s.ended_after, s.ended_at,
       s.known_seconds, s.estimated_seconds, s.ended_by::text
FROM syncer.presence_session AS s
WHERE s.started_at >= $2 AND s.started_at < $3 AND ($1::text IS NULL OR s.app = $1)
ORDER BY s.estimated_seconds DESC, s.app, s.user_id, s.started_at
LIMIT $4`

// LongestSessions returns the longest sessions that began within the span, the longest
// first. They name users.
func (r *Reader) LongestSessions(ctx context.Context, s Span, limit int) ([]SessionRow, error) {
	return read[SessionRow](ctx, r, "the longest sessions", longestSessionsSQL, s.App, s.From, s.To, limit)
}

// PlatformRow is the number of users of an app online on a platform, over the complete
// runs of the span.
type PlatformRow struct {
	App      string  `json:"app"`
	Platform string  `json:"platform"`
	UsersAvg float64 `json:"users_avg"`
	UsersMax int64   `json:"users_max"`
	Share    float64 `json:"share"` // of the users online; a user on two platforms counts for both
}

const platformsSQL = `
WITH seen AS (
    SELECT c.app, c.online, c.platforms
    FROM syncer.presence_concurrency AS c
    WHERE c.observed_at >= $2 AND c.observed_at < $3 AND ($1::text IS NULL OR c.app = $1)
), total AS (
    SELECT app, count(*) AS runs, sum(online) AS online
    FROM seen
    GROUP BY app
)
SELECT s.app, p.platform, (sum(p.users::bigint) / t.runs)::float8, max(p.users::bigint), (sum(p.users::bigint) / t.online)::float8
FROM seen AS s
JOIN total AS t ON t.app = s.app
CROSS JOIN LATERAL jsonb_each_text(s.platforms) AS p (platform, users)
WHERE t.online > 0
GROUP BY s.app, p.platform, t.runs, t.online
ORDER BY s.app, 3 DESC, p.platform`

// Platforms returns how the users online were spread over platforms.
func (r *Reader) Platforms(ctx context.Context, s Span) ([]PlatformRow, error) {
	return read[PlatformRow](ctx, r, "the platforms", platformsSQL, s.App, s.From, s.To)
}

// DevicesRow is how many of the users of an app who are online now use more than one
// platform.
type DevicesRow struct {
	App           string   `json:"app"`
	Online        int64    `json:"online"`
	MultiPlatform int64    `json:"multi_platform"`
	Share         *float64 `json:"share"` // nil: no user is online
}

// A stale presence may have changed since.
const devicesSQL = `
SELECT c.app, count(*), count(*) FILTER (WHERE d.devices > 1),
       (count(*) FILTER (WHERE d.devices > 1))::float8 / nullif(count(*), 0)
FROM syncer.presence_current AS c
CROSS JOIN LATERAL (
    SELECT count(*) AS devices
    FROM jsonb_each_text(c.platforms) AS p (platform, state)
    WHERE p.state <> 'push_online'
) AS d
WHERE c.state = 'online' AND NOT c.stale AND ($1::text IS NULL OR c.app = $1)
GROUP BY c.app
ORDER BY c.app`

// Devices returns how many of the users online now use more than one platform.
func (r *Reader) Devices(ctx context.Context, s Span) ([]DevicesRow, error) {
	return read[DevicesRow](ctx, r, "who uses several platforms", devicesSQL, s.App)
}
