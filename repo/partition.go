package repo

import (
	"context"
	"fmt"
	"time"
)

const makePartitionsSQL = `SELECT syncer.make_history_partitions($1, $2, $3)`

// MakePartitions makes the partitions of both histories that are missing from
// now until the given time; period is day, week or month. Rows for which there
// is none go to the default partition, so being late is no failure.
func (s *Store) MakePartitions(ctx context.Context, period string, until time.Time) (int, error) {
	var made int
	if err := s.pool.QueryRow(ctx, s.sql(makePartitionsSQL), period, s.Now(), until).Scan(&made); err != nil {
		return 0, fmt.Errorf("make history partitions: %w", err)
	}
	return made, nil
}

const dropPartitionsSQL = `SELECT syncer.drop_history_partitions($1)`

// DropPartitions drops the partitions that end at or before the given time.
func (s *Store) DropPartitions(ctx context.Context, before time.Time) (int, error) {
	var dropped int
	if err := s.pool.QueryRow(ctx, s.sql(dropPartitionsSQL), before).Scan(&dropped); err != nil {
		return 0, fmt.Errorf("drop history partitions: %w", err)
	}
	return dropped, nil
}

// The lists go with the ranges, in one statement: see leftSQL.
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

// DropOldRanges removes the ranges, and the lists of users, of runs that were
// closed before the given time: nobody will resume or ask about them. It
// returns how many ranges it removed.
func (s *Store) DropOldRanges(ctx context.Context, before time.Time) (int64, error) {
	tag, err := s.pool.Exec(ctx, s.sql(dropOldRangesSQL), before)
	if err != nil {
		return 0, fmt.Errorf("drop old ranges: %w", err)
	}
	return tag.RowsAffected(), nil
}
