// Package jobs is what runs: the schedule that starts runs, the planning that
// cuts a users table into ranges, the sweep that goes through a range page by
// page, and the housekeeping around them. River spreads the work over any
// number of processes; one process is the same path with one worker.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"syncer/imclient"
	"syncer/repo"
	"syncer/repo/userstable"
)

// presenceAPI is what a presence sweep needs from a provider's client, which may
// be a statusAPI too.
type presenceAPI interface {
	// QueryPresence asks about at most MaxPresenceBatch distinct users. Every id
	// comes back exactly once, observed or rejected; an error is about the whole
	// batch and has a class.
	QueryPresence(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error)
	MaxPresenceBatch() int
}

// accountsAPI is the same for an accounts sweep.
type accountsAPI interface {
	CheckAccounts(ctx context.Context, ids []string) (imclient.Answer[imclient.AccountStatus], error)
	MaxAccountsBatch() int
}

// App is an app that is swept: its API and its users.
type App struct {
	repo.App
	Presence presenceAPI
	Accounts accountsAPI
	Users    *userstable.Table
	// Quotas are those of the APIs; State tells how far they are used.
	Quotas []*repo.Quota
}

// Config sizes the work. All fields but Tracer are needed.
type Config struct {
	RangeUsers  int            // users of a range
	PageUsers   int            // users of a page
	Workers     int            // ranges of one app and kind that this process works on at once
	RescueAfter time.Duration  // a range without a sign of life for so long has been taken over
	Partition   string         // day, week or month
	Retention   time.Duration  // of the histories; 0: for ever
	ReportZone  *time.Location // whose days are rolled up
	Reindex     bool           // the store's role owns the queue's tables, so that their indexes can be made anew
	// A page of which, or of one call of which, at least CollapseMin users, and more
	// than CollapseRatio of those who were reachable, are offline at once is suspect
	// and rechecked, each time CollapseDelay after the answer. A ratio of 1 turns
	// that off.
	CollapseRatio float64
	CollapseMin   int
	CollapseDelay time.Duration
	// A run that would remove more than RemovalRatio of at least RemovalMin known
	// users removes none. A ratio of 1 turns that off.
	RemovalRatio float64
	RemovalMin   int
	// Outage is how long no call of any process is answered, and no page of a run
	// written, before the run is ended as failed.
	Outage  time.Duration
	Metrics *Metrics
	Log     zerolog.Logger
	Tracer  trace.Tracer // of runs, see TraceIDs; nil: nothing is traced
}

// Engine works on the runs of its apps, together with all other engines on the
// same database. Make it with New; Start it once; Stop it once.
type Engine struct {
	store  *repo.Store
	apps   map[int16]*App
	config Config
	log    zerolog.Logger
	again  *repeats // what may go on and on is logged through it
	queue  *river.Client[pgx.Tx]

	scheduled atomic.Pointer[[]Job] // what Schedule was given; nil: nothing yet
	rounds    rounds                // of the housekeeping
	troubles  troubles
	stalls    stalls
	watched   atomic.Pointer[[]watchedJob] // whose ticks are to be recorded; nil: none yet
	loads     map[string]*load             // by queue

	// opinions are those of the apps whose provider has them, by app.
	opinions map[int16]*secondOpinion
	// asking holds a place for each page that is asked about, by queue.
	asking map[string]chan struct{}
	// breakers stand before the APIs, by queue.
	breakers map[string]*breaker
	left     left

	queues []string // that this engine works on
	closed bell     // rung when this engine has closed a run

	firstRetry    time.Duration // see retryDelay
	longestWait   time.Duration // for a tick
	maintainEvery time.Duration
	maintainRetry time.Duration
	gaveWay       int // how often in a row maintenance did
	stallRounds   int

	followers map[followed]*follower // of the schedule; see Schedule

	stopping   chan struct{} // closed: no new pages
	maintained chan struct{} // closed: the tables were maintained once
	background sync.WaitGroup
	cancel     context.CancelFunc // ends the background loops
}

