package jobs

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/robfig/cron/v3"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// Job is a scheduled sweep of one kind over some apps.
type Job struct {
	Name     string
	Kind     imclient.Kind
	AppIDs   []int16
	Schedule cron.Schedule
	CatchUp  bool          // at start, run a tick that fell while nothing was up: once
	MaxGap   time.Duration // see repo.NewRun
}

// lastTick gives the newest tick of a schedule in (after, until], zero when
// there is none. Schedules can only be walked forwards, so it looks back over
// longer and longer stretches.
func lastTick(schedule cron.Schedule, after, until time.Time) time.Time {
	const day = 24 * time.Hour
	for _, back := range []time.Duration{time.Minute, time.Hour, day, 31 * day, 366 * day, 5 * 366 * day} {
		from := until.Add(-back)
		if from.Before(after) {
			from = after
		}
		var last time.Time
		for tick := schedule.Next(from); !tick.IsZero() && !tick.After(until); tick = schedule.Next(tick) {
			last = tick
		}
		if !last.IsZero() || !from.After(after) {
			return last.UTC()
		}
	}
	return time.Time{}
}

// Schedule starts a run at every tick of the jobs until the engine stops. Any
// number of instances may do so: a tick is one run. Called again, it puts other
// jobs in the place of those before. What stays the same is not disturbed, and
// runs that are going end as they began.
func (e *Engine) Schedule(scheduled []Job) {
	e.scheduled.Store(&scheduled)
	wanted := make(map[followed]Job)
	for _, job := range scheduled {
		for _, appID := range job.AppIDs {
			e.config.Metrics.showJob(e.apps[appID].Name, job)
			wanted[followed{job.Name, job.Kind, appID}] = job
		}
	}
	for key, f := range e.followers {
		if _, ok := wanted[key]; !ok {
			f.cancel()
			delete(e.followers, key)
		}
	}
	for key, job := range wanted {
		f, ok := e.followers[key]
		if !ok {
			ctx, cancel := e.untilStopped()
			f = &follower{cancel: cancel, changes: make(chan change, 1)}
			e.followers[key] = f
			started := e.store.Now()
			if !job.CatchUp {
				f.from = started
			}
			e.background.Go(func() { e.follow(ctx, job, key.appID, started, f.changes) })
		} else if !sameTicks(f.job, job) {
			f.from = e.store.Now()
			f.change(change{job: job, at: f.from})
		}
		f.job = job
	}
	watched := make([]watchedJob, 0, len(e.followers))
	for key, f := range e.followers {
		watched = append(watched, watchedJob{followed: key, job: f.job, from: f.from})
	}
	e.watched.Store(&watched)
}

// followed names a job of an app whose ticks are followed.
type followed struct {
	job   string
	kind  imclient.Kind
	appID int16
}

// follower is the goroutine that follows a job of an app.
type follower struct {
	job     Job
	from    time.Time   // ticks up to it are not the job's to start
	changes chan change // holds at most the newest one
	cancel  context.CancelFunc
}

// change says that a job is another one from a time on.
type change struct {
	job Job
	at  time.Time
}

// change gives the follower another job; one that it has not looked at yet is void.
func (f *follower) change(c change) {
	select {
	case <-f.changes:
	default:
	}
	f.changes <- c
}

// sameTicks reports whether two jobs of one name and kind start the same runs.
func sameTicks(a, b Job) bool {
	return reflect.DeepEqual(a.Schedule, b.Schedule) && a.CatchUp == b.CatchUp && a.MaxGap == b.MaxGap
}

// tickRetry is how long a tick waits that could not be recorded.
const tickRetry = 5 * time.Second

// longestWait is how long a tick is waited for at once: a timer notices neither that
// the machine was suspended nor that the database's clock was set.
const longestWait = time.Minute

// tickTimeout bounds the start of a run, which takes milliseconds, unless the
// connection to the database was cut off: another one may be good.
const tickTimeout = 30 * time.Second

