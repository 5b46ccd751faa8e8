package imclient

import (
	"context"
	"time"
)

// Observer is notified of calls, for metrics and traces. Its methods must be fast and safe
// for concurrent use.
type Observer interface {
	// Called is called once for each call that was sent. outcome is "ok" or the class of
	// the error; took is the time from sending to the end of the answer.
	Called(api, outcome string, took time.Duration)
	// Waited is called after each wait for a call time, with the caller's context.
	Waited(ctx context.Context, api string, d time.Duration)
}

// judged notifies the observer of the outcome of a call, for which post returned r. It
// ignores calls that were never sent or that the caller's context ended.
func (h *HTTP) judged(api string, r Reply, err error) {
	if h.observer == nil || r.AskedAt.IsZero() || IsContext(err) {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = ClassOf(err).String()
	}
	// The clock may have been set back in between.
	h.observer.Called(api, outcome, max(r.AnsweredAt.Sub(r.AskedAt), 0))
}
