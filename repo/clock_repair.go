package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Rows dated after the present were recorded while the database's clock was ahead, by an
// unknown amount at each time. They are removed, and the values before them restored, as
// if syncer had not run while the clock was wrong.

// ErrNothingToRepair reports that nothing on record is dated after the present.
var ErrNothingToRepair = errors.New("nothing on record is dated after the present")

// ErrClocksDisagree reports that it is not certain what the present is.
var ErrClocksDisagree = errors.New("the database's clock and this machine's disagree")

// clocksAgree is how far apart the clocks of the database and of this machine may be. Rows
// within the difference would be removed wrongly.
const clocksAgree = time.Minute

// ClockRepair is what RepairClock did or, without apply, would do.
type ClockRepair struct {
	At         time.Time // the present; later rows are removed
	Newest     time.Time // the newest time on record
	Runs       int64     // removed or cancelled
	Rows       int64     // of the histories, removed
	Restored   int64     // users whose earlier value was restored, by kind
	Forgotten  int64     // users without a known value now, by kind
	Partitions int64     // dropped
	Connected  []string  // sessions of other processes, which the operator must stop first
}

const newestOfAllSQL = `
SELECT clock_timestamp(), greatest(
    (SELECT max(greatest(started_at, finished_at)) FROM syncer.sync_run),
    (SELECT max(greatest(answered_at, throttled_at)) FROM syncer.api_quota))`

const connectedSQL = `
SELECT DISTINCT application_name
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'syncer %' AND application_name <> $1
ORDER BY 1`

const ownsHistorySQL = `
SELECT pg_has_role(relowner, 'USAGE')
FROM pg_class
WHERE oid = 'syncer.presence_history'::regclass`

const repairAppsSQL = `
UPDATE syncer.app
SET created_at = least(created_at, $1)
RETURNING app_id`

// The first late row has the value before it. The platforms of that value, and when it was
// last written, are those of the row before. The user was last online at the newest end of a
// stretch online, unless first seen after it.
const repairPresenceSQL = `
WITH late AS (
    DELETE FROM syncer.presence_history
    WHERE app_id = $1 AND observed_at > $2
    RETURNING user_id, observed_at, prev_state, prev_since, prev_since_after, prev_told_at
), earliest AS (
    SELECT DISTINCT ON (user_id) user_id, prev_state, prev_since, prev_since_after, prev_told_at
    FROM late
    ORDER BY user_id, observed_at
), restored AS (
    INSERT INTO syncer.presence_snapshot AS s (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after, told_at, last_online_after, last_online_at)
    SELECT $1, e.user_id, e.prev_state, coalesce(l.platforms, '{}'), c.changed_at, least(u.started_at, c.changed_at), coalesce(l.run_id, 0), e.prev_since, e.prev_since_after, e.prev_told_at,
           o.not_before, CASE WHEN o.not_before IS NOT NULL THEN o.observed_at END
    FROM earliest AS e
    LEFT JOIN LATERAL (
        SELECT h.platforms, h.observed_at, h.run_id
        FROM syncer.presence_history AS h
        WHERE h.app_id = $1 AND h.user_id = e.user_id AND h.observed_at <= $2
        ORDER BY h.observed_at DESC
        LIMIT 1
    ) AS l ON true
    LEFT JOIN LATERAL (
        SELECT h.not_before, h.observed_at
        FROM syncer.presence_history AS h
        WHERE h.app_id = $1 AND h.user_id = e.user_id AND h.observed_at <= $2 AND e.prev_state <> 'online'
          AND (h.prev_state IS NULL OR h.prev_state = 'online' AND h.state <> 'online')
        ORDER BY h.observed_at DESC
        LIMIT 1
    ) AS o ON true
    LEFT JOIN syncer.sync_run AS u ON u.run_id = l.run_id
    CROSS JOIN LATERAL (SELECT greatest(e.prev_since, l.observed_at) AS changed_at) AS c
    WHERE e.prev_state IN ('online', 'push_online', 'offline')
    ON CONFLICT (app_id, user_id) DO UPDATE
    SET state = excluded.state, platforms = excluded.platforms, changed_at = excluded.changed_at, asked_at = excluded.asked_at,
        run_id = excluded.run_id, since = excluded.since, since_after = excluded.since_after,
        told_at = excluded.told_at, last_online_after = excluded.last_online_after, last_online_at = excluded.last_online_at
    RETURNING 1
)
SELECT (SELECT count(*) FROM late), (SELECT count(*) FROM restored)`