// follow starts the runs of one job for one app. A change of the job holds from
// its time on: ticks until then are those of the job before, be they started late.
func (e *Engine) follow(ctx context.Context, job Job, appID int16, started time.Time, changes <-chan change) {
	log := e.log.With().Str("app", e.apps[appID].Name).Str("job", job.Name).Logger()
	var last time.Time // the newest tick that is dealt with
	var next *change   // waits until the ticks before it are dealt with
	for known := false; ; {
		again := false
		wake := time.After(tickRetry)
		err := imclient.Guard(func() (err error) {
			if !known {
				if last, err = e.newestTick(ctx, appID, job); err != nil {
					return err
				}
				if !job.CatchUp && last.Before(started) {
					last = started
				}
				known = true
			}
			select {
			case c := <-changes: // it came while a tick was started
				next = &c
			default:
			}
			until := e.store.Now()
			if next != nil {
				until = next.at
			}
			if due := lastTick(job.Schedule, last, until); !due.IsZero() {
				trigger := repo.TriggerCron
				if !due.After(started) {
					trigger = repo.TriggerCatchUp
				}
				if err := e.tick(ctx, job, appID, due, trigger); err != nil {
					return err
				}
				last = due
			}
			if next != nil {
				if job = next.job; last.Before(next.at) {
					last = next.at
				}
				next, again = nil, true
				return nil
			}
			now := e.store.Now()
			if tick := job.Schedule.Next(now); !tick.IsZero() {
				wake = time.After(min(max(tick.Sub(now), 0), e.longestWait))
			} else {
				log.Warn().Msg("the schedule has no further tick")
				wake = nil
			}
			return nil
		})
		if again {
			continue
		}
		if ctx.Err() == nil {
			e.troubles.note("start the run of a tick of "+e.apps[appID].Name+" "+job.Name, err)
		}
		if err != nil && ctx.Err() == nil {
			e.again.warn(e.apps[appID].Name, "could not start the run of a tick; it will be tried again", err,
				func(event *zerolog.Event) { event.Str("job", job.Name) })
		}
		select {
		case <-ctx.Done():
			return
		case c := <-changes:
			next = &c
		case <-wake:
		}
	}
}

// newestTick gives the newest tick of a job that was dealt with, here or elsewhere.
func (e *Engine) newestTick(ctx context.Context, appID int16, job Job) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	return e.store.LastTick(ctx, appID, job.Kind, job.Name)
}

// untilStopped gives a context that ends when the engine begins to stop.
func (e *Engine) untilStopped() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		select {
		case <-e.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// StartTick starts the run of a job's tick now, whatever time it is: for
// simulations, whose clock does not go by itself. See repo.Store.StartRun for
// its errors.
func (e *Engine) StartTick(ctx context.Context, job Job, appID int16, at time.Time) (repo.Run, error) {
	runID, err := e.start(ctx, repo.NewRun{
		AppID: appID, Job: job.Name, Kind: job.Kind, Trigger: repo.TriggerCron, Tick: at, MaxGap: job.MaxGap,
	})
	if err != nil {
		return repo.Run{}, err
	}
	return e.store.FindRun(ctx, runID)
}

// tick starts the run of a tick, unless that was done before, here or elsewhere.
func (e *Engine) tick(ctx context.Context, job Job, appID int16, at time.Time, trigger repo.Trigger) error {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	if err := e.store.CheckClock(ctx); err != nil {
		return err
	}
	runID, err := e.start(ctx, repo.NewRun{AppID: appID, Job: job.Name, Kind: job.Kind, Trigger: trigger, Tick: at, MaxGap: job.MaxGap})
	log := e.log.With().Str("app", e.apps[appID].Name).Str("job", job.Name).Time("tick", at).Int64("run_id", runID).Logger()
	switch {
	case errors.Is(err, repo.ErrTicked):
		return nil
	case errors.Is(err, repo.ErrBusy):
		if runID != 0 { // it was we who recorded it
			e.config.Metrics.closed(e.apps[appID].Name, job.Name, job.Kind, repo.RunSkipped)
			log.Info().Msg("tick skipped: the previous run is still going")
		}
		return nil
	case err != nil:
		return err
	}
	log.Debug().Str("trigger", string(trigger)).Msg("run started")
	return nil
}

// start starts a run and enqueues its planning.
func (e *Engine) start(ctx context.Context, n repo.NewRun) (int64, error) {
	return e.store.StartRun(ctx, n, func(tx pgx.Tx, runID int64) (int64, error) {
		return e.enqueue(ctx)(tx, repo.Run{ID: runID, AppID: n.AppID, Kind: n.Kind}, repo.PlanRange)
	})
}
