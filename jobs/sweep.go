package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
	"syncer/repo/userstable"
)

// sweep goes through a range of one kind.
type sweep[V comparable] struct {
	asker[V]
	engine *Engine
	source userSource
	values *repo.Values[V]
	count  func(counts repo.RangeCounts, v V, users int64)
	// review judges a page's answers before they are believed; nil: they are.
	review  func(ctx context.Context, r *repo.Range, p *page[V]) error
	written repo.Counters // by save, one page after the other
	spans   spans
}

// tally counts the calls made for pages that are not written (yet).
type tally struct {
	mu   sync.Mutex
	made repo.Counters
}

func (t *tally) add(made repo.Counters) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.made.Add(made)
}

// page is a page on its way: read, then asked about, then written in the order
// in which the pages were read.
type page[V comparable] struct {
	userstable.Page                // ids distinct and in order, with the names of unfit ones
	asked           []string       // the ids without the unfit ones
	after           *string        // the key before it; nil: it is the first
	repeats         map[string]int // of ids that more than one row has, how many more
	known           repo.Known[V]
	result          batchResult[V]
	contradicted    []string // users of whom the second opinion says otherwise
	review          review
	written         repo.Counters
	err             error
	done            chan struct{} // closed when asked about
	span            trace.Span
}

// sortIDs puts the ids in order, each once, and notes those of several rows.
func (p *page[V]) sortIDs() {
	slices.Sort(p.IDs)
	for i := 1; i < len(p.IDs); i++ {
		if p.IDs[i] == p.IDs[i-1] {
			if p.repeats == nil {
				p.repeats = make(map[string]int)
			}
			p.repeats[p.IDs[i]]++
		}
	}
	p.IDs = slices.Compact(p.IDs)
}

// rows returns how many rows of the page have the id.
func (p *page[V]) rows(id string) int { return 1 + p.repeats[id] }

// sight is a user of a page of whom an answer gives a value.
type sight[V comparable] struct {
	call   int // the place of answer among the page's
	answer *imclient.Answer[V]
	userID string
	value  V
	prev   *repo.Snapshot[V] // what was known before, if it exists
}

// sights gives all users whom the page's answers have values of.
func (p *page[V]) sights() iter.Seq[sight[V]] {
	return func(yield func(sight[V]) bool) {
		for i := range p.result.answers {
			answer := &p.result.answers[i]
			at := 0
			for _, o := range answer.Observed {
				at = p.place(o.UserID, at)
				if !yield(sight[V]{i, answer, o.UserID, o.Value, p.known.Snapshot(at)}) {
					return
				}
				at++ // an answer has its users in the page's order
			}
		}
	}
}

// different returns how many sights are not what is known.
func (p *page[V]) different() (n int) {
	for u := range p.sights() {
		if !u.prev.Exists() || u.prev.Value != u.value {
			n++
		}
	}
	return n
}

// place gives the place of a user among the page's, probably the given one.
func (p *page[V]) place(userID string, at int) int {
	if at >= len(p.IDs) || p.IDs[at] != userID {
		at, _ = slices.BinarySearch(p.IDs, userID)
	}
	return at
}

// pagesAhead is how many pages of one range are asked about while one is being
// written, so that API latency and database time hide each other.
const pagesAhead = 2

// run sweeps what is left of the range. It returns what it has written, the calls
// that it made for pages that were not, and errStopped when the engine stops first.
func (s *sweep[V]) run(ctx context.Context, r *repo.Range) (written, unsaved repo.Counters, err error) {
	counts := repo.RangeCounts{}
	if err := json.Unmarshal(r.Counts, &counts); err != nil {
		return written, unsaved, fmt.Errorf("read the counts of range %d of run %d: %w", r.No, r.Run.ID, err)
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
			s.unsaved.add(repo.Counters{Calls: -p.result.made.Calls, Retries: -p.result.made.Retries})
		}
		return nil
	}))
	err = group.Wait()
	for p := range pages {
		p.endPage(r, cmp.Or(p.err, errUnwritten))
	}
	if err == nil && stopped {
		err = errStopped
	}
	return s.written, s.unsaved.made, err
}

