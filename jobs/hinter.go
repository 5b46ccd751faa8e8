package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// What becomes of hints, each in one of these.
const (
	hintConfirmed    = "confirmed"    // the API agreed, and it was news
	hintRepeated     = "repeated"     // it announced what was known, or another one replaced it
	hintContradicted = "contradicted" // the API disagreed, twice
	hintUnknownUser  = "unknown_user" // the user has no snapshot
	hintDropped      = "dropped"      // for want of room or time, or without an answer
)

var hintResults = []string{hintConfirmed, hintRepeated, hintContradicted, hintUnknownUser, hintDropped}

const (
	// collectFor is how long hints are collected, unless a call is full before.
	collectFor = 200 * time.Millisecond
	// contradictedFor is after how long a contradicted hint is asked about once more: the
	// API may show later what the hook announced.
	contradictedFor = 2 * time.Second
	// hintPause is how long hints rest after a failure.
	hintPause = time.Second
	// hintRound limits the work on one round of hints.
	hintRound = 2 * time.Minute
)

// Hinter looks at users of an app whom hooks name, beside the sweeps: through the same
// API, quota and circuit breaker, and with the same writes. What it writes is what the API
// answers. It is safe for concurrent use.
type Hinter struct {
	*workers
	scheduler *scheduler
	lane      *lane
	values    *repo.Values[imclient.Presence]
	announced *announced
	gate      *imclient.Gate // the share of the rate that hints may use while a sweep runs, in all processes
	quota     *repo.Quota    // of gate; nil: the app's API has no quota
	wake      chan struct{}  // rung when a hint comes
	full      chan struct{}  // rung when a call is full
	unsaved   tally          // calls that no run has counted yet

	mu      sync.Mutex
	waiting *hints

	round    sync.Mutex // of the fields below
	run      repo.HintRun
	sweeping bool // a sweep was running in the last round
}

func newHinter(w *workers, scheduler *scheduler, l *lane, r *room) *Hinter {
	h := &Hinter{
		workers: w, scheduler: scheduler, lane: l, values: w.store.Presence(), announced: newAnnounced(w.config.HintsPending),
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1), waiting: newHints(r),
	}
	if quota := l.app.quota(imclient.KindPresence); quota != nil {
		h.quota = w.store.Quota(l.app.ID, hintQuota, w.config.HintShare*quota.Limit())
		h.gate = imclient.NewGate(h.quota, w.store.Now)
	}
	return h
}

// hintQuota names the row of api_quota with the call times that hints may use while a sweep
// runs.
const hintQuota = "hints"

// Hints returns what looks at users of an app whom hooks name, nil if the engine was made
// without.
func (e *Engine) Hints(appID int16) *Hinter { return e.hinters[appID] }

// Tell takes hooks that arrived at a time by the database's clock. It does not block, and
// drops what it has no room for.
func (h *Hinter) Tell(hooks []imclient.Hook, arrived time.Time) {
	for i := range hooks {
		h.announced.note(hooks[i].UserID, hooks[i].Logout, arrived)
	}
	h.mu.Lock()
	var repeated, dropped int
	for i := range hooks {
		switch replaced, taken := h.waiting.add(&hint{Hook: hooks[i], arrived: arrived}); {
		case replaced:
			repeated++
		case !taken:
			dropped++
		}
	}
	full := len(h.waiting.order) >= h.lane.kind.maxBatch(h.lane.app)
	h.mu.Unlock()
	h.count(hintRepeated, repeated)
	h.count(hintDropped, dropped)
	if full {
		h.ring(h.full)
	}
	h.ring(h.wake)
}

func (h *Hinter) ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

func (h *Hinter) count(result string, n int) {
	if n > 0 {
		h.config.Metrics.hints.WithLabelValues(h.lane.app.Name, result).Add(float64(n))
	}
}

// follow looks at the users of hints until the engine stops. The context ends what is going
// on then.
func (h *Hinter) follow(ctx context.Context) {
	for h.await() {
		select {
		case <-h.full:
		case <-time.After(collectFor):
		case <-h.stopping.Done():
			return
		}
		for more := true; more && !h.isStopping(); {
			var err error
			if more, err = h.Look(ctx); err != nil {
				select {
				case <-time.After(ask.Jitter(2 * hintPause)):
				case <-h.stopping.Done():
				}
			}
		}
	}
}

// await waits for a hint, or until one is due again. It reports false if the engine stops.
func (h *Hinter) await() bool {
	h.mu.Lock()
	var due <-chan time.Time
	switch {
	case len(h.waiting.order) > 0: // those that are held
		due = time.After(hintPause)
	case len(h.waiting.later) > 0:
		due = time.After(max(h.waiting.later[0].due.Sub(h.store.Now()), 0))
	}
	h.mu.Unlock()
	select {
	case <-h.wake:
	case <-due:
	case <-h.stopping.Done():
		return false
	}
	return true
}

