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

// QueueChannel returns the name, after the schema and a dot, of the channel on which
// work is announced. Only workers can read it, so that no other role can send on it.
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

// The words are those in which the queue's own clients announce a new job.
const announceSQL = `
SELECT pg_notify($1 || '.' || name, jsonb_build_object('queue', $2::text)::text)
FROM syncer.queue_channel`

// Announce tells all processes, when tx is committed, that a queue has a new job.
func (s *Store) Announce(ctx context.Context, tx pgx.Tx, queue string) error {
	if _, err := tx.Exec(ctx, s.SQL(announceSQL), s.Schema(), queue); err != nil {
		return fmt.Errorf("announce a job: %w", err)
	}
	return nil
}

// A job of the queue can become due without an announcement: its time comes (a
// snooze, a retry), or it is given back. now() is the clock by which the queue's
// clients take jobs, even where Store.Now is a simulation's.
const announceDueSQL = `
SELECT pg_notify($1 || '.' || name, jsonb_build_object('queue', due.queue)::text)
FROM syncer.queue_channel, (
    SELECT DISTINCT queue
    FROM syncer.river_job
    WHERE state = 'available' AND scheduled_at <= now() AND queue = ANY ($2)
) AS due`

// AnnounceDue tells all processes of the given queues that have jobs to be
// worked on. Each of them asks then for as many as it has workers free.
func (s *Store) AnnounceDue(ctx context.Context, queues []string) error {
	if _, err := s.Exec(ctx, announceDueSQL, s.Schema(), queues); err != nil {
		return fmt.Errorf("announce due jobs: %w", err)
	}
	return nil
}
