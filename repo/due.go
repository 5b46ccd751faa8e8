package repo

import (
	"context"
	"fmt"
)

// A job of the queue can become due without anybody being told: its time comes
// (a snooze, a retry), it is given back, or its announcement was left out
// because another one had just gone out. The channel and the words are those of
// the queue's own clients. now() is the clock by which they take jobs, even
// where Store.Now is a simulation's.
const announceDueSQL = `
SELECT pg_notify($1 || '.river_insert', jsonb_build_object('queue', due.queue)::text)
FROM (
    SELECT DISTINCT queue
    FROM syncer.river_job
    WHERE state = 'available' AND scheduled_at <= now() AND queue = ANY ($2)
) AS due`

// AnnounceDue tells all processes of the given queues that have jobs to be
// worked on. Each of them asks then for as many as it has workers free.
func (s *Store) AnnounceDue(ctx context.Context, queues []string) error {
	if _, err := s.pool.Exec(ctx, s.sql(announceDueSQL), s.schema, queues); err != nil {
		return fmt.Errorf("announce due jobs: %w", err)
	}
	return nil
}
