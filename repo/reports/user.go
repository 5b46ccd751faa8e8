package reports

import (
	"context"
	"time"

	"syncer/imclient"
)

// KnownValue is the snapshot of one user in one kind.
type KnownValue struct {
	Value         string // state or status
	Platforms     map[string]string
	SinceAfter    *time.Time // it began after this; nil: the user was first seen with it, or that is not kept
	Since         time.Time
	ToldAt        *time.Time // when it began by the provider, from a hook; nil: no hook reported it
	LastCheckedAt time.Time
	Stale         bool
}

const knownPresenceSQL = `
SELECT c.state::text, c.platforms, c.since_after, c.since, c.told_at, c.last_checked_at, c.stale
FROM syncer.presence_current AS c
WHERE c.app_id = $1 AND c.user_id = $2`

const knownAccountSQL = `
SELECT c.status::text, '{}'::jsonb, NULL::timestamptz, c.since, NULL::timestamptz, c.last_checked_at, c.stale
FROM syncer.account_current AS c
WHERE c.app_id = $1 AND c.user_id = $2`

// FailureOf is the failure of one user in one kind.
type FailureOf struct {
	Code, Message   string
	FirstAt, LastAt time.Time // a lasting failure is recorded once an hour
	Times           int64
	KnownAt         *time.Time
}

const failureOfSQL = `
SELECT code, message, first_at, last_at, times, known_at
FROM syncer.user_failure
WHERE app_id = $1 AND kind = $2 AND user_id = $3`

// ChangeOf is a transition of one user.
type ChangeOf struct {
	Prev           *string    // nil: first seen
	PrevSinceAfter *time.Time // presence only: the bracket of the beginning of Prev
	PrevSince      *time.Time
	Value          string
	Platforms      map[string]string
	NotBefore      *time.Time
	ObservedAt     time.Time
	ToldAt         *time.Time // by the provider, from a hook; nil: no hook reported it
	RunID          int64
}

const presenceChangesSQL = `
SELECT prev_state::text, prev_since_after, prev_since, state::text, platforms, not_before, observed_at, told_at, run_id
FROM syncer.presence_history
WHERE app_id = $1 AND user_id = $2
ORDER BY observed_at DESC
LIMIT $3`

const accountChangesSQL = `
SELECT prev_status::text, NULL::timestamptz, NULL::timestamptz, status::text, '{}'::jsonb, not_before, observed_at, NULL::timestamptz, run_id
FROM syncer.account_history
WHERE app_id = $1 AND user_id = $2
ORDER BY observed_at DESC
LIMIT $3`

const openGapSQL = `
SELECT started_at
FROM syncer.sync_gap
WHERE app_id = $1 AND kind = $2 AND ended_at IS NULL`

// DayOf is a rolled-up day on which the user was online.
type DayOf struct {
	Day           time.Time
	OnlineSeconds float64
	Sessions      int64
	FirstOnline   time.Time
	LastOnline    time.Time
}

// By index: the key of presence_day has the day before the user.
const daysSQL = `
SELECT day, online_seconds, sessions, first_online, last_online
FROM syncer.presence_day
WHERE app_id = $1 AND user_id = $2
  AND day IN (SELECT generate_series(min(d.day), max(d.day), '1 day')::date FROM syncer.presence_day AS d WHERE d.app_id = $1)
ORDER BY day DESC`

// UserStory is what is known of one user of an app in one kind, and of the runs of that
// kind. What does not exist is nil.
type UserStory struct {
	Known        *KnownValue
	Failure      *FailureOf
	Changes      []ChangeOf // the newest first
	Days         []DayOf    // presence only, the newest first
	LastComplete *RunRow
	LastClosed   *RunRow // without skipped ticks and hints
	Hints        *RunRow // the newest work on hints
	Running      *RunRow
	GapSince     *time.Time // users have not been observed since
}

// closedStatuses are those of runs that ended, without skipped ticks.
var closedStatuses = []string{"succeeded", "partial", "failed", "cancelled"}

// Story returns what is known of a user of an app in one kind, with at most so many changes
// or, if changes is nil, with all of them and the rolled-up days.
func (r *Reader) Story(ctx context.Context, appID int16, app string, kind imclient.Kind, userID string, changes *int) (s UserStory, err error) {
	known, history := knownPresenceSQL, presenceChangesSQL
	if kind == imclient.KindAccounts {
		known, history = knownAccountSQL, accountChangesSQL
	}
	if s.Known, err = readOne[KnownValue](ctx, r, "what is known of the user", known, appID, userID); err != nil {
		return s, err
	}
	if s.Failure, err = r.FailureOf(ctx, appID, kind, userID); err != nil {
		return s, err
	}
	if s.Changes, err = read[ChangeOf](ctx, r, "the user's history", history, appID, userID, changes); err != nil {
		return s, err
	}
	if changes == nil && kind == imclient.KindPresence {
		if s.Days, err = read[DayOf](ctx, r, "the user's days", daysSQL, appID, userID); err != nil {
			return s, err
		}
	}
	ofKind := string(kind)
	for _, wanted := range []struct {
		run    **RunRow
		filter RunFilter
	}{
		{&s.LastComplete, RunFilter{Complete: true}},
		{&s.Hints, RunFilter{Hints: new(true)}},
		{&s.LastClosed, RunFilter{Statuses: closedStatuses, Hints: new(false)}},
		{&s.Running, RunFilter{Statuses: []string{"running"}}},
	} {
		wanted.filter.App, wanted.filter.Kind, wanted.filter.Limit = &app, &ofKind, 1
		runs, err := r.LatestRuns(ctx, wanted.filter)
		if err != nil {
			return s, err
		}
		if len(runs) > 0 {
			*wanted.run = &runs[0]
		}
	}
	gap, err := readOne[struct{ StartedAt time.Time }](ctx, r, "whether there is an open gap", openGapSQL, appID, kind)
	if gap != nil {
		s.GapSince = &gap.StartedAt
	}
	return s, err
}

// FailureOf returns the failure of a user, nil if there is none.
func (r *Reader) FailureOf(ctx context.Context, appID int16, kind imclient.Kind, userID string) (*FailureOf, error) {
	return readOne[FailureOf](ctx, r, "whether the user fails", failureOfSQL, appID, kind, userID)
}

const lastTickSQL = `
SELECT max(tick)
FROM syncer.sync_run
WHERE app_id = $1 AND kind = $2 AND job = $3`

// LastTick returns the newest recorded tick of a job, nil if there is none.
func (r *Reader) LastTick(ctx context.Context, appID int16, kind imclient.Kind, job string) (*time.Time, error) {
	tick, err := readOne[struct{ Tick *time.Time }](ctx, r, "the last tick", lastTickSQL, appID, kind, job)
	if err != nil || tick == nil {
		return nil, err
	}
	return tick.Tick, nil
}