// read reads the pages of the range and starts to ask about each, when there is
// a place for it among the pages of all ranges. It reports whether it left off
// because the engine stops; the pages until then are written all the same.
func (s *sweep[V]) read(ctx context.Context, r *repo.Range, pages chan<- *page[V]) (stopped bool, err error) {
	after, limit := r.Lower, s.engine.config.PageUsers
	places := s.engine.asking[queueName(r.Run.AppID, r.Run.Kind)]
	var asked sync.WaitGroup
	defer asked.Wait() // the calls of pages that nobody takes count too
	for !s.engine.isStopping() {
		select {
		case places <- struct{}{}:
		case <-s.engine.stopping:
			return true, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		pageCtx, span := s.spans.begin(ctx, "page")
		users, err := s.source.Page(pageCtx, after, r.Upper, limit)
		if err != nil || users.Rows == 0 {
			<-places
			(&page[V]{span: span}).endPage(r, err)
			return false, err
		}
		p := &page[V]{Page: users, after: after, done: make(chan struct{}), span: span}
		p.sortIDs()
		p.rejectUnfit()
		asked.Go(func() {
			defer close(p.done)
			defer func() { <-places }()
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

// rejectUnfit rejects the users who cannot be asked about. The others are asked.
func (p *page[V]) rejectUnfit() {
	p.asked = p.IDs
	if len(p.Unfit) == 0 {
		return
	}
	p.IDs = slices.Clone(p.asked)
	rejected := make(map[string]imclient.UserError)
	for _, u := range p.Unfit {
		p.IDs = append(p.IDs, u.ID)
		rejected[u.ID] = imclient.UserError{UserID: u.ID, Code: imclient.CodeInvalidID, Text: u.Text}
	}
	slices.Sort(p.IDs)
	p.IDs = slices.Compact(p.IDs)
	p.result.add(imclient.Answer[V]{Rejected: slices.Collect(maps.Values(rejected))})
}

// query asks about the page's users, loads what is known about them and judges
// the answers. The loading comes last because pages wait for their call times
// most of their life, and what is known is the greater part of them.
func (s *sweep[V]) query(ctx context.Context, r *repo.Range, p *page[V]) error {
	if len(p.IDs) == 0 {
		return nil
	}
	defer func(begun time.Time) {
		s.engine.config.Metrics.asked(s.engine.apps[r.Run.AppID].Name, r.Run.Kind, time.Since(begun))
	}(time.Now())
	if err := s.askAll(ctx, p.asked, &p.result); err != nil {
		return err
	}
	var err error
	loadCtx, span := s.spans.begin(ctx, "load")
	p.known, err = s.values.Load(loadCtx, r.Run.AppID, p.IDs)
	end(span, err)
	if err != nil || s.review == nil {
		return err
	}
	return s.review(ctx, r, p)
}

// save writes the page. Once it is answered it is written even though the
// engine is told to stop hard, if the database is quick.
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
	if !errors.Is(err, repo.ErrGone) {
		s.engine.troubles.note("write a page", err)
	}
	if err != nil {
		return err
	}
	app := s.engine.apps[r.Run.AppID].Name
	out.Changed = changed
	p.written = out.Counters
	s.written.Add(out.Counters)
	s.engine.config.Metrics.wrote(app, r.Run.Kind, out.Users, changed, out.Failed, time.Since(begun))
	s.engine.log.Debug().Str("app", app).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).Int("range", r.No).Int64("users", out.Users).
		Int64("changed", changed).Int64("failed", out.Failed).Int64("calls", out.Calls).
		Int64("retries", out.Retries).Int("unasked", p.result.unasked).
		Int("unknown_platforms", p.result.unknownPlatforms).Msg("page written")
	if p.review.verdict != ordinary {
		s.tellReview(r, p.review, "a suspect page is decided", nil)
	}
	if len(p.contradicted) > 0 {
		s.engine.config.Metrics.contradictedUsers.WithLabelValues(app).Add(float64(len(p.contradicted)))
		s.tellContradicted(r, len(p.contradicted))
	}
	return nil
}

// diff compares the answers with what is known; only what is new or different
// is written.
func (s *sweep[V]) diff(run repo.Run, p *page[V], counts repo.RangeCounts) repo.Page[V] {
	out := repo.Page[V]{LastKey: p.LastKey, Counts: counts, Changes: make([]repo.Change[V], 0, p.different())}
	seen := make(map[V]int64)
	for u := range p.sights() {
		seen[u.value]++
		failed, failing := p.known.Failing[u.userID]
		if !u.prev.Exists() && failed.LastAt.After(u.answer.AskedAt) {
			continue // the user may have lapsed since, on another page
		}
		out.Known.Add(u.userID, p.rows(u.userID))
		if failing {
			out.Recovered = append(out.Recovered, repo.Recovery{UserID: u.userID, AskedAt: u.answer.AskedAt})
		}
		if u.prev.Exists() {
			out.Kept.Add(u.userID, p.rows(u.userID))
			if u.prev.Value == u.value {
				continue
			}
		}
		change := repo.Change[V]{UserID: u.userID, Value: u.value, AskedAt: u.answer.AskedAt, ObservedAt: u.answer.AnsweredAt}
		if u.prev.Exists() {
			change.Prev = u.prev
			change.NotBefore = lastKnown(u.prev, run.PrevCompleteAt)
			if failing {
				change.NotBefore = later(u.prev.AskedAt, failed.KnownAt)
			}
		}
		out.Changes = append(out.Changes, change)
	}
	for _, id := range p.contradicted {
		seen[p.known.Snapshot(p.place(id, 0)).Value]++
		s.contradict(run, p, &out, id)
	}
	for value, users := range seen {
		s.count(counts, value, users)
	}
	for i := range p.result.answers {
		answer := &p.result.answers[i]
		for _, rejected := range answer.Rejected {
			s.reject(run, p, &out, rejected, answer.AskedAt)
		}
	}
	slices.SortFunc(out.Changes, func(a, b repo.Change[V]) int { return strings.Compare(a.UserID, b.UserID) })
	out.Users = int64(len(p.IDs) + p.Bad)
	out.Failed += int64(p.Bad)
	out.Calls, out.Retries = p.result.made.Calls, p.result.made.Retries
	if p.Bad > 0 {
		out.Failures = append(out.Failures, repo.Failure{UserError: badRows(p)})
	}
	return out
}

// reject records that the API rejected a user. One who has been rejected for
// longer than the run's max_gap lapses: nobody knows the user's value any more.
// With a lapse the failure is recorded anew, so that no answer from before the lapse
// brings the user back.
func (s *sweep[V]) reject(run repo.Run, p *page[V], out *repo.Page[V], rejected imclient.UserError, asked time.Time) {
	failure := repo.Failure{UserError: rejected}
	prev := p.known.Snapshot(p.place(rejected.UserID, 0))
	failed, failing := p.known.Failing[rejected.UserID]
	lapses := false
	if prev.Exists() {
		out.Kept.Add(rejected.UserID, p.rows(rejected.UserID))
		failure.KnownAt = lastKnown(prev, run.PrevCompleteAt)
		now := s.engine.store.Now()
		knownAt := later(prev.AskedAt, failed.KnownAt)
		if lapses = failing && run.MaxGap > 0 && now.Sub(knownAt) > run.MaxGap; lapses {
			out.Lapses = append(out.Lapses, repo.Lapse{UserID: rejected.UserID, ChangedAt: prev.ChangedAt, NotBefore: knownAt, AskedAt: asked, ObservedAt: now})
		} else {
			out.Known.Add(rejected.UserID, p.rows(rejected.UserID))
		}
	}
	s.fail(run, p, out, failure, lapses)
}

// fail counts a user who has no new value. A failure that goes on is most often
// recorded already; anew records it all the same.
func (s *sweep[V]) fail(run repo.Run, p *page[V], out *repo.Page[V], failure repo.Failure, anew bool) {
	out.Failed++
	if failed, failing := p.known.Failing[failure.UserID]; failing && failed.Code == failure.Code && !run.RecordFailures && !anew {
		return
	}
	out.Failures = append(out.Failures, failure)
}

// lastKnown is when a user was last known to have the snapshot's value: when the
// previous complete run began, in which it was seen again, or when the question was
// sent that brought it. A snapshot that is newer than the beginning of that run may
// have overtaken what the run saw. Not so if the API has rejected the user since:
// then user_failure says when.
func lastKnown[V comparable](prev *repo.Snapshot[V], prevComplete *time.Time) time.Time {
	if prevComplete == nil || prev.ChangedAt.After(*prevComplete) {
		return prev.AskedAt
	}
	return *prevComplete
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// CodeNullID is the failure of rows that have no id, all in one.
const CodeNullID = "null_id"

// badRows is the failure of the rows of a page that have no id to ask about.
func badRows[V comparable](p *page[V]) imclient.UserError {
	text := fmt.Sprintf("rows of the users table with a NULL or empty user_id: %d, with key %s", p.Bad, strings.Join(p.BadKeys, ", "))
	if p.Bad > len(p.BadKeys) {
		text += ", …"
	}
	return imclient.UserError{UserID: "", Code: CodeNullID, Text: text + "; leave them out with [users] where"}
}

// all is the platform under which every user counts once.
const allPlatforms = "all"

func countPresence(counts repo.RangeCounts, v imclient.Presence, users int64) {
	state := v.State.String()
	if counts[state] == nil {
		counts[state] = map[string]int64{}
	}
	counts[state][allPlatforms] += users
	for platform, mode := range v.Platforms {
		if mode == imclient.ModeNone {
			continue
		}
		// A platform counts by the user's mode on it: a user who is online on one may
		// be reachable by push alone on another.
		reached := imclient.StateOnline.String()
		if mode == imclient.ModePushOnline {
			reached = imclient.StatePushOnline.String()
		}
		if counts[reached] == nil {
			counts[reached] = map[string]int64{}
		}
		counts[reached][imclient.Platform(platform).String()] += users
	}
}

func countAccount(counts repo.RangeCounts, v imclient.AccountStatus, users int64) {
	status := v.String()
	if counts[status] == nil {
		counts[status] = map[string]int64{}
	}
	counts[status][allPlatforms] += users
}
