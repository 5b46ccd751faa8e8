package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// ErrStalled reports that work is due and that this process, which has workers free for
// it, is not given any, or that a tick is due and no process records it. The cause may
// be anything: a queue that is paused, a table of the queue that was changed, a lock.
var ErrStalled = errors.New("work is due, and is not being taken up")

// leastStall is how long work waits at least before it counts as stalled. A tick may be
// a minute late after the machine was suspended, see longestWait, and a worker that
// cannot begin may take tickTimeout to notice.
const leastStall = 2 * time.Minute

// load is how busy this process is with one queue.
type load struct {
	app     string
	queue   repo.QueueOf
	working atomic.Int64 // jobs that it is working on
	claims  atomic.Int64 // ranges and plans that it has claimed so far
}

// begin counts a job until done is called.
func (l *load) begin() (done func()) {
	l.working.Add(1)
	return func() { l.working.Add(-1) }
}

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

// watchedJob is a scheduled job of an app; its ticks after from are to be recorded.
type watchedJob struct {
	followed
	job  Job
	from time.Time
}

// watchWork looks for work that stalls. What it finds is a reason not to be ready until a
// later look finds it no more.
func (e *Engine) watchWork(ctx context.Context) error {
	if e.isStopping() {
		return nil
	}
	s := &e.stalls
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled := make(map[string]string) // by queue
	err := errors.Join(e.watchQueues(ctx, stalled), e.watchTicks(ctx, stalled))
	var found error
	for name, l := range e.loads {
		what, ok := stalled[name]
		e.config.Metrics.stalled.WithLabelValues(l.app, string(l.queue.Kind)).Set(oneIf(ok))
		if ok {
			found = errors.Join(found, fmt.Errorf("%w: %s of app %s: %s", ErrStalled, l.queue.Kind, l.app, what))
			e.again.warn(l.app, ErrStalled.Error(), errors.New(what), func(event *zerolog.Event) { event.Str("kind", string(l.queue.Kind)) })
		}
	}
	if found == nil {
		s.found.Store(nil)
	} else {
		s.found.Store(&found)
	}
	return err
}

// watchQueues adds the queues whose work stalls. Work that others could take up as well
// is none of this process's concern while all its workers are busy, or while it is given
// other work.
func (e *Engine) watchQueues(ctx context.Context, stalled map[string]string) error {
	queues := make([]repo.QueueOf, 0, len(e.loads))
	for _, l := range e.loads {
		queues = append(queues, l.queue)
	}
	waiting, err := e.store.WaitingWork(ctx, queues)
	before := e.stalls.queues
	e.stalls.queues = make(map[string]stall)
	if err != nil {
		return err
	}
	for _, w := range waiting {
		l := e.loads[w.Queue.Name]
		now := stall{claims: l.claims.Load()}
		if l.working.Load() >= int64(e.config.Workers) {
			continue
		}
		if was, ok := before[w.Queue.Name]; ok && was.claims == now.claims {
			now.rounds = was.rounds + 1
		}
		e.stalls.queues[w.Queue.Name] = now
		if now.rounds >= e.stallRounds {
			stalled[w.Queue.Name] = e.store.Describe(w)
		}
	}
	return nil
}

// watchTicks adds the queues of jobs of which a tick is due and not recorded.
func (e *Engine) watchTicks(ctx context.Context, stalled map[string]string) error {
	watched := e.watched.Load()
	before := e.stalls.jobs
	e.stalls.jobs = make(map[followed]stall)
	if watched == nil {
		return nil
	}
	wanted := make([]repo.AppJob, len(*watched))
	for i, w := range *watched {
		wanted[i] = repo.AppJob{AppID: w.appID, Kind: w.kind, Job: w.followed.job}
	}
	newest, err := e.store.NewestTicks(ctx, wanted)
	if err != nil {
		return err
	}
	for i, w := range *watched {
		after := newest[i]
		if w.from.After(after) {
			after = w.from
		}
		due := lastTick(w.job.Schedule, after, e.store.Now())
		if due.IsZero() {
			continue
		}
		now := stall{newest: newest[i]}
		if was, ok := before[w.followed]; ok && was.newest.Equal(now.newest) {
			now.rounds = was.rounds + 1
		}
		e.stalls.jobs[w.followed] = now
		if now.rounds >= e.stallRounds {
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

// newLoad returns the load of an app's queue.
func newLoad(app *App, kind imclient.Kind) *load {
	return &load{app: app.Name, queue: repo.QueueOf{AppID: app.ID, Kind: kind, Name: queueName(app.ID, kind)}}
}
