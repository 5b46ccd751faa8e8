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
	ordinary    verdict = ""            // nothing looked odd
	inDoubt     verdict = "in doubt"    // to be asked again
	recovered   verdict = "recovered"   // asked again, the answers look ordinary
	confirmed   verdict = "confirmed"   // the second opinion agrees
	believed    verdict = "believed"    // all answers agree, and there is no second opinion
	disbelieved verdict = "disbelieved" // the second opinion contradicted every answer, or was refused
)

// written reports whether the page is to be written.
func (v verdict) written() bool { return v != inDoubt && v != disbelieved }

// CodeContradicted is the failure of a user about whom the second opinion says
// otherwise.
const CodeContradicted = "contradicted"

// maxAnswers is how many answers in a row may be in doubt: the third decides.
const maxAnswers = 3

// review is the judgement on a page's answers.
type review struct {
	verdict verdict
	before  int   // users who were known not to be offline
	gone    int   // those of them who are said to be offline now
	refused error // why there is no second opinion although the server has one
}

// reviewer looks at the answers of presence pages before they are believed. A
// backend that is half broken answers "everybody is offline", with a success
// code; and OpenIM lists, of a user with connections to several gateways, the
// platforms of one only, now of this and now of that.
type reviewer struct {
	engine *Engine
	app    *App
	second *secondOpinion // nil: the provider has none
	// unsaved counts its calls, retries those of them that repeat one.
	unsaved *tally
	retries prometheus.Counter
	spans   spans
}

// review judges a page, and settles what is only a flip of platforms.
func (v *reviewer) review(ctx context.Context, r *repo.Range, p *page[imclient.Presence]) error {
	gone := v.gone(p)
	var err error
	switch collapsed := v.isCollapse(len(gone), p.review.before); {
	case collapsed && r.Suspicion == 0:
		p.review.verdict = inDoubt
	case collapsed:
		p.review.verdict, err = v.reconsider(ctx, r, p, gone)
	case r.Suspicion > 0:
		p.review.verdict = recovered
	}
	if err != nil || !p.review.verdict.written() {
		return err
	}
	return v.settleFlips(ctx, p)
}

// gone lists the users who were reachable in some way and are said to be
// offline, and counts.
func (v *reviewer) gone(p *page[imclient.Presence]) (ids []string) {
	for i := range p.known.Snapshots {
		if known := &p.known.Snapshots[i]; known.Exists() && known.Value.State != imclient.StateOffline {
			p.review.before++
		}
	}
	for u := range p.sights() {
		if u.prev.Exists() && u.prev.Value.State != imclient.StateOffline && u.value.State == imclient.StateOffline {
			ids = append(ids, u.userID)
		}
	}
	p.review.gone = len(ids)
	return ids
}

// isCollapse reports whether too many users are gone at once to be believed. A
// ratio of 1 is never exceeded.
func (v *reviewer) isCollapse(gone, before int) bool {
	c := v.engine.config
	return gone >= c.CollapseMin && float64(gone) > c.CollapseRatio*float64(before)
}

// reconsider decides about a page that was asked about again and is as odd as
// before. A user about whom the second opinion says nothing is not confirmed. A
// few who are not do not hold up a real logout, but they fail: the longer a
// gateway is dead, the more of its users have left in truth, and the others
// must not go with them.
func (v *reviewer) reconsider(ctx context.Context, r *repo.Range, p *page[imclient.Presence], gone []string) (verdict, error) {
	opinions, offered, err := v.ask(ctx, p, gone)
	if err != nil {
		return inDoubt, err
	}
	contradicted := make(map[string]bool)
	for _, id := range gone {
		if o, ok := opinions[id]; !ok || o.value.State != imclient.StateOffline {
			contradicted[id] = true
		}
	}
	switch {
	case offered && len(contradicted) < v.engine.config.CollapseMin:
		p.result.reject(contradicted)
		return confirmed, nil
	case r.Suspicion+1 < maxAnswers:
		return inDoubt, nil
	case offered:
		return disbelieved, nil
	default:
		return believed, nil
	}
}

// reject makes failures of the answers about some users.
func (r *batchResult[V]) reject(ids map[string]bool) {
	for i := range r.answers {
		answer := &r.answers[i]
		left := answer.Observed[:0]
		for _, o := range answer.Observed {
			if ids[o.UserID] {
				answer.Rejected = append(answer.Rejected, imclient.UserError{
					UserID: o.UserID, Code: CodeContradicted, Text: "two APIs contradict each other about this user",
				})
				continue
			}
			left = append(left, o)
		}
		answer.Observed = left
	}
}

// setAside makes a range of its own of a page that is not written.
func (s *sweep[V]) setAside(ctx context.Context, r *repo.Range, p *page[V]) error {
	e := s.engine
	app := e.apps[r.Run.AppID].Name
	aside := repo.Aside{
		After: p.after, LastKey: p.LastKey, Suspicion: r.Suspicion + 1, AskAfter: e.store.Now().Add(e.config.CollapseDelay),
		Counters: repo.Counters{Calls: p.result.made.Calls, Retries: p.result.made.Retries},
	}
	if p.review.verdict == disbelieved {
		aside.Reason = p.review.disbelief()
		aside.Disbelieved = int64(len(p.IDs))
		aside.Users = int64(len(p.IDs) + p.Bad)
		aside.Failed = aside.Users
	}
	no, err := e.store.SetAside(ctx, r, aside, e.enqueue(ctx))
	if err != nil {
		return err
	}
	if p.review.verdict == disbelieved {
		e.config.Metrics.disbelievedUsers.WithLabelValues(app).Add(float64(len(p.IDs)))
		s.tellReview(r, p.review, "a page stayed in doubt; its users keep their last known value", nil)
		return nil
	}
	if r.Suspicion == 0 {
		e.config.Metrics.suspectPages.WithLabelValues(app).Inc()
	}
	s.tellReview(r, p.review, "too many users of a page are offline at once; it is asked again", func(event *zerolog.Event) {
		event.Int("answers", aside.Suspicion).Int("new_range", no).Time("ask_after", aside.AskAfter)
	})
	return nil
}

// disbelief says why a page is given up.
func (r review) disbelief() string {
	why := " contradicts"
	if r.refused != nil {
		why = ", which could confirm it, is refused: " + r.refused.Error()
	}
	return fmt.Sprintf("%d of %d users online went offline at once, and /user/get_users_status%s", r.gone, r.before, why)
}

// tellReview warns of a page in doubt: of one of many whose doubt is as old.
func (s *sweep[V]) tellReview(r *repo.Range, judged review, message string, fields func(*zerolog.Event)) {
	app := s.engine.apps[r.Run.AppID].Name
	reason := fmt.Sprintf("%s after %d answers", judged.verdict, r.Suspicion+1)
	s.engine.again.tell(repeated{app, message, reason}, func(event *zerolog.Event) {
		event.Int64("run_id", r.Run.ID).Int("range", r.No).
			Int("before", judged.before).Int("gone", judged.gone).Str("verdict", string(judged.verdict))
		if fields != nil {
			fields(event)
		}
	})
}
