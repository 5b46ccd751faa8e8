package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
)

// sweep goes through one range of a run.
type sweep[V comparable] struct {
	*shared
	enqueue func(context.Context) repo.Enqueue
	lane    *lane
	kind    kindOf[V]
	api     *ask.API[V]
	source  userSource
	values  *repo.Values[V]
	unsaved *tally
	// pace waits before each call, besides the quota. If nil, none waits.
	pace    func(context.Context) error
	written repo.Counters // one page after the other
	spans   spans
}

// tally counts the calls for pages that are not written, or not yet. It is safe for
// concurrent use.
type tally struct {
	mu   sync.Mutex
	made repo.Counters
}

func (t *tally) add(made repo.Counters) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.made.Add(made)
}

// take returns what was counted, and begins anew.
func (t *tally) take() repo.Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	made := t.made
	t.made = repo.Counters{}
	return made
}

// pagesAhead is how many pages of one range are asked about while one is written,
// so that the latency of the API and of the database overlap.
const pagesAhead = 2

// run sweeps what is left of the range. It returns ask.ErrStopped if the engine
// stops first.
func (s *sweep[V]) run(ctx context.Context, r *repo.Range) error {
	if err := s.config.Salt.Check(r); err != nil {
		return err
	}
	counts := repo.RangeCounts{}
	if err := json.Unmarshal(r.Counts, &counts); err != nil {
		return fmt.Errorf("read the counts of range %d of run %d: %w", r.No, r.Run.ID, err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	pages := make(chan *page[V], pagesAhead-1)
	stopped := false
	group.Go(guard(func() (err error) {
		defer close(pages)
		stopped, err = s.read(groupCtx, r, pages)
		return err
	}))
	group.Go(guard(func() error {
		for p := range pages {
			<-p.done
			err := p.err
			if err == nil {
				err = s.save(groupCtx, r, p, counts)
			}
			p.endPage(r, err)
			if err != nil {
				return err
			}
			s.unsaved.add(repo.Counters{Calls: -p.result.Calls.Made, Retries: -p.result.Calls.Retries})
		}
		return nil
	}))
	err := group.Wait()
	for p := range pages {
		p.endPage(r, cmp.Or(p.err, errUnwritten))
	}
	if err == nil && stopped {
		err = ask.ErrStopped
	}
	return err
}

// read reads the pages of the range and starts to ask about each once the lane has
// a slot. It reports whether it ended because the engine stops; the pages until then
// are written all the same.
func (s *sweep[V]) read(ctx context.Context, r *repo.Range, pages chan<- *page[V]) (stopped bool, err error) {
	after, limit, slots := r.Lower, s.config.PageUsers, s.lane.slots
	var asked sync.WaitGroup
	defer asked.Wait() // the calls of pages that are not written count too
	for !s.isStopping() {
		select {
		case slots <- struct{}{}:
		case <-s.stopping.Done():
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		pageCtx, span := s.spans.begin(ctx, "page")
		users, err := s.source.Page(pageCtx, after, r.Upper, limit)
		err = ofUsers(err)
		if err != nil || users.Rows == 0 {
			<-slots
			(&page[V]{span: span}).endPage(r, err)
			return false, err
		}
		users.IDs = s.config.Salt.Skip(r, users.IDs)
		p := &page[V]{Page: users, after: after, done: make(chan struct{}), span: span}
		p.sortIDs()
		p.rejectUnfit()
		asked.Go(func() {
			defer close(p.done)
			defer func() { <-slots }()
			p.err = guard(func() error { return s.query(pageCtx, r, p) })()
		})
		select {
		case pages <- p:
		case <-ctx.Done():
			<-p.done
			p.endPage(r, cmp.Or(p.err, errUnwritten))
			return false, ctx.Err()
		}
		if !users.More {
			return false, nil
		}
		after = new(p.LastKey)
	}
	return true, nil
}

// query asks about the page's users, loads their snapshots and reviews the answers.
// The snapshots come last because a page waits for its call times most of its life,
// and they are the greater part of it.
func (s *sweep[V]) query(ctx context.Context, r *repo.Range, p *page[V]) error {
	if len(p.IDs) == 0 {
		return nil
	}
	defer func(begun time.Time) {
		s.config.Metrics.asked(s.lane.app.Name, r.Run.Kind, time.Since(begun))
	}(time.Now())
	if err := s.api.All(ctx, p.asked, &p.result); err != nil {
		return err
	}
	var err error
	loadCtx, span := s.spans.begin(ctx, "load")
	p.known, err = s.values.Load(loadCtx, r.Run.AppID, p.IDs)
	end(span, err)
	if err != nil || s.kind.review == nil {
		return err
	}
	return s.kind.review(ctx, s, r, p)
}

// save writes the page. A page that is answered is written even if the engine stops
// hard, if the database is quick.
func (s *sweep[V]) save(ctx context.Context, r *repo.Range, p *page[V], counts repo.RangeCounts) (err error) {
	const saveTimeout = time.Minute
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	if p.span.IsRecording() {
		ctx = trace.ContextWithSpan(ctx, p.span)
	}
	ctx, span := s.spans.begin(ctx, "save")
	defer func() { end(span, err) }()
	if !p.review.verdict.written() {
		return s.saveSuspect(ctx, r, p)
	}
	begun := time.Now()
	out := s.diff(r.Run, p, counts)
	changed, err := s.values.SavePage(ctx, r, out)
	if !errors.Is(err, repo.ErrGone) && !errors.Is(err, repo.ErrErased) {
		s.recent.note("write a page", err)
	}
	if err != nil {
		return err
	}
	app := s.lane.app.Name
	out.Changed = changed
	p.written = out.Counters
	s.written.Add(out.Counters)
	if r.Run.Kind == imclient.KindPresence {
		s.config.Metrics.transitions.WithLabelValues(app, foundBySweep).Add(float64(max(changed-out.FirstSeen(), 0)))
	}
	s.config.Metrics.wrote(app, r.Run.Kind, out.Users, changed, out.Failed, time.Since(begun))
	s.log.Debug().Str("app", app).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).Int("range", r.No).Int64("users", out.Users).
		Int64("changed", changed).Int64("failed", out.Failed).Int64("calls", out.Calls).
		Int64("retries", out.Retries).Int("unasked", p.result.Unasked).
		Int("unknown_platforms", p.result.UnknownPlatforms).Msg("page written")
	if p.review.verdict != ordinary {
		s.warnReview(r, p.review, "a suspect page is decided", nil)
	}
	if len(p.contradicted) > 0 {
		s.config.Metrics.contradictedUsers.WithLabelValues(app).Add(float64(len(p.contradicted)))
		s.warnContradicted(r, len(p.contradicted))
	}
	return nil
}
