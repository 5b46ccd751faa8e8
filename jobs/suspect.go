package jobs

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// verdict is what became of a page's answers.
type verdict string

const (
	ordinary  verdict = ""          // they were not suspect
	suspect   verdict = "suspect"   // not yet believed: the page is rechecked
	cleared   verdict = "cleared"   // the recheck's answers are not suspect any more
	confirmed verdict = "confirmed" // every recheck brought suspect answers again
	rejected  verdict = "rejected"  // so it did, and the second opinion, which could say that they are wrong, is refused
)

// written reports whether the page is to be written.
func (v verdict) written() bool { return v != suspect && v != rejected }

// maxSuspectAnswers is how many answers in a row may be suspect; the last one
// decides.
const maxSuspectAnswers = 3

// review is the judgement on a page's answers.
type review struct {
	verdict verdict
	census        // of the page
	calls   int   // that are suspect each for itself
	refused error // why there is no second opinion although the server has one
}

// census counts the users of a call, or of a page, who are answered about.
type census struct {
	before int // those known not to be offline
	gone   int // those of them who are offline now
}

// reviewer looks at the answers of presence pages before they are believed. A
// backend that is half broken calls users offline, with a success code; and
// OpenIM lists, of a user with connections to several gateways, the platforms of
// one only, not always the same.
type reviewer struct {
	engine *Engine
	app    *App
	second *secondOpinion // nil: the provider has none
	// unsaved counts its calls, retries those of them that repeat one.
	unsaved *tally
	retries prometheus.Counter
	spans   spans
}

// review asks for the second opinions that a page needs, and judges the page.
// What is left to judge is how many users go offline at once, by all opinions
// there are.
func (v *reviewer) review(ctx context.Context, r *repo.Range, p *page[imclient.Presence]) error {
	calls := make([]census, len(p.result.answers))
	gone := make(map[string]int) // users to their calls
	var flipped []string
	for u := range p.sights() {
		switch {
		case !u.prev.Exists() || u.prev.Value.State == imclient.StateOffline:
			continue
		case u.value.State == imclient.StateOffline:
			gone[u.userID] = u.call
		case flips(u.prev.Value, u.value):
			flipped = append(flipped, u.userID)
		}
		calls[u.call].before++
	}
	if err := v.consult(ctx, p, gone, flipped); err != nil {
		return err
	}
	for _, call := range gone {
		calls[call].gone++
	}
	p.review.judge(v.engine.config, calls, r.SuspectAnswers)
	return nil
}

// judge gives the verdict, after so many suspect answers before. A call is judged
// for itself too: one that goes wrong among good ones is too little for a page.
func (j *review) judge(c Config, calls []census, before int) {
	for _, call := range calls {
		j.before += call.before
		j.gone += call.gone
		if call.isSuspect(c) {
			j.calls++
		}
	}
	switch isSuspect := j.calls > 0 || j.isSuspect(c); {
	case !isSuspect && before == 0:
		j.verdict = ordinary
	case !isSuspect:
		j.verdict = cleared
	case before+1 < maxSuspectAnswers:
		j.verdict = suspect
	case j.refused != nil:
		j.verdict = rejected
	default:
		j.verdict = confirmed
	}
}

// isSuspect reports whether too many users are gone at once to be believed. A
// ratio of 1 is never exceeded.
func (n census) isSuspect(c Config) bool {
	return n.gone >= c.CollapseMin && float64(n.gone) > c.CollapseRatio*float64(n.before)
}

// saveSuspect makes a range of its own of a page that is not written.
func (s *sweep[V]) saveSuspect(ctx context.Context, r *repo.Range, p *page[V]) error {
	e := s.engine
	app := e.apps[r.Run.AppID].Name
	page := repo.SuspectPage{
		After: p.after, LastKey: p.LastKey, Answers: r.SuspectAnswers + 1, RecheckAfter: e.store.Now().Add(e.config.CollapseDelay),
		Counters: repo.Counters{Calls: p.result.made.Calls, Retries: p.result.made.Retries},
	}
	if p.review.verdict == rejected {
		page.Reason = p.review.rejection()
		page.Rejected = int64(len(p.IDs))
		page.Users = int64(len(p.IDs) + p.Bad)
		page.Failed = page.Users
	}
	no, err := e.store.SaveSuspect(ctx, r, page, e.enqueue(ctx))
	if err != nil {
		return err
	}
	e.log.Debug().Str("app", app).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).Int("range", r.No).
		Int64("calls", page.Calls).Int64("retries", page.Retries).Int("answers", page.Answers).Msg("page not written")
	if p.review.verdict == rejected {
		e.config.Metrics.rejectedAnswers.WithLabelValues(app).Add(float64(len(p.IDs)))
		s.tellReview(r, p.review, "the answers of a suspect page are rejected; its users keep their last known value", nil)
		return nil
	}
	if r.SuspectAnswers == 0 {
		e.config.Metrics.suspectPages.WithLabelValues(app).Inc()
	}
	s.tellReview(r, p.review, "too many users of a page are offline at once; it is rechecked", func(event *zerolog.Event) {
		event.Int("answers", page.Answers).Int("new_range", no).Time("recheck_after", page.RecheckAfter)
	})
	return nil
}

// rejection says why a page's answers are rejected.
func (j review) rejection() string {
	return fmt.Sprintf("%d of %d users online went offline at once, and /user/get_users_status, which could confirm it, is refused: %v", j.gone, j.before, j.refused)
}

// tellReview warns of a suspect page: of one of many with as many answers.
func (s *sweep[V]) tellReview(r *repo.Range, judged review, message string, fields func(*zerolog.Event)) {
	app := s.engine.apps[r.Run.AppID].Name
	reason := fmt.Sprintf("%s after %d answers", judged.verdict, r.SuspectAnswers+1)
	s.engine.again.tell(repeated{app, message, reason}, func(event *zerolog.Event) {
		event.Int64("run_id", r.Run.ID).Int("range", r.No).
			Int("before", judged.before).Int("gone", judged.gone).Int("suspect_calls", judged.calls).Str("verdict", string(judged.verdict))
		if fields != nil {
			fields(event)
		}
	})
}
