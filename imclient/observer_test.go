package imclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// noted is the notifications of an observer.
type noted struct{ lines []string }

// Called notes a call.
func (n *noted) Called(api, outcome string, took time.Duration) {
	n.lines = append(n.lines, fmt.Sprintf("%s %s after %s", api, outcome, took))
}

// Waited notes a wait.
func (n *noted) Waited(_ context.Context, api string, d time.Duration) {
	n.lines = append(n.lines, fmt.Sprintf("%s waited %s", api, d))
}

// slow answers after a while.
type slow struct{ err error }

// RoundTrip answers with HTTP 200, or fails.
func (s slow) RoundTrip(r *http.Request) (*http.Response, error) {
	timer := time.NewTimer(300 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if s.err != nil {
		return nil, s.err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

// oneASecond hands out a call time a second, the first one in two seconds.
type oneASecond struct{ next time.Time }

// ReserveCalls takes n call times.
func (s *oneASecond) ReserveCalls(_ context.Context, n int, _ time.Duration) (CallTimes, error) {
	if s.next.IsZero() {
		s.next = time.Now().Add(2 * time.Second)
	}
	first := s.next
	s.next = first.Add(time.Duration(n) * time.Second)
	return CallTimes{first, time.Second, MaxMargin}, nil
}

// Throttle does nothing.
func (s *oneASecond) PutOff(context.Context, time.Duration) error { return nil }

func (s *oneASecond) Throttle(context.Context, time.Duration) error { return nil }

func TestObserver(t *testing.T) {
	refused := &Error{Class: ClassFatal}
	for name, tc := range map[string]struct {
		transport http.RoundTripper
		timeout   time.Duration
		patience  time.Duration // of the caller
		judgement error
		want      []string
	}{
		"answered":                  {slow{}, time.Second, time.Minute, nil, []string{"api waited 2s", "api ok after 300ms"}},
		"answered with a code":      {slow{}, time.Second, time.Minute, refused, []string{"api waited 2s", "api fatal after 300ms"}},
		"cut off":                   {slow{errors.New("reset")}, time.Second, time.Minute, nil, []string{"api waited 2s", "api transient after 300ms"}},
		"timed out":                 {slow{}, 100 * time.Millisecond, time.Minute, nil, []string{"api waited 2s", "api transient after 100ms"}},
		"the caller leaves":         {slow{}, time.Second, 2100 * time.Millisecond, nil, []string{"api waited 2s"}},
		"the caller leaves earlier": {slow{}, time.Second, time.Second, nil, []string{"api waited 1s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got noted
				h := NewHTTP(HTTPConfig{Provider: ProviderTencent, Timeout: tc.timeout, Now: time.Now, Transport: tc.transport, Observer: &got})
				ctx, cancel := context.WithTimeout(t.Context(), tc.patience)
				defer cancel()
				r, err := h.post(ctx, httpRequest{API: "api", Gate: NewGate(&oneASecond{}, time.Now), URL: "http://localhost/"})
				if err == nil {
					err = tc.judgement
				}
				h.judged("api", r, err)
				if diff := cmp.Diff(tc.want, got.lines); diff != "" {
					t.Errorf("notifications (-want +got):\n%s", diff)
				}
			})
		})
	}
}
