package jobs

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"

	"syncer/imclient"
	"syncer/repo"
	"syncer/repo/userstable"
)

// presenceAPI is what a presence sweep needs of a provider's client, which may be
// a statusAPI too.
type presenceAPI interface {
	// QueryPresence asks about at most MaxPresenceBatch distinct users. The answer
	// has every id once, observed or rejected; an error concerns the whole batch and
	// has a class.
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
	// Quotas are those of the APIs; State reports how far they are used.
	Quotas []*repo.Quota
}

// Config sizes the work. All fields but Tracer are needed.
type Config struct {
	RangeUsers  int           // users of a range
	PageUsers   int           // users of a page
	Workers     int           // ranges of one app and kind that this process works on at once
	RescueAfter time.Duration // a range is taken over once its worker was silent for so long
	Partition   string        // day, week or month
	Retention   time.Duration // of the histories; 0 keeps them
	// Archive, if not nil, archives the months that have ended, and compares those of
	// which partitions are about to be dropped. It returns until when all is archived, or
	// the zero time if another process is at it. Then only archived partitions are dropped.
	Archive    func(ctx context.Context, dropBefore time.Time) (until time.Time, err error)
	ReportZone *time.Location // whose days are rolled up
	Salt       repo.Salt      // of erasures; "": no user may be excluded
	Reindex    bool           // the store's role owns the queue's tables and may rebuild their indexes
	// A page is suspect if at least CollapseMin users of it, or of one of its calls,
	// and more than CollapseRatio of those who were reachable, are offline at once.
	// It is rechecked CollapseDelay after each answer. A ratio of 1 turns that off.
	CollapseRatio float64
	CollapseMin   int
	CollapseDelay time.Duration
	// A run that would remove more than RemovalRatio of at least RemovalMin known
	// users removes none. A ratio of 1 turns that off.
	RemovalRatio float64
	RemovalMin   int
	// A run is ended as failed if for Outage no process got an answer and no page of
	// the run was written.
	Outage time.Duration
	// HintShare is the share of an app's presence rate that hints may use while a sweep
	// runs. HintsPending is how many users may wait to be looked at, of all apps; 0 turns
	// hints off.
	HintShare    float64
	HintsPending int
	Metrics      *Metrics
	Log          zerolog.Logger
	Tracer       trace.Tracer // of runs, see TraceIDs; if nil, nothing is traced
}

// Engine works on the runs of its apps, together with all other engines on the
// same database. It is made by New, started once and stopped once.
type Engine struct {
	*shared
	queue     *queue
	scheduler *scheduler
	keeper    *keeper
	workers   *workers
	hinters   map[int16]*Hinter  // by app; empty if hints are off
	following sync.WaitGroup     // hinters
	abandon   context.CancelFunc // ends what hinters are doing
}

// shared is what the parts of an engine have in common.
type shared struct {
	store    *repo.Store
	apps     map[int16]*App
	lanes    map[string]*lane // by the name of the queue
	config   Config
	log      zerolog.Logger
	warnings *warnings
	recent   recentErrors
	stopping context.Context // once it has ended, no page is begun
	stop     context.CancelFunc
	closed   bell       // rung when this engine has closed a run
	lost     chan error // see Engine.Lost
}

// New returns an engine for the given apps.
func New(store *repo.Store, apps []*App, c Config) (*Engine, error) {
	s := &shared{
		store: store, apps: make(map[int16]*App, len(apps)), lanes: make(map[string]*lane, 2*len(apps)),
		config: c, log: c.Log, warnings: newWarnings(c.Log),
		lost: make(chan error, 1),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	for _, app := range apps {
		s.apps[app.ID] = app
		c.Metrics.show(app.Name)
		for _, kind := range imclient.Kinds() {
			l := s.newLane(app, kind)
			s.lanes[l.queue.Name] = l
		}
	}
	w := &workers{shared: s, firstRetry: firstRetry, yielded: yielded{until: make(map[rangeArgs]time.Time)}}
	q, err := newQueue(s, w)
	if err != nil {
		return nil, err
	}
	w.queue = q
	e := &Engine{shared: s, queue: q, workers: w, hinters: make(map[int16]*Hinter)}
	e.scheduler = &scheduler{shared: s, queue: q, followers: make(map[followed]*follower), longestWait: longestWait}
	e.keeper = newKeeper(s, q, e.scheduler)
	if c.HintsPending > 0 {
		r := &room{most: c.HintsPending}
		for _, app := range apps {
			h := newHinter(w, e.scheduler, s.lanes[queueName(app.ID, imclient.KindPresence)], r)
			h.lane.announced = h.announced
			e.hinters[app.ID] = h
		}
	}
	return e, nil
}

// Start starts to work on the runs of the engine's apps, started by this process
// or another. The context bounds only the start.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.queue.start(ctx); err != nil {
		return err
	}
	e.keeper.start(ctx)
	var follow context.Context
	follow, e.abandon = context.WithCancel(context.WithoutCancel(ctx))
	for _, h := range e.hinters {
		e.following.Go(func() { h.follow(follow) })
	}
	return nil
}

// Lost returns a channel that yields an error, wrapping repo.ErrAppLost, once the database
// has lost an app of this engine. The engine starts and claims nothing more of that app:
// the caller must stop it and begin again with repo.Store.EnsureApp.
func (e *Engine) Lost() <-chan error { return e.lost }

// Stop lets the pages in flight finish, returns unfinished ranges to the queue and
// ends. If ctx ends first, calls in flight are cancelled and their pages stay
// unwritten; the ranges continue after the last written page.
func (e *Engine) Stop(ctx context.Context) error {
	defer e.warnings.flush(true)
	defer e.scheduler.running.Wait()
	defer e.keeper.stop()
	defer e.following.Wait()
	defer e.abandon()
	stopped := make(chan error, 1)
	// The queue first: a range that is returned should not come to this process
	// again. If it does, it is returned once more.
	go func() { stopped <- e.queue.stop(ctx) }()
	e.shared.stop()
	err := <-stopped
	if err == nil {
		e.keeper.awaitMaintained(ctx)
	}
	return err
}

// isStopping reports whether no page may be begun.
func (s *shared) isStopping() bool { return s.stopping.Err() != nil }
