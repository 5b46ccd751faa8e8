package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
)

// asker asks one API of an app about users, in batches.
type asker[V comparable] struct {
	ask      func(ctx context.Context, ids []string) (imclient.Answer[V], error)
	maxBatch int
	breaker  *breaker // nil: calls are made whatever became of others
	unsaved  *tally
	retries  prometheus.Counter // those of pages that are never written count too
}

// batchResult is what the batches of a page came back with.
type batchResult[V comparable] struct {
	mu               sync.Mutex
	answers          []imclient.Answer[V]
	made             repo.Counters // Calls and Retries
	unasked          int
	unknownPlatforms int
}

// callsAhead is how many calls of one app and kind may be waiting for their call
// time or on the wire. More would not make the quota any larger, but a stop would
// wait for them, and pages would be finished later for it.
const callsAhead = 64

// pagesAsked is how many pages of one app and kind are asked about at once: as
// many as make up callsAhead calls, and one more for the ends of pages.
func pagesAsked(pageUsers, maxBatch int) int {
	calls := (pageUsers + maxBatch - 1) / maxBatch
	return 1 + (callsAhead+calls-1)/calls
}

// askAll asks about all ids in batches. Either every id is in one of the
// answers, observed or rejected, or an error says why not; the calls count in
// both cases.
func (a *asker[V]) askAll(ctx context.Context, ids []string, result *batchResult[V]) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(callsAhead)
	for start := 0; start < len(ids); start += a.maxBatch {
		batch := ids[start:min(start+a.maxBatch, len(ids))]
		group.Go(guard(func() error {
			made, err := a.askBatch(ctx, batch, result)
			a.unsaved.add(made)
			a.retries.Add(float64(made.Retries))
			result.mu.Lock()
			defer result.mu.Unlock()
			result.made.Add(made)
			return err
		}))
	}
	err := group.Wait()
	// In the order of the users again, as far as that is possible.
	slices.SortFunc(result.answers, func(a, b imclient.Answer[V]) int { return strings.Compare(firstOf(a), firstOf(b)) })
	return err
}

func firstOf[V comparable](a imclient.Answer[V]) string {
	if len(a.Observed) == 0 {
		return ""
	}
	return a.Observed[0].UserID
}

// askBatch asks about one batch. A batch that is refused for what is in it is
// halved until the offending ids stand alone; they become rejected users.
func (a *asker[V]) askBatch(ctx context.Context, ids []string, result *batchResult[V]) (made repo.Counters, err error) {
	answer, made, err := a.askPatiently(ctx, ids)
	if err == nil {
		result.add(answer)
		return made, nil
	}
	apiErr, ok := errors.AsType[*imclient.Error](err)
	if !ok || apiErr.Class != imclient.ClassBadBatch && apiErr.Class != imclient.ClassPerUser {
		return made, err
	}
	if len(ids) == 1 {
		result.add(imclient.Answer[V]{
			Rejected: []imclient.UserError{{UserID: ids[0], Code: rejectionCode(apiErr), Text: apiErr.Text}},
			AskedAt:  answer.AskedAt, AnsweredAt: answer.AnsweredAt,
		})
		return made, nil
	}
	for _, half := range [][]string{ids[:len(ids)/2], ids[len(ids)/2:]} {
		halfMade, err := a.askBatch(ctx, half, result)
		if halfMade.Calls > 0 {
			halfMade.Retries++ // its first call repeats the refused one
		}
		made.Add(halfMade)
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// CodeHTTPError is the failure of users whose answer had an HTTP status and no
// code of the provider.
const CodeHTTPError = "http_error"

// rejectionCode: an answer without a code of the provider is an HTTP status.
func rejectionCode(e *imclient.Error) string {
	if e.Code != "" {
		return e.Code
	}
	return CodeHTTPError
}

func (r *batchResult[V]) add(answer imclient.Answer[V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = append(r.answers, answer)
	r.unasked += answer.Unasked
	r.unknownPlatforms += answer.UnknownPlatforms
}

// The budget of one batch: what takes longer is no hiccup, and the range is
// better retried later than its worker kept.
const (
	batchTries   = 5
	batchBudget  = 30 * time.Second
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 8 * time.Second
)

// askPatiently asks until there is an answer, the failure is none that waiting
// mends, or the budget is spent. After a rate-limit answer it is the quota gate
// that makes the next call wait; if that would take long, the error is given
// back at once. To be held by the breaker costs time, but no try.
func (a *asker[V]) askPatiently(ctx context.Context, ids []string) (answer imclient.Answer[V], made repo.Counters, err error) {
	begun := time.Now()
	waits := backoff.NewExponentialBackOff()
	// Full jitter: from nothing to twice the interval.
	waits.InitialInterval, waits.MaxInterval, waits.RandomizationFactor = firstBackoff, maxBackoff, 1
	answer, err = backoff.Retry(ctx, func() (answer imclient.Answer[V], err error) {
		err = a.breaker.asked(ctx, begun, func() (calls int, err error) {
			answer, err = a.ask(ctx, ids)
			return answer.Calls, err
		})
		if made.Calls > 0 && answer.Calls > 0 {
			made.Retries++
		}
		made.Calls += int64(answer.Calls)
		if err == nil {
			return answer, nil
		}
		apiErr, ok := errors.AsType[*imclient.Error](err)
		_, held := errors.AsType[*heldBackError](err)
		switch {
		case ctx.Err() != nil || held || errors.Is(err, errStopped):
			return answer, backoff.Permanent(err)
		case ok && apiErr.Class == imclient.ClassThrottled && apiErr.RetryAfter > batchBudget:
			return answer, backoff.Permanent(err)
		case ok && apiErr.Class != imclient.ClassTransient && apiErr.Class != imclient.ClassThrottled:
			return answer, backoff.Permanent(err)
		default:
			return answer, err
		}
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(batchTries), backoff.WithMaxElapsedTime(batchBudget))
	if permanent, ok := errors.AsType[*backoff.PermanentError](err); ok {
		err = permanent.Unwrap()
	}
	return answer, made, err
}
