package imclient

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// attempt is one call on its way. The transport reports the call's progress to gotConn
// and to the gate.
type attempt struct {
	http    *HTTP
	request httpRequest
	caller  context.Context
	ctx     context.Context // ends with caller, after the timeout, or when the call is refused
	cancel  context.CancelCauseFunc

	outgoing *http.Request
	written  *http.Request             // the copy of outgoing that the last transport writes
	callTime CallTime                  // zero without a gate
	sentAt   atomic.Pointer[time.Time] // when it was written; an answer can come before that
	askedAt  time.Time                 // zero until the call is sent
	deadline *time.Timer
	refused  error // why the call was not written although there was a connection
}

var errTimeout = errors.New("the call's timeout is over")

// attempt returns an attempt at r, whose end must be called.
func (h *HTTP) attempt(ctx context.Context, r httpRequest) *attempt {
	a := &attempt{http: h, request: r, caller: ctx}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	return a
}

// end releases the attempt's resources.
func (a *attempt) end() {
	if a.deadline != nil {
		a.deadline.Stop()
	}
	a.cancel(nil)
}

// failed returns the reply of an attempt that got no answer: its times, if it was sent.
func (a *attempt) failed() Reply {
	if a.askedAt.IsZero() {
		return Reply{}
	}
	return Reply{AskedAt: a.askedAt, AnsweredAt: a.http.now()}
}

// prepare makes the HTTP request, waits for a call time and authorises the request.
func (a *attempt) prepare() (err error) {
	trace := &httptrace.ClientTrace{}
	if a.request.Gate != nil {
		trace.GotConn = func(httptrace.GotConnInfo) { a.gotConn() }
		trace.WroteRequest = func(httptrace.WroteRequestInfo) {
			a.sentAt.Store(new(a.http.now()))
			a.request.Gate.Sent(a.callTime)
		}
		trace.GotFirstResponseByte = func() {
			if sent := a.sentAt.Load(); sent != nil {
				a.request.Gate.Answered(a.callTime, *sent)
			}
		}
	}
	ctx := context.WithValue(httptrace.WithClientTrace(a.ctx, trace), finalKey{}, a)
	a.outgoing, err = http.NewRequestWithContext(ctx, http.MethodPost, a.request.URL, bytes.NewReader(a.request.Body))
	if err != nil {
		return a.http.error(a.ctx, a.request.API, "make the request", err)
	}
	a.outgoing.Header.Set("Content-Type", "application/json")
	return a.ready(a.caller, a.outgoing)
}

// send sends the request and returns the answer with its body unread.
func (a *attempt) send() (*http.Response, error) {
	a.deadline = time.AfterFunc(a.http.timeout, func() { a.cancel(errTimeout) })
	a.askedAt = a.http.now()
	a.count(1)
	resp, err := a.http.client.Do(a.outgoing)
	switch {
	case err == nil:
		return resp, nil
	case a.refused != nil && a.caller.Err() == nil:
		a.count(-1)
		a.askedAt = time.Time{}
		return nil, a.refused
	default:
		return nil, a.http.error(a.ctx, a.request.API, "send the request", err)
	}
}

func (a *attempt) count(n int) {
	if a.request.Sent != nil {
		*a.request.Sent += n
	}
}

// gotConn runs when the transport has a connection, just before it writes the request.
// If the call missed its call time, because the connection is new or the machine is
// busy, gotConn waits for another one: a late call would arrive together with later ones.
func (a *attempt) gotConn() {
	if !a.request.Gate.Missed(a.callTime) {
		return
	}
	a.deadline.Stop()
	if a.refused = a.ready(a.ctx, a.written); a.refused != nil {
		a.cancel(a.refused)
		return
	}
	a.deadline.Reset(a.http.timeout)
	a.askedAt = a.http.now()
}

// ready waits for a call time and authorises r. If that takes so long that the call
// time is missed, it starts over, so that both are valid when it returns.
func (a *attempt) ready(ctx context.Context, r *http.Request) error {
	gate := a.request.Gate
	for {
		if gate != nil {
			if err := a.pass(ctx); err != nil {
				return err
			}
		}
		if a.request.Authorise == nil {
			return nil
		}
		if err := a.request.Authorise(ctx, r); err != nil || gate == nil || !gate.Missed(a.callTime) {
			return err
		}
	}
}

// pass waits for a call time, or for another one if the attempt has one already. It
// reports the wait to the observer and completes an *Error of the gate.
func (a *attempt) pass(ctx context.Context) (err error) {
	begun := time.Now()
	if a.callTime.At.IsZero() {
		a.callTime, err = a.request.Gate.Wait(ctx)
	} else {
		a.callTime, err = a.request.Gate.Again(ctx, a.callTime)
	}
	if a.http.observer != nil {
		a.http.observer.Waited(ctx, a.request.API, time.Since(begun))
	}
	if e, ok := errors.AsType[*Error](err); ok {
		e.Provider, e.API = a.http.provider, a.request.API
	}
	return err
}

// final is the last transport before the connection. It makes available to the attempt
// the request that is written: the transports around it may have made copies.
type final struct{ next http.RoundTripper }

type finalKey struct{} // context key of an *attempt

// RoundTrip sends a copy of r, because a transport must not change its caller's request.
func (f final) RoundTrip(r *http.Request) (*http.Response, error) {
	if a, ok := r.Context().Value(finalKey{}).(*attempt); ok {
		r = r.Clone(r.Context())
		a.written = r
	}
	return f.next.RoundTrip(r)
}
