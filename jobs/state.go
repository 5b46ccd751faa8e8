package jobs

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/robfig/cron/v3"

	"syncer/imclient"
	"syncer/internal/pg"
	"syncer/repo"
)

// State collects, at each scrape, what the database knows of the engine's apps and
// jobs, which is the same for all processes; whether this process is ready; and its
// pool of connections. While the database is away only the last two are there.
type State struct {
	Engine *Engine
	// Ready is what the admin server asks too.
	Ready func(ctx context.Context) error

	failed atomic.Bool // the last reading did; it is logged once, not at every scrape
}

// stateTimeout bounds one collection: those who ask give up after ten seconds.
const stateTimeout = 5 * time.Second

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	readyDesc = desc("syncer_ready", "1 while this process is ready, as GET /readyz has it, else 0.")
	knownDesc = desc("syncer_state_known", "1 when what follows from the database could be read; 0: all metrics of apps and jobs that stand there are missing.")

	lastSuccessDesc = desc("syncer_last_success_timestamp_seconds",
		"When the newest complete run of a job ended. Missing: it never had one.", "app", "sync_job", "kind")
	lagDesc = desc("syncer_schedule_lag_seconds",
		"How long the oldest tick of a job has been due that no complete run has answered; 0: none is.", "app", "sync_job", "kind")
	intervalDesc = desc("syncer_schedule_interval_seconds", "From a job's next tick to the one after it.", "app", "sync_job", "kind")

	runningDesc  = desc("syncer_run_running_seconds", "How long the run that is going has been; 0: none is.", "app", "kind")
	suspectDesc  = desc("syncer_run_suspect", "1 while pages of the run that is going are suspect and wait for their recheck.", "app", "kind")
	usersDesc    = desc("syncer_users", "Users of the newest complete run.", "app", "kind")
	failingDesc  = desc("syncer_failing_users", "Users who came without a value in the newest complete run.", "app", "kind")
	heldBackDesc = desc("syncer_removals_held_back",
		"Users who are missing from the users table and were not removed, because they are too many; 0 once a run is complete.", "app", "kind")
	gapsDesc = desc("syncer_gaps", "Gaps on record that are over.", "app", "kind")
	gapDesc  = desc("syncer_gap_open_seconds", "How long no run has looked, if that is longer than the max_gap of the job allows; 0: a run does, or nothing is scheduled.", "app", "kind")

	limitDesc = desc("syncer_quota_limit_calls_per_second", "The configured call rate.", "app", "kind")
	rateDesc  = desc("syncer_quota_calls_per_second", "The call rate in force, lower than the limit for a while after a rate-limit answer.", "app", "kind")
	pauseDesc = desc("syncer_quota_pause_seconds",
		"Until the next call time that is not taken: fractions of a second at work, more when the provider asked for a pause.", "app", "kind")

	poolConnsDesc = desc("syncer_db_pool_connections", "Connections to the database, by state: acquired, idle, constructing.", "state")
	poolMaxDesc   = desc("syncer_db_pool_max_connections", "The most connections that the pool may hold.")
	poolTakenDesc = desc("syncer_db_pool_acquires_total", "Connections taken from the pool.")
	poolEmptyDesc = desc("syncer_db_pool_empty_acquires_total", "Connections that had to be waited for, because none was idle.")
	poolLostDesc  = desc("syncer_db_pool_canceled_acquires_total", "Connections that were waited for in vain.")
	poolWaitDesc  = desc("syncer_db_pool_acquire_wait_seconds_total", "Time spent on taking connections from the pool.")
)

// Describe sends the descriptions of all metrics that Collect may send.
func (s *State) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		readyDesc, knownDesc, lastSuccessDesc, lagDesc, intervalDesc, runningDesc, suspectDesc, usersDesc, failingDesc, heldBackDesc, gapsDesc, gapDesc,
		limitDesc, rateDesc, pauseDesc, poolConnsDesc, poolMaxDesc, poolTakenDesc, poolEmptyDesc, poolLostDesc, poolWaitDesc,
	} {
		descs <- d
	}
}

// Collect reads the database and sends the metrics.
func (s *State) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	err := imclient.Guard(func() error { return s.Ready(ctx) })
	t := &stateReading{}
	t.pool(s.Engine.store.Pool().Stat())
	t.gauge(readyDesc, oneIf(err == nil))
	// A database that takes no writes can be read all the same.
	known := err == nil || errors.Is(err, ErrTrouble) || errors.Is(err, ErrStalled) || errors.Is(err, pg.ErrReadOnly)
	if known {
		read := &stateReading{}
		if err := imclient.Guard(func() error { return s.read(ctx, read) }); err != nil {
			known = false
			if !s.failed.Swap(true) {
				warning(s.Engine.log, err).Err(err).Msg("metrics of apps and jobs cannot be read from the database")
			}
		} else {
			s.failed.Store(false)
			t.metrics = append(t.metrics, read.metrics...)
		}
	}
	t.gauge(knownDesc, oneIf(known))
	for _, m := range t.metrics {
		metrics <- m
	}
}

