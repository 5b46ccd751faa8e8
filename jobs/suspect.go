package jobs

import (
	"context"
	"fmt"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// verdict is the judgement on a page's answers.
type verdict string

const (
	ordinary  verdict = ""          // they were not suspect
	suspect   verdict = "suspect"   // not written; the page is rechecked
	cleared   verdict = "cleared"   // the answers of the recheck are not suspect
	confirmed verdict = "confirmed" // every recheck brought suspect answers
	rejected  verdict = "rejected"  // as confirmed, but the second opinion, which could contradict them, is refused
)

// written reports whether the page is written.
func (v verdict) written() bool { return v != suspect && v != rejected }

// maxSuspectAnswers is how many answers in a row may be suspect; the last one is
// final.
const maxSuspectAnswers = 3

// review is the judgement on a page's answers.
type review struct {
	verdict verdict
	census        // of the page
	calls   int   // that are suspect by themselves
	refused error // why the server refused a second opinion
}

// census counts answered users of a call or of a page.
type census struct {
	before int // known not to be offline
	gone   int // of them, offline now
}

// reviewPresence judges a page's answers before they are written. A backend that
// partly fails reports users as offline with a success code; and OpenIM lists, of a
// user with connections to several gateways, the platforms of one only, not always
// the same. reviewPresence asks for the second opinions that the page needs; what is
// left to judge is how many users go offline at once by all opinions. A user whose own hook
// announced the logout does not count: two sources agree.
func reviewPresence(ctx context.Context, s *sweep[imclient.Presence], r *repo.Range, p *page[imclient.Presence]) error {
	calls := make([]census, len(p.result.Answers))
	gone := make(map[string]int)      // users to their calls
	told := make(map[string]struct{}) // those of gone whose own hook announced it
	var flipped []string
	now := s.store.Now()
	for u := range p.sights() {
		switch {
		case !u.prev.Exists() || u.prev.Value.State == imclient.StateOffline:
			continue
		case u.value.State == imclient.StateOffline:
			gone[u.userID] = u.call
			if s.lane.announced.logout(u.userID, now) {
				told[u.userID] = struct{}{}
				continue
			}
		case flips(u.prev.Value, u.value):
			flipped = append(flipped, u.userID)
		}
		calls[u.call].before++
	}
	if err := consult(ctx, s, p, gone, flipped); err != nil {
		return err
	}
	for userID, call := range gone {
		if _, ok := told[userID]; !ok {
			calls[call].gone++
		}
	}
	p.review.judge(s.config, calls, r.SuspectAnswers)
	return nil
}

// judge sets the verdict, after a number of suspect answers before. Each call is
// judged by itself too: one bad call among good ones is too little for a page.
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

// isSuspect reports whether too many users are gone at once. A ratio of 1 is never
// exceeded.
func (n census) isSuspect(c Config) bool {
	return n.gone >= c.CollapseMin && float64(n.gone) > c.CollapseRatio*float64(n.before)
}

// saveSuspect makes a page that is not written a range of its own.
func (s *sweep[V]) saveSuspect(ctx context.Context, r *repo.Range, p *page[V]) error {
	app := s.lane.app.Name
	page := repo.SuspectPage{
		After: p.after, LastKey: p.LastKey, Answers: r.SuspectAnswers + 1, RecheckAfter: s.store.Now().Add(s.config.CollapseDelay),
		Counters: repo.Counters{Calls: p.result.Calls.Made, Retries: p.result.Calls.Retries},
	}
	if p.review.verdict == rejected {
		page.Reason = p.review.rejection()
		page.Rejected = int64(len(p.IDs))
		page.Users = int64(len(p.IDs) + p.Bad)
		page.Failed = page.Users
	}
	no, err := s.store.SaveSuspect(ctx, r, page, s.enqueue(ctx))
	if err != nil {
		return err
	}
	s.log.Debug().Str("app", app).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).Int("range", r.No).
		Int64("calls", page.Calls).Int64("retries", page.Retries).Int("answers", page.Answers).Msg("page not written")
	if p.review.verdict == rejected {
		s.config.Metrics.rejectedAnswers.WithLabelValues(app).Add(float64(len(p.IDs)))
		s.warnReview(r, p.review, "the answers of a suspect page are rejected; its users keep their last known value", nil)
		return nil
	}
	if r.SuspectAnswers == 0 {
		s.config.Metrics.suspectPages.WithLabelValues(app).Inc()
	}
	s.warnReview(r, p.review, "too many users of a page are offline at once; it is rechecked", func(event *zerolog.Event) {
		event.Int("answers", page.Answers).Int("new_range", no).Time("recheck_after", page.RecheckAfter)
	})
	return nil
}

// rejection returns why a page's answers are rejected.
func (j review) rejection() string {
	return fmt.Sprintf("%d of %d users online went offline at once, and /user/get_users_status, which could confirm it, is refused: %v", j.gone, j.before, j.refused)
}

// warnReview logs a suspect page, one of many with as many answers.
func (s *sweep[V]) warnReview(r *repo.Range, judged review, message string, fields func(*zerolog.Event)) {
	reason := fmt.Sprintf("%s after %d answers", judged.verdict, r.SuspectAnswers+1)
	s.warnings.warnOf(warningKey{s.lane.app.Name, message, reason}, func(event *zerolog.Event) {
		event.Int64("run_id", r.Run.ID).Int("range", r.No).
			Int("before", judged.before).Int("gone", judged.gone).Int("suspect_calls", judged.calls).Str("verdict", string(judged.verdict))
		if fields != nil {
			fields(event)
		}
	})
}
