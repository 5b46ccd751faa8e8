package jobs

import (
	"context"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"syncer/repo"
)

// queueClock makes the queue's client use the database's clock. By itself it dates
// new jobs, retries and pauses by the machine's clock and compares them with the
// database's: if the machine is ahead, jobs would wait as long as it is ahead.
type queueClock struct {
	river.HookDefaults
	store *repo.Store
}

// Now returns the database's time.
func (c *queueClock) Now() time.Time { return c.store.ServerNow() }

// NowOrNil returns nil: statements take the time themselves.
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
func (s *shared) awaitClock(ctx context.Context) bool {
	const lookEvery = time.Second
	for s.store.ClockDoubt() != nil {
		select {
		case <-ctx.Done():
			return false
		case <-s.stopping.Done():
			return false
		case <-time.After(lookEvery):
		}
	}
	return true
}