const repairAccountsSQL = `
WITH late AS (
    DELETE FROM syncer.account_history
    WHERE app_id = $1 AND observed_at > $2
    RETURNING user_id, observed_at, prev_status, not_before
), earliest AS (
    SELECT DISTINCT ON (user_id) user_id, prev_status, not_before
    FROM late
    ORDER BY user_id, observed_at
), restored AS (
    INSERT INTO syncer.account_snapshot AS s (app_id, user_id, status, changed_at, asked_at, run_id)
    SELECT $1, e.user_id, e.prev_status, c.changed_at, least(u.started_at, c.changed_at), coalesce(l.run_id, 0)
    FROM earliest AS e
    LEFT JOIN LATERAL (
        SELECT h.observed_at, h.run_id
        FROM syncer.account_history AS h
        WHERE h.app_id = $1 AND h.user_id = e.user_id AND h.observed_at <= $2
        ORDER BY h.observed_at DESC
        LIMIT 1
    ) AS l ON true
    LEFT JOIN syncer.sync_run AS u ON u.run_id = l.run_id
    CROSS JOIN LATERAL (SELECT coalesce(l.observed_at, CASE WHEN e.not_before <= $2 THEN e.not_before END) AS changed_at) AS c
    WHERE e.prev_status IN ('imported', 'not_imported') AND c.changed_at IS NOT NULL
    ON CONFLICT (app_id, user_id) DO UPDATE
    SET status = excluded.status, changed_at = excluded.changed_at, asked_at = excluded.asked_at, run_id = excluded.run_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM late), (SELECT count(*) FROM restored)`

const forgetPresenceSQL = `
DELETE FROM syncer.presence_snapshot
WHERE app_id = $1 AND changed_at > $2`

const forgetAccountsSQL = `
DELETE FROM syncer.account_snapshot
WHERE app_id = $1 AND changed_at > $2`

const forgetFailuresSQL = `
DELETE FROM syncer.user_failure
WHERE app_id = $1 AND first_at > $2`

const repairFailuresSQL = `
UPDATE syncer.user_failure
SET last_at = first_at
WHERE app_id = $1 AND last_at > $2`

const repairCountsSQL = `
DELETE FROM syncer.presence_count
WHERE app_id = $1 AND observed_at > $2`

const repairGapsSQL = `
DELETE FROM syncer.observation_gap
WHERE app_id = $1 AND next_seen_by > $2`

const forgetRunsSQL = `
DELETE FROM syncer.sync_run
WHERE app_id = $1 AND started_at > $2`

// Runs that are running, and those during which the clock jumped, observed at unknown times.
// No process works while this is executed.
const repairRunsSQL = `
UPDATE syncer.sync_run
SET status = 'cancelled', complete = false, finished_at = $2, suspect = false,
    observed_from = least(observed_from, $2), observed_until = CASE WHEN observed_until <= $2 THEN observed_until END,
    failures_recorded_at = CASE WHEN failures_recorded_at <= $2 THEN failures_recorded_at END, plan_beat_at = NULL, known_users = NULL, known_hash = NULL,
    error = concat_ws('; ', error, 'cancelled by syncer repair-clock: the database''s clock was ahead')
WHERE app_id = $1 AND (status = 'running' OR greatest(finished_at, observed_from, observed_until, failures_recorded_at, plan_beat_at) > $2)`

const repairRangesSQL = `
UPDATE syncer.sync_range
SET beat_at = NULL, page_at = CASE WHEN page_at > $1 THEN $1 ELSE page_at END, recheck_after = CASE WHEN recheck_after <= $1 THEN recheck_after END
WHERE greatest(beat_at, page_at, recheck_after) > $1`

// Days that no remaining run closes are rolled up again.
const repairRollupSQL = `
UPDATE syncer.presence_rollup AS r
SET until_day = least(r.until_day, k.closed_day),
    seen_until = least(r.seen_until, k.observed_from),
    kept_from = least(r.kept_from, $2),
    gaps = r.gaps * tstzmultirange(tstzrange(NULL, $2)),
    first_at = least(r.first_at, $2)
FROM (
    SELECT coalesce(max(u.observed_from), $2) AS observed_from, (coalesce(max(u.observed_from), $2) AT TIME ZONE p.zone)::date - 1 AS closed_day
    FROM syncer.presence_rollup AS p
    LEFT JOIN syncer.sync_run AS u ON u.app_id = p.app_id AND u.kind = 'presence' AND u.complete
    WHERE p.app_id = $1
    GROUP BY p.zone
) AS k
WHERE r.app_id = $1`

const repairDaysSQL = `
DELETE FROM syncer.presence_day AS d
USING syncer.presence_rollup AS r
WHERE d.app_id = $1 AND r.app_id = $1 AND d.day > r.until_day`

const repairQuotaSQL = `
UPDATE syncer.api_quota
SET next_at = least(next_at, $1),
    throttled_at = CASE WHEN throttled_at <= $1 THEN throttled_at END,
    answered_at = CASE WHEN answered_at <= $1 THEN answered_at END`

const repairJobsSQL = `
DELETE FROM syncer.river_job
WHERE finalized_at IS NULL OR finalized_at > $1`

