package ask

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
)

// ErrStopped reports that the process is stopping and that a call was not made.
var ErrStopped = errors.New("the engine is stopping")

// API is an API of an app.
type API[V comparable] struct {
	// Query asks about at most MaxBatch distinct users in one call. The answer has
	// every id once, observed or rejected. An error concerns the whole batch; if it
	// is an *imclient.Error, its class decides what follows.
	Query    func(ctx context.Context, ids []string) (imclient.Answer[V], error)
	MaxBatch int
	// Breaker stands before the calls. If nil, each call is made.
	Breaker *Breaker
	// Count, which must be set, is called with the calls of each batch, answered or not.
	Count func(Calls)
}

// Calls counts calls of an API.
type Calls struct {
	Made    int64
	Retries int64 // those that repeated a failed one
}

func (c *Calls) add(d Calls) {
	c.Made += d.Made
	c.Retries += d.Retries
}

// Result is what the batches of a page brought. The zero Result is ready for use.
type Result[V comparable] struct {
	Answers          []imclient.Answer[V]
	Calls            Calls
	Unasked          int // users in answers who were not asked about
	UnknownPlatforms int

	mu sync.Mutex
}

// CallsAhead is how many calls of one app and kind may wait for their call time or
// be on the wire. More would not enlarge the quota, but a stop would wait for them
// and pages would be finished later.
const CallsAhead = 64

// PagesAhead returns how many pages of one app and kind are asked about at once:
// as many as make up CallsAhead calls, and one more for the ends of pages.
func PagesAhead(pageUsers, maxBatch int) int {
	calls := (pageUsers + maxBatch - 1) / maxBatch
	return 1 + (CallsAhead+calls-1)/calls
}

// All asks about all ids in batches, at most CallsAhead at once. If it returns nil,
// every id is in one of the answers, observed or rejected. The calls are counted in
// either case.
func (a *API[V]) All(ctx context.Context, ids []string, result *Result[V]) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(CallsAhead)
	for batch := range slices.Chunk(ids, a.MaxBatch) {
		group.Go(func() error {
			return imclient.Guard(func() error {
				calls, err := a.batch(ctx, batch, result)
				a.Count(calls)
				result.mu.Lock()
				defer result.mu.Unlock()
				result.Calls.add(calls)
				return err
			})
		})
	}
	err := group.Wait()
	// In the order of the users again, as far as that is possible.
	slices.SortFunc(result.Answers, func(a, b imclient.Answer[V]) int { return strings.Compare(firstOf(a), firstOf(b)) })
	return err
}

func firstOf[V comparable](a imclient.Answer[V]) string {
	if len(a.Observed) == 0 {
		return ""
	}
	return a.Observed[0].UserID
}

// batch asks about one batch. A batch that the API refuses for what is in it is
// halved until the offending ids stand alone; these become rejected users.
func (a *API[V]) batch(ctx context.Context, ids []string, result *Result[V]) (calls Calls, err error) {
	answer, calls, err := a.retry(ctx, ids)
	if err == nil {
		result.Add(answer)
		return calls, nil
	}
	apiErr, ok := errors.AsType[*imclient.Error](err)
	if !ok || apiErr.Class != imclient.ClassBadBatch && apiErr.Class != imclient.ClassPerUser {
		return calls, err
	}
	if len(ids) == 1 {
		result.Add(imclient.Answer[V]{
			Rejected: []imclient.UserError{{UserID: ids[0], Code: rejectionCode(apiErr), Text: apiErr.Text}},
			AskedAt:  answer.AskedAt, AnsweredAt: answer.AnsweredAt,
		})
		return calls, nil
	}
	for _, half := range [][]string{ids[:len(ids)/2], ids[len(ids)/2:]} {
		halfCalls, err := a.batch(ctx, half, result)
		if halfCalls.Made > 0 {
			halfCalls.Retries++ // its first call repeats the refused one
		}
		calls.add(halfCalls)
		if err != nil {
			return calls, err
		}
	}
	return calls, nil
}

func rejectionCode(e *imclient.Error) string {
	if e.Code != "" {
		return e.Code
	}
	return imclient.CodeHTTPError
}

// Add adds an answer. It may be called by several goroutines.
func (r *Result[V]) Add(answer imclient.Answer[V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Answers = append(r.Answers, answer)
	r.Unasked += answer.Unasked
	r.UnknownPlatforms += answer.UnknownPlatforms
}

// BatchBudget is how long a batch is retried, and held by an open breaker. What
// takes longer is an outage: the range is retried later, and its worker is free
// for other work.
const BatchBudget = 30 * time.Second

// Tries is how often a call is tried within the budget.
const Tries = 5

const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 8 * time.Second
)

// retry asks until there is an answer, the error is one that another try does not
// mend, or the budget is spent. After a throttled answer the quota gate makes the
// next call wait; if that exceeds the budget, retry returns at once. Waiting for
// the breaker costs time and no try.
func (a *API[V]) retry(ctx context.Context, ids []string) (answer imclient.Answer[V], calls Calls, err error) {
	begun := time.Now()
	waits := backoff.NewExponentialBackOff()
	// Full jitter: from nothing to twice the interval.
	waits.InitialInterval, waits.MaxInterval, waits.RandomizationFactor = firstBackoff, maxBackoff, 1
	answer, err = backoff.Retry(ctx, func() (answer imclient.Answer[V], err error) {
		err = a.Breaker.call(ctx, begun, func() (sent int, err error) {
			answer, err = a.Query(ctx, ids)
			return answer.Calls, err
		})
		if calls.Made > 0 && answer.Calls > 0 {
			calls.Retries++
		}
		calls.Made += int64(answer.Calls)
		if err != nil && (ctx.Err() != nil || !mayPass(err)) {
			err = backoff.Permanent(err)
		}
		return answer, err
	}, backoff.WithBackOff(waits), backoff.WithMaxTries(Tries), backoff.WithMaxElapsedTime(BatchBudget))
	if permanent, ok := errors.AsType[*backoff.PermanentError](err); ok {
		err = permanent.Unwrap()
	}
	return answer, calls, err
}

// mayPass reports whether the same call may succeed within the budget. An error
// without a class, as of the database behind the quota gate, may.
func mayPass(err error) bool {
	if _, held := errors.AsType[*heldBackError](err); held || errors.Is(err, ErrStopped) {
		return false
	}
	apiErr, ok := errors.AsType[*imclient.Error](err)
	switch {
	case !ok || apiErr.Class == imclient.ClassTransient:
		return true
	case apiErr.Class == imclient.ClassThrottled:
		return apiErr.RetryAfter <= BatchBudget
	default:
		return false
	}
}
