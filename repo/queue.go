package repo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

const queueChannelSQL = `
SELECT name
FROM syncer.queue_channel`

// QueueChannel returns the name, without the schema and a dot, of the channel on which work
// is announced. Only workers can read it, so that no other role can send on it.
func (s *Store) QueueChannel(ctx context.Context) (string, error) {
	var name string
	err := s.QueryRow(ctx, queueChannelSQL).Scan(&name)
	if pg.SQLState(err) == pg.InsufficientPrivilege {
		return "", fmt.Errorf("find the channel of the queue: %w; the owner of schema %s grants it with: syncer grant-worker", err, s.Schema())
	}
	if err != nil {
		return "", fmt.Errorf("find the channel of the queue: %w", err)
	}
	return name, nil
}

// The payload is that of the queue's own clients.
const announceSQL = `
SELECT pg_notify($1 || '.' || name, jsonb_build_object('queue', $2::text)::text)
FROM syncer.queue_channel`

// Announce notifies all processes, when tx is committed, that a queue has a new job.
func (s *Store) Announce(ctx context.Context, tx pgx.Tx, queue string) error {
	if _, err := tx.Exec(ctx, s.SQL(announceSQL), s.Schema(), queue); err != nil {
		return fmt.Errorf("announce a job: %w", err)
	}
	return nil
}

// A job can become due without an announcement: after a snooze or a retry, or if it is
// given back. The queue's clients take jobs by now(), also where Store.Now is simulated.
const announceDueSQL = `
SELECT pg_notify($1 || '.' || name, jsonb_build_object('queue', due.queue)::text)
FROM syncer.queue_channel, (
    SELECT DISTINCT queue
    FROM syncer.river_job
    WHERE state = 'available' AND scheduled_at <= now() AND queue = ANY ($2)
) AS due`

// AnnounceDue notifies all processes of those of the queues that have due jobs. Each
// process then takes as many as it has free workers.
func (s *Store) AnnounceDue(ctx context.Context, queues []string) error {
	if _, err := s.Exec(ctx, announceDueSQL, s.Schema(), queues); err != nil {
		return fmt.Errorf("announce due jobs: %w", err)
	}
	return nil
}
