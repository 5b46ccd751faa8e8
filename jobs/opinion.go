package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"syncer/imclient"
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
}

// ask gives the second opinion about some users of a page; offered is false
// when there is none. One that is refused says nothing about anybody. Its calls
// are the page's.
func (v *reviewer) ask(ctx context.Context, p *page[imclient.Presence], ids []string) (opinions map[string]opinion, offered bool, err error) {
	now := v.engine.store.Now()
	if v.second == nil || !v.second.offered(now) {
		return nil, false, nil
	}
	asker := asker[imclient.Presence]{ask: tracedAsk(v.spans, v.second.api.QueryStatus), maxBatch: v.app.Presence.MaxPresenceBatch(), unsaved: v.unsaved, retries: v.retries}
	var result batchResult[imclient.Presence]
	err = asker.askAll(ctx, ids, &result)
	p.result.made.Add(result.made)
	if errors.Is(err, errors.ErrUnsupported) {
		if v.second.missing(now) {
			v.engine.log.Warn().Str("app", v.app.Name).Err(err).
				Msg("the server offers no second opinion: answers in doubt are believed when they repeat themselves, and platforms as they come")
		}
		return nil, false, nil
	}
	if apiErr, ok := errors.AsType[*imclient.Error](err); ok && apiErr.Class == imclient.ClassFatal {
		// Somebody has to mend it, and there is work to do meanwhile. If it is not
		// this API alone that is refused, the next page ends the run.
		p.review.refused = apiErr
		v.engine.again.warn(v.app.Name, "the second opinion is refused: answers in doubt are not believed, and platforms as they come", err, nil)
		return nil, true, nil
	}
	if err != nil {
		return nil, true, err
	}
	opinions = make(map[string]opinion, len(ids))
	for i := range result.answers {
		for _, o := range result.answers[i].Observed {
			opinions[o.UserID] = opinion{o.Value, result.answers[i].AnsweredAt}
		}
	}
	return opinions, true, nil
}

// settleFlips asks for a second opinion about the users who were online and
// are, but not on the same platforms. They are on those of either answer: a user
// whose answers alternate between two gateways comes out the same each time, and
// makes no transition.
func (v *reviewer) settleFlips(ctx context.Context, p *page[imclient.Presence]) error {
	var flipped []string
	for u := range p.sights() {
		// One who was not known has no state.
		if u.prev.Value.State == imclient.StateOnline && u.value.State == imclient.StateOnline &&
			!u.prev.Value.Platforms.SameDevices(u.value.Platforms) {
			flipped = append(flipped, u.userID)
		}
	}
	if len(flipped) == 0 {
		return nil
	}
	opinions, _, err := v.ask(ctx, p, flipped)
	if err != nil || len(opinions) == 0 {
		return err
	}
	p.result.answers = merge(p.result.answers, opinions, func(id string) imclient.Platforms {
		return p.known.Snapshots[p.place(id, 0)].Value.Platforms
	})
	return nil
}

// merge puts the users with a second opinion into answers of their own, which
// end when both answers had arrived. A platform that only the second opinion
// knows has the mode that it was known with.
func merge(answers []imclient.Answer[imclient.Presence], opinions map[string]opinion, known func(id string) imclient.Platforms) []imclient.Answer[imclient.Presence] {
	var apart []imclient.Answer[imclient.Presence]
	for i := range answers {
		answer := &answers[i]
		merged := imclient.Answer[imclient.Presence]{AskedAt: answer.AskedAt, AnsweredAt: answer.AnsweredAt}
		alone := answer.Observed[:0]
		for _, o := range answer.Observed {
			second, ok := opinions[o.UserID]
			if !ok {
				alone = append(alone, o)
				continue
			}
			o.Value.Platforms = union(o.Value.Platforms, second.value.Platforms, known(o.UserID))
			merged.Observed = append(merged.Observed, o)
			if second.answeredAt.After(merged.AnsweredAt) {
				merged.AnsweredAt = second.answeredAt
			}
		}
		answer.Observed = alone
		if len(merged.Observed) > 0 {
			apart = append(apart, merged)
		}
	}
	return append(answers, apart...)
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
