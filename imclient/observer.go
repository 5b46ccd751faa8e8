package imclient

import (
	"context"
	"time"
)

// Observer is told about calls, for metrics and traces. Its methods are called once a call,
// must be quick, and safe for concurrent use.
type Observer interface {
	// Called tells of a call that was sent: of which API, what came of it ("ok",
	// or the class of the error), and how long it took from then to the end of
	// the answer.
	Called(api, outcome string, took time.Duration)
	// Waited tells how long a call waited for its call time; ctx is the caller's.
	Waited(ctx context.Context, api string, d time.Duration)
}

// Judged tells the observer what came of a call, once the answer is judged. r is
// the reply that Post returned. What was never sent, or given up because the
// caller's context ended, is no call.
func (h *HTTP) Judged(api string, r Reply, err error) {
	if h.observer == nil || r.AskedAt.IsZero() || IsContext(err) {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = ClassOf(err).String()
	}
	// The clock may be set back a little meanwhile.
	h.observer.Called(api, outcome, max(r.AnsweredAt.Sub(r.AskedAt), 0))
}
