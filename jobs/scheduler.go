package jobs

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"

	"syncer/imclient"
	"syncer/repo"
)

// Job is a scheduled sweep of one kind over some apps.
type Job struct {
	Name     string
	Kind     imclient.Kind
	AppIDs   []int16
	Schedule cron.Schedule
	CatchUp  bool          // at start, run the newest tick that fell while no process ran
	MaxGap   time.Duration // see repo.NewRun
}

// sameTicks reports whether two jobs of one name and kind start the same runs.
func sameTicks(a, b Job) bool {
	return reflect.DeepEqual(a.Schedule, b.Schedule) && a.CatchUp == b.CatchUp && a.MaxGap == b.MaxGap
}

// followed names a job of an app whose ticks are followed.
type followed struct {
	job   string
	kind  imclient.Kind
	appID int16
}

// scheduler starts the runs of jobs.
type scheduler struct {
	*shared
	queue       *queue
	longestWait time.Duration
	followers   map[followed]*follower
	running     sync.WaitGroup

	jobs    atomic.Pointer[[]Job]        // as given to Schedule; nil before
	watched atomic.Pointer[[]watchedJob] // whose ticks must be recorded; nil before
}

// watchedJob is a scheduled job of an app; its ticks after from must be recorded.
type watchedJob struct {
	followed
	job  Job
	from time.Time
}

// Schedule starts a run at every tick of the jobs until the engine stops. Any
// number of processes may do so: a tick is one run. Called again, it replaces the
// jobs. A job that stays the same is not disturbed, and running runs end as they
// began. It must not be called by several goroutines at once.
func (e *Engine) Schedule(jobs []Job) { e.scheduler.schedule(jobs) }

func (s *scheduler) schedule(jobs []Job) {
	s.jobs.Store(&jobs)
	wanted := make(map[followed]Job)
	for _, job := range jobs {
		for _, appID := range job.AppIDs {
			s.config.Metrics.showJob(s.apps[appID].Name, job)
			wanted[followed{job.Name, job.Kind, appID}] = job
		}
	}
	for key, f := range s.followers {
		if _, ok := wanted[key]; !ok {
			f.cancel()
			delete(s.followers, key)
		}
	}
	watched := make([]watchedJob, 0, len(wanted))
	for key, job := range wanted {
		f, ok := s.followers[key]
		switch {
		case !ok:
			f = newFollower(s, s.apps[key.appID], job)
			s.followers[key] = f
			s.running.Go(f.follow)
		case !sameTicks(f.scheduled, job):
			f.change(job)
		}
		f.scheduled = job
		watched = append(watched, watchedJob{followed: key, job: job, from: f.from})
	}
	s.watched.Store(&watched)
}

// sweepEvery returns how far apart the sweeps of an app's presence are scheduled, by the
// most frequent job; 0: none is scheduled.
func (s *scheduler) sweepEvery(appID int16) (shortest time.Duration) {
	all := s.jobs.Load()
	if all == nil {
		return 0
	}
	now := s.store.Now()
	for _, job := range *all {
		if job.Kind != imclient.KindPresence || !slices.Contains(job.AppIDs, appID) {
			continue
		}
		next := job.Schedule.Next(now)
		if after := job.Schedule.Next(next); !next.IsZero() && !after.IsZero() && (shortest == 0 || after.Sub(next) < shortest) {
			shortest = after.Sub(next)
		}
	}
	return shortest
}

// StartTick starts the run of a job's tick now, whatever the time is: for
// simulations, whose clock stands still. See repo.Store.StartRun for its errors.
func (e *Engine) StartTick(ctx context.Context, job Job, appID int16, at time.Time) (repo.Run, error) {
	runID, err := e.queue.run(ctx, tickOf(job, appID, at, repo.TriggerCron))
	if err != nil {
		return repo.Run{}, err
	}
	return e.store.FindRun(ctx, runID)
}

func tickOf(job Job, appID int16, at time.Time, trigger repo.Trigger) repo.NewRun {
	return repo.NewRun{AppID: appID, Job: job.Name, Kind: job.Kind, Trigger: trigger, Tick: at, MaxGap: job.MaxGap}
}

// tickTimeout bounds the start of a run. That takes milliseconds unless the
// connection to the database was cut off; another connection may work.
const tickTimeout = 30 * time.Second

// tick starts the run of a tick, unless this process or another did so before.
func (s *scheduler) tick(ctx context.Context, job Job, app *App, at time.Time, trigger repo.Trigger) error {
	ctx, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	if err := s.store.CheckClock(ctx); err != nil {
		return err
	}
	runID, err := s.queue.run(ctx, tickOf(job, app.ID, at, trigger))
	log := s.log.With().Str("app", app.Name).Str("job", job.Name).Time("tick", at).Int64("run_id", runID).Logger()
	switch {
	case errors.Is(err, repo.ErrTicked):
		return nil
	case errors.Is(err, repo.ErrBusy):
		if runID != 0 { // this process recorded it
			s.config.Metrics.closed(app.Name, job.Name, job.Kind, repo.RunSkipped)
			log.Info().Msg("tick skipped: the previous run is still going")
		}
		return nil
	case err != nil:
		return err
	}
	log.Debug().Str("trigger", string(trigger)).Msg("run started")
	return nil
}

// lastTick returns the newest tick of a schedule in (after, until], zero if there
// is none. A schedule can only be walked forwards, so lastTick looks back over
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
