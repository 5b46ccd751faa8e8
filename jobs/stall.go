package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"syncer/repo"
)

// ErrStalled reports that work is due and does not reach this process, which has
// workers free for it, or that a tick is due and no process records it. Any cause is
// possible: a paused queue, a changed table of the queue, a lock.
var ErrStalled = errors.New("work is due, and is not being taken up")

// leastStall is how long work waits at least before it counts as stalled. A tick may be
// a minute late after the machine was suspended, see longestWait, and a worker that
// cannot begin may take tickTimeout to notice.
const leastStall = 2 * time.Minute

// stalls counts for how many rounds of the housekeeping in a row the same work has been
// due. It counts rounds, not time: while the process is frozen, or the database away,
// there are none.
type stalls struct {
	mu     sync.Mutex
	queues map[string]stall
	jobs   map[followed]stall
	found  atomic.Pointer[error]
}

// stall is work that was due in a number of rounds, with what would have changed if it
// had been taken up.
type stall struct {
	rounds int
	claims int64
	newest time.Time
}

// watchWork looks for work that stalls. While it finds some, the process is not
// ready.
func (k *keeper) watchWork(ctx context.Context) error {
	if k.isStopping() {
		return nil
	}
	s := &k.stalls
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled := make(map[string]string) // by queue
	err := errors.Join(k.watchQueues(ctx, stalled), k.watchTicks(ctx, stalled))
	var found error
	for name, l := range k.lanes {
		what, ok := stalled[name]
		k.config.Metrics.stalled.WithLabelValues(l.app.Name, string(l.queue.Kind)).Set(oneIf(ok))
		if ok {
			found = errors.Join(found, fmt.Errorf("%w: %s of app %s: %s", ErrStalled, l.queue.Kind, l.app.Name, what))
			k.warnings.warn(l.app.Name, ErrStalled.Error(), errors.New(what), func(event *zerolog.Event) { event.Str("kind", string(l.queue.Kind)) })
		}
	}
	if found == nil {
		s.found.Store(nil)
	} else {
		s.found.Store(&found)
	}
	return err
}

// watchQueues adds the queues whose work stalls. While all workers of this process
// are busy, or while it gets other work, waiting work does not count.
func (k *keeper) watchQueues(ctx context.Context, stalled map[string]string) error {
	queues := make([]repo.QueueOf, 0, len(k.lanes))
	for _, l := range k.lanes {
		queues = append(queues, l.queue)
	}
	waiting, err := k.store.WaitingWork(ctx, queues)
	before := k.stalls.queues
	k.stalls.queues = make(map[string]stall)
	if err != nil {
		return err
	}
	for _, w := range waiting {
		l := k.lanes[w.Queue.Name]
		now := stall{claims: l.claims.Load()}
		if l.working.Load() >= int64(k.config.Workers) {
			continue
		}
		if was, ok := before[w.Queue.Name]; ok && was.claims == now.claims {
			now.rounds = was.rounds + 1
		}
		k.stalls.queues[w.Queue.Name] = now
		if now.rounds >= k.stallRounds {
			stalled[w.Queue.Name] = k.store.Describe(w)
		}
	}
	return nil
}

// watchTicks adds the queues of jobs of which a tick is due and not recorded.
func (k *keeper) watchTicks(ctx context.Context, stalled map[string]string) error {
	watched := k.scheduler.watched.Load()
	before := k.stalls.jobs
	k.stalls.jobs = make(map[followed]stall)
	if watched == nil {
		return nil
	}
	wanted := make([]repo.AppJob, len(*watched))
	for i, w := range *watched {
		wanted[i] = repo.AppJob{AppID: w.appID, Kind: w.kind, Job: w.followed.job}
	}
	newest, err := k.store.NewestTicks(ctx, wanted)
	if err != nil {
		return err
	}
	for i, w := range *watched {
		after := newest[i]
		if w.from.After(after) {
			after = w.from
		}
		due := lastTick(w.job.Schedule, after, k.store.Now())
		if due.IsZero() {
			continue
		}
		now := stall{newest: newest[i]}
		if was, ok := before[w.followed]; ok && was.newest.Equal(now.newest) {
			now.rounds = was.rounds + 1
		}
		k.stalls.jobs[w.followed] = now
		if now.rounds >= k.stallRounds {
			stalled[queueName(w.appID, w.kind)] = fmt.Sprintf("the tick of job %s at %s has not been recorded", w.followed.job, due.Format("2006-01-02 15:04:05 UTC"))
		}
	}
	return nil
}

// stallRounds returns how many rounds of the housekeeping work has to wait to count as
// stalled.
func stallRounds(rescueAfter time.Duration) int {
	return int((6*max(2*rescueAfter, leastStall) + rescueAfter - 1) / rescueAfter)
}