// Look looks at users who wait, at most as many as a page holds, and reports whether more
// wait. It does nothing while the API gives no answer or the database's clock is in doubt.
// If it fails for what may pass, the hints wait on.
func (h *Hinter) Look(ctx context.Context) (more bool, err error) {
	h.round.Lock()
	defer h.round.Unlock()
	if _, outage := h.lane.breaker.Outage(); outage || h.store.ClockDoubt() != nil {
		return false, nil
	}
	taken, more := h.take()
	if len(taken) == 0 {
		return more, nil
	}
	ctx, cancel := context.WithTimeout(ctx, hintRound)
	defer cancel()
	err = imclient.Guard(func() (err error) {
		taken, err = h.look(ctx, taken)
		return err
	})
	if err == nil {
		return more, nil
	}
	apiErr, ofAPI := errors.AsType[*imclient.Error](err)
	switch {
	case errors.Is(err, repo.ErrOvertaken):
		h.count(hintDropped, len(taken)) // the run that began looks at them
		return more, nil
	case isOtherApp(err) || ofAPI && (apiErr.Class == imclient.ClassFatal || apiErr.Class == imclient.ClassUnauthorised):
		h.count(hintDropped, len(taken)) // the operator has to act; sweeps say the same
	default:
		h.mu.Lock()
		left := h.waiting.back(taken)
		h.mu.Unlock()
		h.count(hintDropped, left)
	}
	if !h.isStopping() {
		h.warnings.warn(h.lane.app.Name, "hints could not be followed", err, nil)
	}
	return more, err
}

// take removes the users to look at next, and reports whether more wait. If more wait than
// a sweep would take to reach, it drops all; and those who wait for longer than that.
func (h *Hinter) take() (taken []*hint, more bool) {
	now, reach := h.store.Now(), h.scheduler.sweepEvery(h.lane.app.ID)
	h.mu.Lock()
	repeated := h.waiting.ripen(now)
	dropped := 0
	if most := h.mostWithin(reach); most > 0 && float64(h.waiting.size()) > most {
		dropped = h.waiting.clear()
	}
	taken = h.waiting.take(h.config.PageUsers)
	more = len(h.waiting.order) > 0
	h.mu.Unlock()
	if reach > 0 {
		all := len(taken)
		taken = slices.DeleteFunc(taken, func(t *hint) bool { return now.Sub(t.arrived) > reach })
		dropped += all - len(taken)
	}
	h.count(hintRepeated, repeated)
	h.count(hintDropped, dropped)
	return taken, more
}

// mostWithin returns how many users hints can look at within a time; 0: there is no limit.
func (h *Hinter) mostWithin(d time.Duration) float64 {
	quota := h.lane.app.quota(imclient.KindPresence)
	if quota == nil {
		return 0
	}
	rate := quota.Limit()
	if h.sweeping {
		rate *= h.config.HintShare
	}
	return rate * d.Seconds() * float64(h.lane.kind.maxBatch(h.lane.app))
}

// hinted are the users of a round who are worth a question.
type hinted struct {
	hints     []*hint // in the order of their ids
	ids       []string
	snapshots []repo.Snapshot[imclient.Presence]
}

// choose returns those of the taken whom to ask about. It counts the others.
func (h *Hinter) choose(taken []*hint, known *repo.Hinted[imclient.Presence]) (chosen hinted) {
	unknown, repeated := 0, 0
	for i, t := range taken {
		prev := known.Snapshot(i)
		switch {
		case !prev.Exists():
			unknown++
		case t.repeats(prev.Value):
			repeated++
		default:
			chosen.hints, chosen.ids, chosen.snapshots = append(chosen.hints, t), append(chosen.ids, t.UserID), append(chosen.snapshots, *prev)
		}
	}
	h.count(hintUnknownUser, unknown)
	h.count(hintRepeated, repeated)
	return chosen
}

// look asks about users, and writes what changed. On an error it returns the hints that are
// not dealt with.
func (h *Hinter) look(ctx context.Context, taken []*hint) (left []*hint, err error) {
	slices.SortFunc(taken, func(a, b *hint) int { return strings.Compare(a.UserID, b.UserID) })
	ids := make([]string, len(taken))
	for i, t := range taken {
		ids[i] = t.UserID
	}
	known, err := h.values.LoadHinted(ctx, h.lane.app.ID, ids)
	if err != nil {
		return taken, err
	}
	chosen := h.choose(taken, &known)
	if len(chosen.ids) == 0 {
		return nil, nil
	}
	return chosen.hints, h.lookAt(ctx, chosen, &known)
}

func (h *Hinter) lookAt(ctx context.Context, chosen hinted, known *repo.Hinted[imclient.Presence]) error {
	if err := h.beginRound(ctx, known.Sweeping); err != nil {
		return err
	}
	p := &page[imclient.Presence]{Page: userstable.Page{IDs: chosen.ids}, asked: chosen.ids}
	p.known = repo.Known[imclient.Presence]{Snapshots: chosen.snapshots, Failing: known.Failing}
	r := &repo.Range{Run: repo.Run{
		ID: h.run.ID, AppID: h.run.AppID, Job: repo.HintJob, Kind: imclient.KindPresence, Trigger: repo.TriggerHint,
		PrevCompleteAt: known.PrevCompleteAt,
	}}
	s := h.sweep()
	ctx = imclient.Urgent(ctx) // at its share of the rate, past the calls of sweeps
	if err := s.api.All(ctx, p.asked, &p.result); err != nil {
		return err
	}
	if err := reviewPresence(ctx, s, r, p); err != nil {
		return err
	}
	return h.save(ctx, s, r, p, chosen)
}