// New makes an engine for the given apps.
func New(store *repo.Store, apps []*App, c Config) (*Engine, error) {
	e := &Engine{
		store:    store,
		apps:     make(map[int16]*App, len(apps)),
		config:   c,
		log:      c.Log,
		again:    newRepeats(c.Log),
		asking:   make(map[string]chan struct{}, 2*len(apps)),
		breakers: make(map[string]*breaker, 2*len(apps)),
		opinions: make(map[int16]*secondOpinion, len(apps)),
		left:     left{until: make(map[rangeArgs]time.Time)},
		stopping: make(chan struct{}),

		maintained: make(chan struct{}),

		followers: make(map[followed]*follower),

		firstRetry:    firstRetry,
		longestWait:   longestWait,
		loads:         make(map[string]*load, 2*len(apps)),
		stallRounds:   stallRounds(c.RescueAfter),
		maintainEvery: maintainEvery,
		maintainRetry: maintainRetry,
	}
	queues := make(map[string]river.QueueConfig, 2*len(apps))
	for _, app := range apps {
		e.apps[app.ID] = app
		c.Metrics.show(app.Name)
		if api, ok := app.Presence.(statusAPI); ok {
			e.opinions[app.ID] = &secondOpinion{api: api}
		}
		for _, kind := range imclient.Kinds() {
			// A queue of its own for each app and kind: none can starve another.
			name := queueName(app.ID, kind)
			queues[name] = river.QueueConfig{MaxWorkers: c.Workers}
			e.queues = append(e.queues, name)
			e.loads[name] = newLoad(app, kind)
			e.breakers[name] = e.newBreaker(app, kind)
		}
		e.asking[queueName(app.ID, imclient.KindPresence)] = make(chan struct{}, pagesAsked(c.PageUsers, app.Presence.MaxPresenceBatch()))
		e.asking[queueName(app.ID, imclient.KindAccounts)] = make(chan struct{}, pagesAsked(c.PageUsers, app.Accounts.MaxAccountsBatch()))
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &planWorker{engine: e})
	river.AddWorker(workers, &rangeWorker{engine: e})
	clock := &queueClock{store: store}
	var err error
	e.queue, err = river.NewClient(queueDriver{riverpgxv5.New(store.Pool()), store}, &river.Config{
		ID:      store.Process(),
		Schema:  store.Schema(),
		Queues:  queues,
		Workers: workers,
		// Ranges may take as long as the quota makes them; whether their worker
		// lives is told by its signs of life, see housekeeping.
		JobTimeout:           -1,
		RescueStuckJobsAfter: 24 * time.Hour,
		// A queue asks once in a cooldown, however many jobs are announced.
		FetchCooldown:     river.FetchCooldownMin,
		FetchPollInterval: askEvery(store.PollOnly(), len(queues)),
		PollOnly:          store.PollOnly(),
		// What there is to know about a job that is done is in sync_run. At a run
		// every few seconds of each of many apps a day's worth would be millions.
		CompletedJobRetentionPeriod: completedKept,
		ReindexerSchedule:           c.reindexSchedule(),
		Logger:                      slog.New(&queueLog{again: e.again}),
		// Not for tests alone, in spite of its name: it is how one gives it a clock.
		Test:  river.TestConfig{Time: clock},
		Hooks: []rivertype.Hook{clock},
	})
	if err != nil {
		return nil, fmt.Errorf("make the queue's client: %w", err)
	}
	return e, nil
}

// Every queue would ask for jobs every second: with two queues per app, a hundred
// statements a second for fifty apps at rest. Instead each engine looks once for
// all its queues (announceEvery), and a queue asks when it is told to. Each asks by
// itself only now and then (fetchPoll, or all of them ten times a second), in case
// the connection for being told is lost.
const (
	announceEvery = time.Second
	fetchPoll     = 5 * time.Second
)

// askEvery is how often a queue asks by itself. Where nobody can be told, that is
// how new jobs are found: each second, or less often when there are so many queues
// that it would be more than twenty statements a second.
func askEvery(only bool, queues int) time.Duration {
	const gap = 50 * time.Millisecond
	if only {
		return max(announceEvery, time.Duration(queues)*gap)
	}
	return max(fetchPoll, time.Duration(queues)*2*gap)
}

// reindexSchedule is when the queue makes its indexes anew. nil: every midnight.
func (c Config) reindexSchedule() river.PeriodicSchedule {
	if c.Reindex {
		return nil
	}
	return river.NeverSchedule()
}

// completedKept is how long the queue keeps jobs that are done.
const completedKept = 10 * time.Minute

func queueName(appID int16, kind imclient.Kind) string {
	return fmt.Sprintf("app%d_%s", appID, kind)
}

// Start starts to work on the runs of the engine's apps, whoever starts them. The
// context bounds only the start. Maintenance goes its own way from the first round
// on: rows without a partition go to the default one.
func (e *Engine) Start(ctx context.Context) error {
	e.config.Metrics.maintained.SetToCurrentTime()
	if err := e.store.CheckClock(ctx); err != nil {
		e.warnOfHousekeeping(err) // not only after the first round
		e.troubles.note("housekeeping", err)
	}
	loops, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	if err := e.queue.Start(loops); err != nil {
		cancel()
		return fmt.Errorf("start the queue's client: %w", err)
	}
	// Six beats within RescueAfter: work counts as lost after four, and is found
	// with the next. Maintenance may take long, so it goes its own way.
	e.background.Go(func() { e.repeat(loops, e.config.RescueAfter/6, e.rounds.of(e.housekeeping)) })
	if !e.store.PollOnly() {
		e.background.Go(func() { e.repeat(loops, announceEvery, e.announce) })
	}
	e.background.Go(func() { e.keepMaintained(loops) })
	e.background.Go(func() { e.keepRolledUp(loops) })
	return nil
}

