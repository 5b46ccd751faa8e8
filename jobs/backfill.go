package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/repo"
)

// BackfillJob is the name under which backfills are recorded.
const BackfillJob = "backfill"

// Backfill is one run by hand of one kind over one app.
type Backfill struct {
	AppID  int16
	Kind   imclient.Kind
	Resume bool     // go on with the last backfill instead of starting a new one
	Listed []string // distinct ids to limit it to; nil: the whole users table
	// ListedAt is when Listed began to be compared with the users table.
	ListedAt time.Time
	// LetLeave confirms that any number of users may have left the users table.
	LetLeave bool
	MaxGap   time.Duration // see repo.NewRun
	// Waiting, which must be set, is called with the run that is in the way, again and
	// again as long as it is.
	Waiting func(repo.Run)
}

// pollEvery is how often a run is looked at while a caller waits for it; at first
// more often, because that of a small app takes no longer.
const (
	pollEvery = 200 * time.Millisecond
	firstPoll = 10 * time.Millisecond
)

// StartBackfill starts a run, or opens the last backfill again, and returns it.
// While another run of the app and kind is going it waits, and works on that
// one like every engine. A backfill to be resumed that went through is returned
// as it is; one that is going, perhaps for a process that was killed, is joined;
// in place of one too old to be resumed a new one is started.
func (e *Engine) StartBackfill(ctx context.Context, b Backfill) (repo.Run, error) {
	for {
		run, err := e.tryBackfill(ctx, b)
		if !errors.Is(err, repo.ErrBusy) {
			return run, err
		}
		running, ok, err := e.store.RunningRun(ctx, b.AppID, b.Kind)
		if err != nil {
			return repo.Run{}, err
		}
		if ok {
			b.Waiting(running)
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return repo.Run{}, err
		}
	}
}

func (e *Engine) tryBackfill(ctx context.Context, b Backfill) (repo.Run, error) {
	if err := e.store.CheckApps(ctx); err != nil {
		return repo.Run{}, err
	}
	if b.Resume {
		last, ok, err := e.store.LastBackfill(ctx, b.AppID, b.Kind)
		if err != nil {
			return repo.Run{}, err
		}
		if ok {
			err := e.resume(ctx, last)
			if !errors.Is(err, repo.ErrGone) {
				return last, err
			}
			// So old that nothing is left to go on with.
			if last.Listed {
				return repo.Run{}, fmt.Errorf("backfill %d of a list of users is too old to be resumed: start a new one", last.ID)
			}
		}
	}
	runID, err := e.queue.run(ctx, repo.NewRun{AppID: b.AppID, Job: BackfillJob, Kind: b.Kind, Trigger: repo.TriggerBackfill, Listed: b.Listed, ListedAt: b.ListedAt, Salt: e.config.Salt,
		LetLeave: b.LetLeave, MaxGap: b.MaxGap})
	if err != nil {
		return repo.Run{}, err
	}
	return e.store.FindRun(ctx, runID)
}

func (e *Engine) resume(ctx context.Context, last repo.Run) error {
	if last.Status == repo.RunFailed || last.Status == repo.RunCancelled {
		return e.store.ResumeRun(ctx, last, e.queue.enqueue(ctx))
	}
	return nil
}

// waitPatience is how long a database out of reach is no reason to give up
// waiting for a run.
const waitPatience = time.Minute

// ErrRunLost says that the database has forgotten a run.
var ErrRunLost = errors.New("the database does not know the run any more: it was lost in a failover, or a backup was restored; start it again")

// sameRun finds a run again. Another run may have its number.
func (e *Engine) sameRun(ctx context.Context, run repo.Run) (repo.Run, error) {
	now, err := e.store.FindRun(ctx, run.ID)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !now.StartedAt.Equal(run.StartedAt) {
		return run, fmt.Errorf("run %d: %w", run.ID, ErrRunLost)
	}
	return now, err
}

// WaitRun waits until a run is closed and returns it. It looks at the run every 200 ms,
// and at once when this engine has closed one. progress sees it as it goes. With an error, as ErrRunLost, it returns the run as last seen; a context that
// ends leaves the run going.
func (e *Engine) WaitRun(ctx context.Context, run repo.Run, progress func(repo.Run)) (repo.Run, error) {
	seenAt := time.Now()
	for wait := firstPoll; ; wait = min(2*wait, pollEvery) {
		closed := e.closed.next()
		now, err := e.sameRun(ctx, run)
		switch {
		case err == nil:
			run, seenAt = now, time.Now()
			progress(run)
		case ctx.Err() != nil:
			return run, ctx.Err()
		case errors.Is(err, ErrRunLost) || time.Since(seenAt) > waitPatience:
			return run, err
		}
		if run.Status != repo.RunRunning {
			return run, nil
		}
		select {
		case <-closed:
		case <-time.After(wait):
		case <-ctx.Done():
			return run, ctx.Err()
		}
	}
}

// bell wakes goroutines that wait for something to happen. The zero value is ready for
// use.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // closed by the next ring; nil: nothing waits
}

// next returns a channel that the next ring closes.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// Cancel closes a run that is still going as cancelled. Stop the engine first,
// so that its pages in flight are written.
func (e *Engine) Cancel(ctx context.Context, run repo.Run, reason string) error {
	if _, err := e.sameRun(ctx, run); err != nil {
		return err
	}
	err := e.store.EndRun(ctx, run.ID, repo.RunCancelled, reason)
	if errors.Is(err, repo.ErrGone) {
		return nil
	}
	if err == nil && e.config.Tracer != nil {
		if run, err = e.store.FindRun(ctx, run.ID); err == nil {
			e.traceRun(run)
		}
	}
	return err
}

// MatchListed goes through an app's users table once and returns which of the
// wanted ids are in it, and how many are not.
func (e *Engine) MatchListed(ctx context.Context, appID int16, wanted map[string]bool) (found []string, missing int, err error) {
	next := usersOf(e.apps[appID].Users)
	seen := make(map[string]bool, len(wanted))
	for {
		ids, err := next(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("look up the listed users: %w", err)
		}
		if len(ids) == 0 {
			return found, len(wanted) - len(found), nil
		}
		for _, id := range ids {
			if wanted[id] && !seen[id] {
				seen[id] = true
				found = append(found, id)
			}
		}
	}
}

// sleep waits, or returns early with the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
