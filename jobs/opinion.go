package jobs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
)

// statusAPI is a second API for the same question, with batches of the same size,
// that a provider's client may have besides presenceAPI. It does not fail in the
// same way.
type statusAPI interface {
	// QueryStatus answers as QueryPresence does, but all devices are ModeOnline.
	// It returns errors.ErrUnsupported if the server does not offer it.
	QueryStatus(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error)
}

// secondOpinion is the statusAPI of an app. It is safe for concurrent use.
type secondOpinion struct {
	api statusAPI

	mu        sync.Mutex
	missingAt time.Time // when the server last did not offer it
}

// lookAgain is when a server that did not offer a second opinion is asked again.
const lookAgain = time.Hour

func (o *secondOpinion) offered(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.missingAt.IsZero() || now.Sub(o.missingAt) >= lookAgain
}

// missing records that it is not offered, and reports whether that is new.
func (o *secondOpinion) missing(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	news := o.missingAt.IsZero() || now.Sub(o.missingAt) >= lookAgain
	o.missingAt = now
	return news
}

// opinion is the second opinion about a user.
type opinion struct {
	value      imclient.Presence
	answeredAt time.Time
	rejected   *imclient.UserError // if nil, value holds
}

// consult asks for a second opinion about the users of a page who would go offline
// (the keys of gone) or would be online on other platforms (flipped), and settles
// the page's answers with it. It deletes from gone the users who are not confirmed.
// Without a second opinion it does nothing.
func consult(ctx context.Context, s *sweep[imclient.Presence], p *page[imclient.Presence], gone map[string]int, flipped []string) error {
	ids := flipped
	for id := range gone {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	opinions, err := askAgain(ctx, s, p, ids)
	if err != nil || opinions == nil {
		return err
	}
	p.result.Answers, p.contradicted = settle(p.result.Answers, opinions, func(id string) imclient.Platforms {
		return p.known.Snapshot(p.place(id, 0)).Value.Platforms
	})
	for id := range gone {
		if o := opinions[id]; o.rejected != nil || o.value.State != imclient.StateOffline {
			delete(gone, id)
		}
	}
	return nil
}

// askAgain returns the second opinion about users of a page, nil if there is none.
// Its calls count as the page's.
func askAgain(ctx context.Context, s *sweep[imclient.Presence], p *page[imclient.Presence], ids []string) (map[string]opinion, error) {
	now := s.store.Now()
	second := s.lane.opinion
	if second == nil || !second.offered(now) {
		return nil, nil
	}
	// Not behind the breaker, which stands before the first API.
	var result ask.Result[imclient.Presence]
	err := s.behind(nil, second.api.QueryStatus).All(ctx, ids, &result)
	p.result.Calls.Made += result.Calls.Made
	p.result.Calls.Retries += result.Calls.Retries
	if errors.Is(err, errors.ErrUnsupported) {
		if second.missing(now) {
			s.log.Warn().Str("app", s.lane.app.Name).Err(err).
				Msg("the server offers no second opinion: users go offline, and platforms change, by the first; suspect pages are confirmed by their rechecks")
		}
		return nil, nil
	}
	if apiErr, ok := errors.AsType[*imclient.Error](err); ok && apiErr.Class == imclient.ClassFatal {
		// The operator has to act, and the work continues meanwhile. If the other API is
		// refused too, the next page ends the run.
		p.review.refused = apiErr
		s.warnings.warn(s.lane.app.Name, "the second opinion is refused: users go offline, and platforms change, by the first; suspect pages are rejected", err, nil)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	opinions := make(map[string]opinion, len(ids))
	for i := range result.Answers {
		answer := &result.Answers[i]
		for _, o := range answer.Observed {
			opinions[o.UserID] = opinion{value: o.Value, answeredAt: answer.AnsweredAt}
		}
		for _, rejected := range answer.Rejected {
			opinions[rejected.UserID] = opinion{rejected: &rejected}
		}
	}
	return opinions, nil
}

// flips reports whether a user is online as before, but not on the same platforms.
func flips(prev, value imclient.Presence) bool {
	return prev.State == imclient.StateOnline && value.State == imclient.StateOnline && !prev.Platforms.SameDevices(value.Platforms)
}

// settle returns the answers as they are with the second opinions, and the users
// whom these contradict. known returns the platforms in a user's snapshot.
//
// A user who is offline by both opinions, and one who is online, is in an answer
// that ends when both had arrived. Online users are on the platforms of either: a
// user whose answers alternate between two gateways comes out the same each time,
// and makes no transition. A platform that only the second opinion has gets the
// mode of the snapshot. A user whom one opinion calls offline and the other does
// not is contradicted, whatever the number of such users; one about whom the
// second opinion says nothing is rejected as it says. So the second opinion turns
// no user offline by itself.
func settle(answers []imclient.Answer[imclient.Presence], opinions map[string]opinion, known func(id string) imclient.Platforms) (settled []imclient.Answer[imclient.Presence], contradicted []string) {
	var apart []imclient.Answer[imclient.Presence]
	for i := range answers {
		answer := &answers[i]
		both := imclient.Answer[imclient.Presence]{AskedAt: answer.AskedAt, AnsweredAt: answer.AnsweredAt}
		alone := answer.Observed[:0]
		for _, o := range answer.Observed {
			second, asked := opinions[o.UserID]
			offline := o.Value.State == imclient.StateOffline
			switch {
			case !asked || second.rejected != nil && !offline:
				alone = append(alone, o)
			case second.rejected != nil:
				answer.Rejected = append(answer.Rejected, *second.rejected)
			case offline && second.value.State != imclient.StateOffline:
				contradicted = append(contradicted, o.UserID)
			default:
				o.Value.Platforms = union(o.Value.Platforms, second.value.Platforms, known(o.UserID))
				both.Observed = append(both.Observed, o)
				if second.answeredAt.After(both.AnsweredAt) {
					both.AnsweredAt = second.answeredAt
				}
			}
		}
		answer.Observed = alone
		if len(both.Observed) > 0 {
			apart = append(apart, both)
		}
	}
	return append(answers, apart...), contradicted
}

// union adds to an answer's platforms those that only the second opinion has.
func union(answer, second, known imclient.Platforms) imclient.Platforms {
	for platform, mode := range second {
		if mode == imclient.ModeNone || answer[platform] != imclient.ModeNone {
			continue
		}
		if known[platform] != imclient.ModeNone {
			mode = known[platform]
		}
		answer[platform] = mode
	}
	return answer
}

// CodeContradicted is the failure of a user whom one opinion calls offline and
// the second does not.
const CodeContradicted = "contradicted"

// contradict records that a user is contradicted. The user keeps the snapshot, and
// counts with it, because by one opinion it holds; it never lapses, unlike that of
// a user about whom the API says nothing. The failure keeps since when the value is
// uncertain.
func (s *sweep[V]) contradict(run repo.Run, p *page[V], out *repo.Page[V], id string) {
	prev := p.known.Snapshot(p.place(id, 0))
	out.Kept.Add(id, p.rows(id))
	out.Known.Add(id, p.rows(id))
	s.fail(run, p, out, repo.Failure{
		UserError: imclient.UserError{
			UserID: id, Code: CodeContradicted,
			Text: "get_users_online_status calls the user offline, get_users_status does not; the last known value stays until they agree",
		},
		KnownAt: lastKnown(prev, run.PrevCompleteAt),
	}, false)
}

// warnContradicted logs the contradicted users of a page that is written.
func (s *sweep[V]) warnContradicted(r *repo.Range, users int) {
	const message = "users are offline in one answer and not in the second opinion; they keep their last known value"
	s.warnings.warnOf(warningKey{s.lane.app.Name, message, CodeContradicted}, func(event *zerolog.Event) {
		event.Int64("run_id", r.Run.ID).Int("range", r.No).Int("contradicted", users)
	})
}