const repairQueuesSQL = `
UPDATE syncer.river_queue
SET created_at = least(created_at, $1), updated_at = least(updated_at, $1), paused_at = CASE WHEN paused_at <= $1 THEN paused_at END`

const repairLeaderSQL = `
DELETE FROM syncer.river_leader`

const repairNotificationsSQL = `
DELETE FROM syncer.river_notification
WHERE created_at > $1`

const latePartitionsSQL = `
SELECT relation::text
FROM unnest(ARRAY['syncer.presence_history'::regclass, 'syncer.account_history'::regclass]) AS h (history)
CROSS JOIN LATERAL syncer.history_partitions(h.history)
WHERE lower_end > $1
ORDER BY 1`

// errDryRun rolls the transaction back.
var errDryRun = errors.New("dry run")

// RepairClock removes what is dated after the present, and restores the values before it. If
// apply is false, it only reports what it would do. The role must own the schema, and no
// other process may work. It returns ErrNothingToRepair if nothing is dated after the
// present, and ErrClocksDisagree unless this machine's clock agrees with the database's.
func (s *Store) RepairClock(ctx context.Context, apply bool) (ClockRepair, error) {
	var done ClockRepair
	err := s.Patient().InTxOnce(ctx, func(tx *pg.Tx) (err error) {
		if done, err = s.repairClock(ctx, tx); err == nil && !apply {
			return errDryRun
		}
		return err
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	if err != nil {
		return ClockRepair{}, fmt.Errorf("repair what was recorded under a wrong clock: %w", err)
	}
	return done, nil
}

func (s *Store) repairClock(ctx context.Context, tx *pg.Tx) (ClockRepair, error) {
	var done ClockRepair
	var newest *time.Time
	var owns bool
	if err := tx.QueryRow(ctx, ownsHistorySQL).Scan(&owns); err != nil {
		return done, err
	}
	if !owns {
		return done, fmt.Errorf("only the owner of schema %s may do this: connect as the role that runs syncer migrate", s.Schema())
	}
	if err := tx.QueryRow(ctx, newestOfAllSQL).Scan(&done.At, &newest); err != nil {
		return done, err
	}
	if machine := time.Now(); done.At.Sub(machine).Abs() > clocksAgree {
		return done, fmt.Errorf("%w: it says %s, this machine's %s; set the wrong one right first", ErrClocksDisagree, pg.Instant(done.At), pg.Instant(machine))
	}
	if newest == nil || newest.Sub(done.At) <= pg.ClockTolerance {
		return done, ErrNothingToRepair
	}
	done.Newest = *newest
	var err error
	if done.Connected, err = pg.Collect(ctx, tx, pgx.RowTo[string], connectedSQL, s.SessionName()); err != nil {
		return done, err
	}
	return done, s.removeLate(ctx, tx, &done)
}

// removeLate removes and restores, table by table.
func (s *Store) removeLate(ctx context.Context, tx *pg.Tx, done *ClockRepair) error {
	apps, err := pg.Collect(ctx, tx, pgx.RowTo[int16], repairAppsSQL, done.At)
	if err != nil {
		return err
	}
	run := func(count *int64, statement string, args ...any) error {
		tag, err := tx.Exec(ctx, statement, args...)
		if err == nil && count != nil {
			*count += tag.RowsAffected()
		}
		return err
	}
	for _, app := range apps {
		for _, statement := range []string{repairPresenceSQL, repairAccountsSQL} {
			var late, restored int64
			if err := tx.QueryRow(ctx, statement, app, done.At).Scan(&late, &restored); err != nil {
				return err
			}
			done.Rows += late
			done.Restored += restored
		}
		for _, step := range []struct {
			statement string
			count     *int64
		}{
			{forgetPresenceSQL, &done.Forgotten}, {forgetAccountsSQL, &done.Forgotten},
			{forgetFailuresSQL, nil}, {repairFailuresSQL, nil}, {repairCountsSQL, nil}, {repairGapsSQL, nil},
			{forgetRunsSQL, &done.Runs}, {repairRunsSQL, &done.Runs},
			{repairRollupSQL, nil}, // by the runs that are left
		} {
			if err := run(step.count, step.statement, app, done.At); err != nil {
				return err
			}
		}
		if err := run(nil, repairDaysSQL, app); err != nil {
			return err
		}
	}
	for _, statement := range []string{repairRangesSQL, repairQuotaSQL, repairJobsSQL, repairQueuesSQL, repairNotificationsSQL} {
		if err := run(nil, statement, done.At); err != nil {
			return err
		}
	}
	if err := run(nil, repairLeaderSQL); err != nil {
		return err
	}
	partitions, err := pg.Collect(ctx, tx, pgx.RowTo[string], latePartitionsSQL, done.At)
	for _, partition := range partitions { // quoted, and with the schema unless it is in search_path
		if err == nil {
			_, err = tx.Exec(ctx, "DROP TABLE "+partition)
			done.Partitions++
		}
	}
	return err
}
