package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"syncer/repo"
)

// queue is River's client: it hands the planning of runs, and their ranges, to the
// workers of any process.
type queue struct {
	*shared
	client *river.Client[pgx.Tx]
	names  []string
}

func newQueue(s *shared, w *workers) (*queue, error) {
	q := &queue{shared: s}
	queues := make(map[string]river.QueueConfig, len(s.lanes))
	for name := range s.lanes {
		queues[name] = river.QueueConfig{MaxWorkers: s.config.Workers}
		q.names = append(q.names, name)
	}
	registry := river.NewWorkers()
	river.AddWorker(registry, &planWorker{workers: w})
	river.AddWorker(registry, &rangeWorker{workers: w})
	clock := &queueClock{store: s.store}
	var err error
	q.client, err = river.NewClient(queueDriver{riverpgxv5.New(s.store.Pool()), s.store}, &river.Config{
		ID:      s.store.Process(),
		Schema:  s.store.Schema(),
		Queues:  queues,
		Workers: registry,
		// A range takes as long as the quota makes it. The keeper notices a worker
		// that is gone by its missing signs of life.
		JobTimeout:           -1,
		RescueStuckJobsAfter: 24 * time.Hour,
		// A queue polls once in a cooldown, however many jobs are announced.
		FetchCooldown:     river.FetchCooldownMin,
		FetchPollInterval: pollInterval(s.store.PollOnly(), len(queues)),
		PollOnly:          s.store.PollOnly(),
		// sync_run has what is worth knowing about finished jobs. At a run every few
		// seconds of each of many apps a day's worth would be millions.
		CompletedJobRetentionPeriod: 10 * time.Minute,
		ReindexerSchedule:           s.config.reindexSchedule(),
		Logger:                      slog.New(&queueLog{log: s.log}),
		// The only way to set a clock, in spite of its name.
		Test:  river.TestConfig{Time: clock},
		Hooks: []rivertype.Hook{clock},
	})
	if err != nil {
		return nil, fmt.Errorf("make the queue's client: %w", err)
	}
	return q, nil
}

// If every queue polled every second, fifty apps at rest would send a hundred
// statements a second. Instead each engine looks once for all its queues
// (announceEvery), and a queue polls when work is announced. In case the
// listening connection is lost, each polls now and then (fetchPoll, or all of
// them ten times a second).
const (
	announceEvery = time.Second
	fetchPoll     = 5 * time.Second
)

// pollInterval returns how often a queue polls. With pollOnly, for connections
// that cannot listen, new jobs are found that way: each second, or less often if
// that would make more than twenty statements a second.
func pollInterval(pollOnly bool, queues int) time.Duration {
	const gap = 50 * time.Millisecond
	if pollOnly {
		return max(announceEvery, time.Duration(queues)*gap)
	}
	return max(fetchPoll, time.Duration(queues)*2*gap)
}

// reindexSchedule returns when the queue rebuilds its indexes; nil is each midnight.
func (c Config) reindexSchedule() river.PeriodicSchedule {
	if c.Reindex {
		return nil
	}
	return river.NeverSchedule()
}

func (q *queue) start(ctx context.Context) error {
	if err := q.client.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start the queue's client: %w", err)
	}
	return nil
}

// stop waits for the jobs that are being worked on until ctx ends, and then
// cancels them.
func (q *queue) stop(ctx context.Context) error {
	if q.client.Stop(ctx) == nil {
		return nil
	}
	const hardStop = 5 * time.Second // to return ranges once their calls are cancelled
	hardCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hardStop)
	defer cancel()
	if err := q.client.StopAndCancel(hardCtx); err != nil {
		return fmt.Errorf("stop the queue's client: %w", err)
	}
	return nil
}

// enqueue returns a function that inserts the work on a range, or the planning of
// a run, into the queue.
func (q *queue) enqueue(ctx context.Context) repo.Enqueue {
	return func(tx pgx.Tx, run repo.Run, rangeNo int) (int64, error) {
		var args river.JobArgs = rangeArgs{RunID: run.ID, RangeNo: rangeNo}
		if rangeNo == repo.PlanRange {
			args = planArgs{RunID: run.ID}
		}
		inserted, err := q.client.InsertTx(ctx, tx, args, &river.InsertOpts{Queue: queueName(run.AppID, run.Kind)})
		if err != nil {
			return 0, fmt.Errorf("insert a job into the queue: %w", err)
		}
		if err := q.store.Announce(ctx, tx, inserted.Job.Queue); err != nil {
			return 0, err
		}
		return inserted.Job.ID, nil
	}
}

// announce wakes the queues, in all processes, that have jobs due.
func (q *queue) announce(ctx context.Context) error { return q.store.AnnounceDue(ctx, q.names) }

// run starts a run and enqueues its planning. See repo.Store.StartRun for its errors.
func (q *queue) run(ctx context.Context, n repo.NewRun) (int64, error) {
	return q.store.StartRun(ctx, n, func(tx pgx.Tx, runID int64) (int64, error) {
		return q.enqueue(ctx)(tx, repo.Run{ID: runID, AppID: n.AppID, Kind: n.Kind}, repo.PlanRange)
	})
}
