package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"syncer/internal/pg"
)

// ErrHistoryInUse reports that maintenance gave way to another session that uses a history,
// such as a long report, or maintains it. What needs no lock on it is done; the caller can
// retry the rest soon.
var ErrHistoryInUse = errors.New("another session uses the history")

// inUse returns ErrHistoryInUse with the sessions.
func (s *Store) inUse(ctx context.Context) error {
	const lockTimeout = 800 * time.Millisecond // of the functions
	tables := quoted(s.Schema(), []string{"presence_history", "account_history"})
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	sessions, err := pg.Using(ctx, s, tables, lockTimeout)
	if err != nil {
		return errors.Join(ErrHistoryInUse, err)
	}
	return fmt.Errorf("%w: %s", ErrHistoryInUse, pg.Describe(sessions))
}

const makePartitionsSQL = `SELECT syncer.make_history_partitions($1, $2, $3)`

// MakePartitions makes the missing partitions of both histories until a time, and returns
// their number. period is day, week or month. Rows without a partition are in the default
// one, from which they are moved, so making partitions late loses nothing. It returns
// ErrHistoryInUse if a history is locked.
func (s *Store) MakePartitions(ctx context.Context, period string, until time.Time) (int, error) {
	made, err := s.changePartitions(ctx, makePartitionsSQL, period, s.Now(), until)
	if err != nil {
		return made, fmt.Errorf("make history partitions: %w", err)
	}
	return made, nil
}

const dropPartitionsSQL = `SELECT syncer.drop_history_partitions($1)`

// DropPartitions drops the partitions that end at or before a time, and older rows of the
// default partitions. It returns the number dropped, and ErrHistoryInUse if a history is
// locked.
func (s *Store) DropPartitions(ctx context.Context, before time.Time) (int, error) {
	dropped, err := s.changePartitions(ctx, dropPartitionsSQL, before)
	if err != nil {
		return dropped, fmt.Errorf("drop history partitions: %w", err)
	}
	return dropped, nil
}

// mostPartitions limits the partitions changed in one round of maintenance. Two dozen are
// usual.
const mostPartitions = 250

// changePartitions calls a function, which changes a few partitions in one transaction,
// until it changes none, or mostPartitions are changed.
func (s *Store) changePartitions(ctx context.Context, statement string, args ...any) (int, error) {
	for all := 0; ; {
		var changed *int
		err := s.Patient().QueryRow(ctx, statement, args...).Scan(&changed)
		switch {
		case err == nil && changed == nil || pg.SQLState(err) == pg.LockNotAvailable:
			return all, s.inUse(ctx)
		case pg.SQLState(err) == pg.InsufficientPrivilege:
			return all, fmt.Errorf("this role may not; the owner of schema %s lets it with: syncer grant-worker: %w", s.Schema(), err)
		case err != nil:
			return all, err
		}
		if all += *changed; *changed == 0 || all >= mostPartitions {
			return all, nil
		}
	}
}

// Lists and ranges are deleted in one statement: see leftSQL.
const dropOldRangesSQL = `
WITH lists AS (
    DELETE FROM syncer.sync_run_user AS l
    USING syncer.sync_run AS u
    WHERE u.run_id = l.run_id
      AND u.finished_at < $1
)
DELETE FROM syncer.sync_range AS r
USING syncer.sync_run AS u
WHERE u.run_id = r.run_id
  AND u.finished_at < $1`

// DropOldRanges deletes the ranges and lists of users of runs that were closed before a
// time, which then cannot be resumed. It returns the number of ranges deleted.
func (s *Store) DropOldRanges(ctx context.Context, before time.Time) (int64, error) {
	tag, err := s.Patient().Exec(ctx, dropOldRangesSQL, before)
	if err != nil {
		return 0, fmt.Errorf("drop old ranges: %w", err)
	}
	return tag.RowsAffected(), nil
}

// Later runs need the newest complete run of an app and kind (startRunSQL) and the newest
// tick of a job (lastTickSQL), so these stay, as does a run that may be resumed.
const dropOldRunsSQL = `
WITH dropped AS (
    DELETE FROM syncer.sync_run
    WHERE finished_at < $1 AND run_id IN (
        SELECT u.run_id
        FROM syncer.sync_run AS u
        WHERE u.finished_at < $1
          AND (NOT u.complete OR EXISTS (
              SELECT FROM syncer.sync_run AS n
              WHERE n.app_id = u.app_id AND n.kind = u.kind AND n.complete AND n.started_at > u.started_at
          ))
          AND (u.tick IS NULL OR EXISTS (
              SELECT FROM syncer.sync_run AS n
              WHERE n.app_id = u.app_id AND n.kind = u.kind AND n.job = u.job AND n.tick > u.tick
          ))
          AND NOT EXISTS (SELECT FROM syncer.sync_range AS r WHERE r.run_id = u.run_id)
        LIMIT $2
    )
    RETURNING app_id, run_id
), counts AS (
    DELETE FROM syncer.presence_count AS c
    USING dropped AS d
    WHERE c.app_id = d.app_id AND c.run_id = d.run_id
)
SELECT count(*) FROM dropped`

// A gap is the part of a stretch that was not observed, so it stays as long as any stretch
// that it may have interrupted: one that is still open, or one whose end is in the
// history.
const dropOldGapsSQL = `
DELETE FROM syncer.observation_gap AS g
WHERE g.next_seen_by < $1
  AND NOT CASE g.kind
      WHEN 'presence' THEN
          EXISTS (SELECT FROM syncer.presence_snapshot AS s WHERE s.app_id = g.app_id AND s.since <= g.next_seen_by)
          OR EXISTS (SELECT FROM syncer.presence_history AS h WHERE h.app_id = g.app_id AND h.prev_since <= g.next_seen_by AND h.observed_at >= g.started_at)
      ELSE
          EXISTS (SELECT FROM syncer.account_snapshot AS s WHERE s.app_id = g.app_id AND s.changed_at <= g.next_seen_by)
          OR EXISTS (SELECT FROM syncer.account_history AS h WHERE h.app_id = g.app_id AND h.not_before <= g.next_seen_by AND h.observed_at >= g.started_at)
      END`

// runsDropped is the number of runs deleted at once, with up to 40 counts each.
const runsDropped = 5000

// DropOldRuns deletes what has no history left: the runs that were closed before a time, with
// their counts, and the gaps that had ended by then. It returns the number of runs deleted.
func (s *Store) DropOldRuns(ctx context.Context, before time.Time) (int64, error) {
	db := s.Patient()
	if _, err := db.Exec(ctx, dropOldGapsSQL, before); err != nil {
		return 0, fmt.Errorf("drop old gaps: %w", err)
	}
	for all := int64(0); ; {
		var dropped int64
		if err := db.QueryRow(ctx, dropOldRunsSQL, before, runsDropped).Scan(&dropped); err != nil {
			return all, fmt.Errorf("drop old runs: %w", err)
		}
		all += dropped
		if dropped < runsDropped {
			return all, nil
		}
	}
}