// beginRound makes sure that the round has a run, and sets how fast it may ask.
func (h *Hinter) beginRound(ctx context.Context, sweeping bool) error {
	h.sweeping = sweeping
	if h.quota != nil {
		h.quota.SetLimit(h.config.HintShare * h.lane.app.quota(imclient.KindPresence).Limit())
	}
	if h.run.ID != 0 && h.run.Hour.Equal(h.store.Now().UTC().Truncate(time.Hour)) {
		return nil
	}
	var err error
	h.run, err = h.store.HintRun(ctx, h.lane.app.ID)
	return err
}

// sweep returns what asks and judges as a sweep does.
func (h *Hinter) sweep() *sweep[imclient.Presence] {
	kind := presenceKind
	s := &sweep[imclient.Presence]{shared: h.shared, lane: h.lane, kind: kind, values: h.values, unsaved: &h.unsaved}
	if h.sweeping && h.gate != nil {
		s.pace = func(ctx context.Context) error {
			_, err := h.gate.Wait(ctx)
			return err
		}
	}
	s.api = s.behind(h.lane.breaker, kind.query(h.lane.app))
	return s
}

// save writes the changes of a round, and settles its hints. Only values are written: who
// failed, and for how long, sweeps record. A round that is suspect is not written, and not
// rechecked either: the next sweep judges.
func (h *Hinter) save(ctx context.Context, s *sweep[imclient.Presence], r *repo.Range, p *page[imclient.Presence], chosen hinted) error {
	var changes []repo.Change[imclient.Presence]
	if p.review.verdict.written() {
		changes = s.diff(r.Run, p, repo.RangeCounts{}).Changes
	}
	for i := range changes {
		c := &changes[i]
		c.ToldAt = chosen.hints[p.place(c.UserID, 0)].told(c.Value)
	}
	made := h.unsaved.take()
	made.Users = int64(len(chosen.ids))
	changed, err := h.values.SaveHinted(ctx, h.run, changes, made)
	h.recent.note("write what hints led to", ignoring(err, repo.ErrOvertaken, repo.ErrGone))
	if err != nil {
		h.unsaved.add(repo.Counters{Calls: made.Calls, Retries: made.Retries})
		if errors.Is(err, repo.ErrGone) {
			h.run = repo.HintRun{}
		}
		return err
	}
	app := h.lane.app.Name
	h.config.Metrics.transitions.WithLabelValues(app, foundByHint).Add(float64(changed))
	h.log.Debug().Str("app", app).Str("job", repo.HintJob).Int64("run_id", h.run.ID).Int64("users", made.Users).
		Int64("changed", changed).Int64("calls", made.Calls).Int64("retries", made.Retries).Msg("hints followed")
	if !p.review.verdict.written() {
		h.warnReview(s, p)
		h.count(hintDropped, len(chosen.hints))
		return nil
	}
	h.settle(p, chosen)
	return nil
}

// warnReview logs a round that is suspect.
func (h *Hinter) warnReview(s *sweep[imclient.Presence], p *page[imclient.Presence]) {
	const message = "too many users whom hints named are offline at once, against their hints; the next sweep judges"
	h.warnings.warnOf(warningKey{s.lane.app.Name, message, ""}, func(event *zerolog.Event) {
		event.Int("before", p.review.before).Int("gone", p.review.gone).Int("suspect_calls", p.review.calls)
	})
}

// settle compares the hints of a round with its answers.
func (h *Hinter) settle(p *page[imclient.Presence], chosen hinted) {
	answered := make(map[string]imclient.Presence, len(chosen.ids))
	for u := range p.sights() {
		answered[u.userID] = u.value
	}
	for _, id := range p.contradicted { // by the second opinion
		answered[id] = chosen.snapshots[p.place(id, 0)].Value
	}
	now := h.store.Now()
	counts := make(map[string]int)
	for i, t := range chosen.hints {
		value, ok := answered[t.UserID]
		switch {
		case !ok: // the API rejects the user
			counts[hintDropped]++
		case !t.agrees(value) && !t.again:
			h.mu.Lock()
			h.waiting.putOff(t, now.Add(contradictedFor))
			h.mu.Unlock()
		case !t.agrees(value):
			counts[hintContradicted]++
		case value == chosen.snapshots[i].Value:
			counts[hintRepeated]++
		default:
			counts[hintConfirmed]++
			h.config.Metrics.hintDelay.Observe(max(now.Sub(t.arrived), 0).Seconds())
		}
	}
	for result, n := range counts {
		h.count(result, n)
	}
	h.ring(h.wake) // for those that were put off
}

// ignoring returns err, nil if it is one of the others.
func ignoring(err error, others ...error) error {
	for _, other := range others {
		if errors.Is(err, other) {
			return nil
		}
	}
	return err
}
