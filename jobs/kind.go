package jobs

import (
	"context"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
)

// sweepKind is what differs between the kinds of runs.
type sweepKind interface {
	// maxBatch returns how many users a call may ask about.
	maxBatch(app *App) int
	// sweep sweeps a range. It returns what it has written; unsaved counts the calls
	// for pages that were not written. It returns ask.ErrStopped if the engine stops.
	sweep(ctx context.Context, w *workers, r *repo.Range, unsaved *tally) (written repo.Counters, err error)
	// reconcile finds who left the users table, see repo.Values.Reconcile.
	reconcile(ctx context.Context, store *repo.Store, r *repo.Range, next func(context.Context) ([]string, error), hold func(repo.Leavers) string) (repo.Leavers, error)
}

var presenceKind = kindOf[imclient.Presence]{
	query:  func(a *App) queryFunc[imclient.Presence] { return a.Presence.QueryPresence },
	batch:  func(a *App) int { return a.Presence.MaxPresenceBatch() },
	values: (*repo.Store).Presence,
	count:  countPresence,
	review: reviewPresence,
}

var kinds = map[imclient.Kind]sweepKind{
	imclient.KindPresence: presenceKind,
	imclient.KindAccounts: kindOf[imclient.AccountStatus]{
		query:  func(a *App) queryFunc[imclient.AccountStatus] { return a.Accounts.CheckAccounts },
		batch:  func(a *App) int { return a.Accounts.MaxAccountsBatch() },
		values: (*repo.Store).Accounts,
		count:  countAccount,
	},
}

// queryFunc asks an API about users, see ask.API.
type queryFunc[V comparable] func(ctx context.Context, ids []string) (imclient.Answer[V], error)

// kindOf is a kind whose values are of type V.
type kindOf[V comparable] struct {
	query  func(*App) queryFunc[V]
	batch  func(*App) int
	values func(*repo.Store) *repo.Values[V]
	count  func(counts repo.RangeCounts, v V, users int64)
	// review judges a page's answers before they are written. If nil, they are
	// written as they are.
	review func(ctx context.Context, s *sweep[V], r *repo.Range, p *page[V]) error
}

func (k kindOf[V]) maxBatch(app *App) int { return k.batch(app) }

func (k kindOf[V]) sweep(ctx context.Context, w *workers, r *repo.Range, unsaved *tally) (repo.Counters, error) {
	lane, spans := w.lane(r.Run), w.spansOf(r.Run)
	s := &sweep[V]{
		shared: w.shared, enqueue: w.queue.enqueue, lane: lane, kind: k, spans: spans, unsaved: unsaved,
		source: w.source(lane.app, r.Run), values: k.values(w.store),
	}
	s.api = s.behind(lane.breaker, k.query(lane.app))
	err := s.run(ctx, r)
	return s.written, err
}

// behind returns the API that is queried behind a breaker, whose calls are counted
// and traced.
func (s *sweep[V]) behind(breaker *ask.Breaker, q queryFunc[V]) *ask.API[V] {
	retries := s.config.Metrics.retries.WithLabelValues(s.lane.app.Name, string(s.lane.queue.Kind))
	return &ask.API[V]{
		Query: traced(s.spans, paced(s.pace, q)), MaxBatch: s.kind.batch(s.lane.app), Breaker: breaker,
		Count: func(c ask.Calls) {
			s.unsaved.add(repo.Counters{Calls: c.Made, Retries: c.Retries})
			retries.Add(float64(c.Retries)) // also those of pages that are never written
		},
	}
}

// paced returns q with a wait before each call.
func paced[V comparable](pace func(context.Context) error, q queryFunc[V]) queryFunc[V] {
	if pace == nil {
		return q
	}
	return func(ctx context.Context, ids []string) (imclient.Answer[V], error) {
		if err := pace(ctx); err != nil {
			return imclient.Answer[V]{}, err
		}
		return q(ctx, ids)
	}
}

func (k kindOf[V]) reconcile(ctx context.Context, store *repo.Store, r *repo.Range, next func(context.Context) ([]string, error), hold func(repo.Leavers) string) (repo.Leavers, error) {
	return k.values(store).Reconcile(ctx, r, next, hold)
}

// allPlatforms is the platform under which every user counts once.
const allPlatforms = "all"

// add counts users of a state on a platform.
func add(counts repo.RangeCounts, state, platform string, users int64) {
	if counts[state] == nil {
		counts[state] = map[string]int64{}
	}
	counts[state][platform] += users
}

// countPresence counts a user once in all, and on each platform by the mode there:
// a user who is online on one may be reachable by push alone on another.
func countPresence(counts repo.RangeCounts, v imclient.Presence, users int64) {
	add(counts, v.State.String(), allPlatforms, users)
	for platform, mode := range v.Platforms {
		switch mode {
		case imclient.ModeNone:
		case imclient.ModePushOnline:
			add(counts, imclient.StatePushOnline.String(), imclient.Platform(platform).String(), users)
		default:
			add(counts, imclient.StateOnline.String(), imclient.Platform(platform).String(), users)
		}
	}
}

func countAccount(counts repo.RangeCounts, v imclient.AccountStatus, users int64) {
	add(counts, v.String(), allPlatforms, users)
}