// read reads what the database knows.
func (s *State) read(ctx context.Context, t *stateReading) error {
	e := s.Engine
	appIDs := make([]int16, 0, len(e.apps))
	var quotas []*repo.Quota
	for id, app := range e.apps {
		appIDs, quotas = append(appIDs, id), append(quotas, app.Quotas...)
	}
	apps, err := e.store.WatchApps(ctx, appIDs)
	if err != nil {
		return err
	}
	rates, err := e.store.WatchQuotas(ctx, quotas)
	if err != nil {
		return err
	}
	now := e.store.Now()
	for _, a := range apps {
		labels := []string{e.apps[a.AppID].Name, string(a.Kind)}
		running := 0.0
		if a.RunningSince != nil {
			running = max(now.Sub(*a.RunningSince), 0).Seconds()
		}
		t.gauge(runningDesc, running, labels...)
		t.gauge(suspectDesc, oneIf(a.Suspect), labels...)
		t.gauge(usersDesc, float64(a.Users), labels...)
		t.gauge(failingDesc, float64(a.Failed), labels...)
		t.gauge(heldBackDesc, float64(a.HeldBack), labels...)
		t.gauge(gapsDesc, float64(a.Gaps), labels...)
		t.gauge(gapDesc, openGap(a, e.maxGap(a.AppID, a.Kind), now).Seconds(), labels...)
	}
	for _, q := range rates {
		labels := []string{e.apps[q.AppID].Name, string(q.Kind)}
		t.gauge(limitDesc, q.Limit, labels...)
		t.gauge(rateDesc, q.Rate, labels...)
		t.gauge(pauseDesc, q.Pause.Seconds(), labels...)
	}
	return s.readJobs(ctx, t, now)
}

// readJobs reads how far the scheduled jobs came.
func (s *State) readJobs(ctx context.Context, t *stateReading, now time.Time) error {
	e := s.Engine
	all := e.scheduler.jobs.Load()
	if all == nil {
		return nil
	}
	var wanted []repo.AppJob
	var schedules []cron.Schedule // of each wanted one
	for _, job := range *all {
		for _, appID := range job.AppIDs {
			wanted = append(wanted, repo.AppJob{AppID: appID, Kind: job.Kind, Job: job.Name})
			schedules = append(schedules, job.Schedule)
		}
	}
	done, err := e.store.WatchJobs(ctx, wanted)
	if err != nil {
		return err
	}
	for i, w := range done {
		labels := []string{e.apps[wanted[i].AppID].Name, wanted[i].Job, string(wanted[i].Kind)}
		if w.LastDoneAt != nil {
			t.gauge(lastSuccessDesc, float64(w.LastDoneAt.UnixMicro())/1e6, labels...)
		}
		t.gauge(lagDesc, lag(schedules[i], w, now).Seconds(), labels...)
		if next := schedules[i].Next(now); !next.IsZero() {
			if after := schedules[i].Next(next); !after.IsZero() {
				t.gauge(intervalDesc, after.Sub(next).Seconds(), labels...)
			}
		}
	}
	return nil
}

// lag is how long the oldest tick has been due that no complete run has answered.
// A job that never had one counts from its first tick.
func lag(schedule cron.Schedule, w repo.JobWatch, now time.Time) time.Duration {
	var due time.Time
	switch {
	case w.LastTick != nil:
		due = schedule.Next(*w.LastTick)
	case w.FirstTick != nil:
		due = *w.FirstTick
	}
	if due.IsZero() {
		return 0
	}
	return max(now.Sub(due), 0)
}

// maxGap is the shortest that the scheduled jobs of an app and kind allow; 0: none
// is scheduled.
func (e *Engine) maxGap(appID int16, kind imclient.Kind) (shortest time.Duration) {
	all := e.scheduler.jobs.Load()
	if all == nil {
		return 0
	}
	for _, job := range *all {
		if job.Kind == kind && slices.Contains(job.AppIDs, appID) && (shortest == 0 || job.MaxGap < shortest) {
			shortest = job.MaxGap
		}
	}
	return shortest
}

// openGap returns how long no run has looked, if that is longer than allowed by the
// run that looked last or, after a backfill, by what is scheduled. If nothing is
// scheduled, it is no gap; reports differ from metrics in that.
func openGap(a repo.AppWatch, scheduled time.Duration, now time.Time) time.Duration {
	if scheduled == 0 || a.ObservedUntil == nil {
		return 0
	}
	allowed := scheduled
	if a.MaxGap != nil {
		allowed = *a.MaxGap
	}
	until := now
	if a.RunningSince != nil {
		until = *a.RunningSince // a run looks; syncer_schedule_lag_seconds shows if it takes too long
	}
	if until.Sub(*a.ObservedUntil) > allowed {
		return now.Sub(*a.ObservedUntil)
	}
	return 0
}

// stateReading holds the metrics of one collection.
type stateReading struct{ metrics []prometheus.Metric }

func (t *stateReading) gauge(d *prometheus.Desc, value float64, labels ...string) {
	t.metrics = append(t.metrics, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...))
}

func (t *stateReading) counter(d *prometheus.Desc, value float64) {
	t.metrics = append(t.metrics, prometheus.MustNewConstMetric(d, prometheus.CounterValue, value))
}

// pool adds the metrics of the connections to the database.
func (t *stateReading) pool(stat *pgxpool.Stat) {
	t.gauge(poolConnsDesc, float64(stat.AcquiredConns()), "acquired")
	t.gauge(poolConnsDesc, float64(stat.IdleConns()), "idle")
	t.gauge(poolConnsDesc, float64(stat.ConstructingConns()), "constructing")
	t.gauge(poolMaxDesc, float64(stat.MaxConns()))
	t.counter(poolTakenDesc, float64(stat.AcquireCount()))
	t.counter(poolEmptyDesc, float64(stat.EmptyAcquireCount()))
	t.counter(poolLostDesc, float64(stat.CanceledAcquireCount()))
	t.counter(poolWaitDesc, stat.AcquireDuration().Seconds())
}

func oneIf(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
