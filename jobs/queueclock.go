package jobs

import (
	"context"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"syncer/repo"
)

// queueClock makes the queue go by the database's clock. It compares with that
// one when jobs are due, but by itself dates new jobs, retries and pauses by this
// machine's, which may be wrong: on one that is ahead they would wait as long as
// it is ahead.
type queueClock struct {
	river.HookDefaults
	store *repo.Store
}

// Now is the database's time.
func (c *queueClock) Now() time.Time { return c.store.ServerNow() }

// NowOrNil leaves it to statements to take the time for themselves.
func (*queueClock) NowOrNil() *time.Time { return nil }

// InsertBegin dates a new job, which is due at once.
func (c *queueClock) InsertBegin(_ context.Context, job *rivertype.JobInsertParams) error {
	now := c.Now()
	job.ScheduledAt = &now
	return nil
}

// awaitClock waits until the database's clock is believed, see repo.Store.ReadClock. It
// reports false if the engine stops first. Putting the job off would not do: the
// database, by whose clock jobs are due, would hand it out again at once.
func (e *Engine) awaitClock(ctx context.Context) bool {
	const lookEvery = time.Second
	for e.store.ClockDoubt() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-e.stopping:
			return false
		case <-time.After(lookEvery):
		}
	}
	return true
}
