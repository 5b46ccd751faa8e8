package jobs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/repo"
)

// statusAPI is what the client of a provider may have besides presenceAPI: a
// second way to ask the same, as many users at once, whose answers do not fail
// in the same way.
type statusAPI interface {
	// QueryStatus answers as QueryPresence does, but all devices are ModeOnline.
	// errors.ErrUnsupported: this server does not offer it.
	QueryStatus(ctx context.Context, ids []string) (imclient.Answer[imclient.Presence], error)
}

// secondOpinion is an app's statusAPI, and whether its server offers it.
type secondOpinion struct {
	api statusAPI

	mu        sync.Mutex
	missingAt time.Time // when the server said that it does not
}

// lookAgain is how long a server is taken not to offer a second opinion after
// it said so.
const lookAgain = time.Hour

func (o *secondOpinion) offered(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.missingAt.IsZero() || now.Sub(o.missingAt) >= lookAgain
}

// missing notes that it is not offered, and reports whether that is news.
func (o *secondOpinion) missing(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	news := o.missingAt.IsZero() || now.Sub(o.missingAt) >= lookAgain
	o.missingAt = now
	return news
}

// opinion is what the second opinion says of a user.
type opinion struct {
	value      imclient.Presence
	answeredAt time.Time
	rejected   *imclient.UserError // nil: it says value
}

// consult asks for a second opinion about the users of a page who would go
// offline, the keys of gone, and about those who would be online on other
// platforms, in the same calls, and settles the page's answers with it. It takes
// out of gone the users whom it does not confirm. Without a second opinion it
// does nothing.
func (v *reviewer) consult(ctx context.Context, p *page[imclient.Presence], gone map[string]int, flipped []string) error {
	ids := flipped
	for id := range gone {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	opinions, err := v.ask(ctx, p, ids)
	if err != nil || opinions == nil {
		return err
	}
	p.result.answers, p.contradicted = settle(p.result.answers, opinions, func(id string) imclient.Platforms {
		return p.known.Snapshot(p.place(id, 0)).Value.Platforms
	})
	for id := range gone {
		if o := opinions[id]; o.rejected != nil || o.value.State != imclient.StateOffline {
			delete(gone, id)
		}
	}
	return nil
}

// ask returns the second opinion about some users of a page, nil if there is
// none. Its calls are the page's.
func (v *reviewer) ask(ctx context.Context, p *page[imclient.Presence], ids []string) (map[string]opinion, error) {
	now := v.engine.store.Now()
	if v.second == nil || !v.second.offered(now) {
		return nil, nil
	}
	asker := asker[imclient.Presence]{ask: tracedAsk(v.spans, v.second.api.QueryStatus), maxBatch: v.app.Presence.MaxPresenceBatch(), unsaved: v.unsaved, retries: v.retries}
	var result batchResult[imclient.Presence]
	err := asker.askAll(ctx, ids, &result)
	p.result.made.Add(result.made)
	if errors.Is(err, errors.ErrUnsupported) {
		if v.second.missing(now) {
			v.engine.log.Warn().Str("app", v.app.Name).Err(err).
				Msg("the server offers no second opinion: users go offline, and platforms change, by the first; suspect pages are confirmed by their rechecks")
		}
		return nil, nil
	}
	if apiErr, ok := errors.AsType[*imclient.Error](err); ok && apiErr.Class == imclient.ClassFatal {
		// The operator has to mend it, and there is work to do meanwhile. If it is not
		// this API alone that is refused, the next page ends the run.
		p.review.refused = apiErr
		v.engine.again.warn(v.app.Name, "the second opinion is refused: users go offline, and platforms change, by the first; suspect pages are rejected", err, nil)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	opinions := make(map[string]opinion, len(ids))
	for i := range result.answers {
		answer := &result.answers[i]
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
// counts with it, for by one opinion it holds; so it never lapses, unlike that of
// a user about whom the API says nothing. The failure keeps since when nothing is
// sure.
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

// tellContradicted warns of the contradicted users of a page that is written.
func (s *sweep[V]) tellContradicted(r *repo.Range, users int) {
	app := s.engine.apps[r.Run.AppID].Name
	const message = "users are offline in one answer and not in the second opinion; they keep their last known value"
	s.engine.again.tell(repeated{app, message, CodeContradicted}, func(event *zerolog.Event) {
		event.Int64("run_id", r.Run.ID).Int("range", r.No).Int("contradicted", users)
	})
}