// Stop lets pages in flight finish, gives unfinished ranges back to the queue
// and ends. When ctx ends first, calls in flight are cancelled and their pages
// are left unwritten; the ranges go on after the last page that was written.
func (e *Engine) Stop(ctx context.Context) error {
	defer e.again.flush(true)
	defer e.background.Wait()
	defer e.cancel()
	stopped := make(chan error, 1)
	// The queue is told first: a range that is given back should not come to this
	// process again. If it does all the same, it is given back once more.
	go func() { stopped <- e.queue.Stop(ctx) }()
	close(e.stopping)
	err := <-stopped
	if err == nil {
		// A process that lives for a moment, as a small backfill does, maintains the
		// tables too.
		select {
		case <-e.maintained:
		case <-ctx.Done():
		}
		return nil
	}
	const hardStop = 5 * time.Second // for giving ranges back after the calls were cancelled
	hardCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hardStop)
	defer cancel()
	if err := e.queue.StopAndCancel(hardCtx); err != nil {
		return fmt.Errorf("stop the queue's client: %w", err)
	}
	return nil
}

// isStopping reports whether no new page may be begun.
func (e *Engine) isStopping() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// enqueue puts the work on a range, or the planning of a run, into the queue.
func (e *Engine) enqueue(ctx context.Context) repo.Enqueue {
	return func(tx pgx.Tx, run repo.Run, rangeNo int) (int64, error) {
		var args river.JobArgs = rangeArgs{RunID: run.ID, RangeNo: rangeNo}
		if rangeNo == repo.PlanRange {
			args = planArgs{RunID: run.ID}
		}
		inserted, err := e.queue.InsertTx(ctx, tx, args, &river.InsertOpts{Queue: queueName(run.AppID, run.Kind)})
		if err != nil {
			return 0, fmt.Errorf("insert a job into the queue: %w", err)
		}
		if err := e.store.Announce(ctx, tx, inserted.Job.Queue); err != nil {
			return 0, err
		}
		return inserted.Job.ID, nil
	}
}

// housekeeping gives signs of life, takes over what others lost and keeps the
// clock. On a connection that was cut off it would wait for minutes, while others
// are good again: then it is given up, and with it the connection.
func (e *Engine) housekeeping(ctx context.Context) error {
	e.again.flush(false)
	ctx, cancel := context.WithTimeout(ctx, e.config.RescueAfter/3)
	defer cancel()
	err := errors.Join(e.store.ReadClock(ctx), e.store.CheckClock(ctx), e.store.Beat(ctx), e.rescue(ctx), e.watchWork(ctx))
	e.troubles.note("housekeeping", err)
	return err
}

// announce wakes the queues, here and in other processes, that have jobs to be
// worked on.
func (e *Engine) announce(ctx context.Context) error { return e.store.AnnounceDue(ctx, e.queues) }

// repeat does something again and again until the context ends. What fails, or
// panics, is tried again the next time.
func (e *Engine) repeat(ctx context.Context, every time.Duration, do func(context.Context) error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := imclient.Guard(func() error { return do(ctx) }); err != nil && ctx.Err() == nil {
			e.warnOfHousekeeping(err)
		}
	}
}

func (e *Engine) warnOfHousekeeping(err error) {
	e.again.warn("", "housekeeping failed; it will be tried again", err, nil)
}

// staleBefore is the time before which a sign of life is too old.
func (e *Engine) staleBefore() time.Time {
	return e.store.Now().Add(-e.config.RescueAfter * 2 / 3)
}

func (e *Engine) rescue(ctx context.Context) error {
	if e.isStopping() {
		return nil
	}
	appIDs := make([]int16, 0, len(e.apps))
	for id := range e.apps {
		appIDs = append(appIDs, id)
	}
	rescued, err := e.store.Rescue(ctx, appIDs, e.staleBefore(), e.enqueue(ctx))
	if err == nil && rescued > 0 {
		e.config.Metrics.rescued.Add(float64(rescued))
		e.log.Warn().Int("ranges", rescued).Msg("took over work whose worker gave no sign of life")
	}
	return err
}
