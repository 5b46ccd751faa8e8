package jobs

import (
	"context"
	"math"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// follower starts the runs of one job for one app. A change of the job holds from
// its time on: earlier ticks are those of the job before, even if started late.
type follower struct {
	*scheduler
	app     *App
	started time.Time
	changes chan change // holds at most the newest one
	ctx     context.Context
	cancel  context.CancelFunc

	// Of the goroutine that calls Schedule.
	scheduled Job
	from      time.Time // ticks up to it are not the job's to start

	// Of the goroutine that follows.
	job   Job
	known bool      // last was read from the database
	last  time.Time // the newest tick that was dealt with
	next  *change   // waits until the ticks before it are dealt with
}

// change replaces a job from a time on.
type change struct {
	job Job
	at  time.Time
}

func newFollower(s *scheduler, app *App, job Job) *follower {
	f := &follower{scheduler: s, app: app, started: s.store.Now(), changes: make(chan change, 1), scheduled: job, job: job}
	f.ctx, f.cancel = context.WithCancel(s.stopping)
	if !job.CatchUp {
		f.from = f.started
	}
	return f
}

// change replaces the job. A change that the follower has not seen yet is void.
func (f *follower) change(job Job) {
	f.from = f.store.Now()
	select {
	case <-f.changes:
	default:
	}
	f.changes <- change{job: job, at: f.from}
}

const (
	// tickRetry is how long a tick waits that could not be recorded.
	tickRetry = 5 * time.Second
	// longestWait bounds one wait for a tick: a timer notices neither that the machine
	// was suspended nor that the database's clock was set.
	longestWait = time.Minute
	never       = time.Duration(math.MaxInt64)
)

// follow starts runs until the context ends.
func (f *follower) follow() {
	for {
		wait := tickRetry
		err := imclient.Guard(func() (err error) {
			wait, err = f.step(f.ctx)
			return err
		})
		if f.ctx.Err() == nil {
			f.recent.note("start the run of a tick of "+f.app.Name+" "+f.job.Name, err)
			if err != nil {
				wait = tickRetry
				f.warnings.warn(f.app.Name, "could not start the run of a tick; it will be tried again", err,
					func(event *zerolog.Event) { event.Str("job", f.job.Name) })
			}
		}
		select {
		case <-f.ctx.Done():
			return
		case c := <-f.changes:
			f.next = &c
		case <-time.After(wait):
		}
	}
}

// step deals with the tick that is due, if any, and with a change that came. It
// returns when to do so again.
func (f *follower) step(ctx context.Context) (wait time.Duration, err error) {
	if err := f.begin(ctx); err != nil {
		return 0, err
	}
	select {
	case c := <-f.changes: // came while a tick was started
		f.next = &c
	default:
	}
	if tick := f.due(f.store.Now()); !tick.IsZero() {
		trigger := repo.TriggerCron
		if !tick.After(f.started) {
			trigger = repo.TriggerCatchUp
		}
		if err := f.tick(ctx, f.job, f.app, tick, trigger); err != nil {
			return 0, err
		}
		f.last = tick
	}
	if f.next != nil {
		f.job = f.next.job
		if f.last.Before(f.next.at) {
			f.last = f.next.at
		}
		f.next = nil
		return 0, nil
	}
	now := f.store.Now()
	tick := f.job.Schedule.Next(now)
	if tick.IsZero() {
		f.log.Warn().Str("app", f.app.Name).Str("job", f.job.Name).Msg("the schedule has no further tick")
		return never, nil
	}
	return min(max(tick.Sub(now), 0), f.longestWait), nil
}

// begin finds out which ticks were dealt with, by this process or another.
func (f *follower) begin(ctx context.Context) error {
	if f.known {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	last, err := f.store.LastTick(ctx, f.app.ID, f.job.Kind, f.job.Name)
	if err != nil {
		return err
	}
	if !f.job.CatchUp && last.Before(f.started) {
		last = f.started
	}
	f.last, f.known = last, true
	return nil
}

// due returns the tick to be started at now, zero if there is none.
func (f *follower) due(now time.Time) time.Time {
	if f.next != nil {
		now = f.next.at
	}
	return lastTick(f.job.Schedule, f.last, now)
}
