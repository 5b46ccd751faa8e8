package repo

import "context"

const newestTimeSQL = `
SELECT clock_timestamp(), greatest(
    (SELECT max(greatest(answered_at, throttled_at)) FROM syncer.api_quota),
    (SELECT greatest(started_at, finished_at) FROM syncer.sync_run ORDER BY run_id DESC LIMIT 1))`

// ReadClock is pg.DB.ReadClock, with the newest time that the tables have.
func (s *Store) ReadClock(ctx context.Context) error { return s.DB.ReadClock(ctx, newestTimeSQL) }

// CheckClock is pg.DB.CheckClock, with the newest time that the tables have.
func (s *Store) CheckClock(ctx context.Context) error { return s.DB.CheckClock(ctx, newestTimeSQL) }
