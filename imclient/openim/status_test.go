package openim

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

func TestQueryStatus(t *testing.T) {
	s := newServer(t, map[string][]http.HandlerFunc{merged: {
		data(`{"statusList":[{"userID":"b","status":"0","platformIDs":null},{"userID":"a","status":1,"platformIDs":[5,1,"11",99]},{"userID":"z","status":1},
			{"userID":"c","status":7,"platformIDs":{}}]}`),
		data(`{"statusList":[{"userID":"c","status":null}]}`),
	}})
	got, err := s.client().QueryStatus(t.Context(), []string{"a", "b", "c", "d", ""})
	if err != nil {
		t.Fatal(err)
	}
	want := presences{
		Observed: []imclient.Observed[imclient.Presence]{
			seen(t, "a", imclient.StateOnline, `{"unknown":"online","ios":"online","web":"online","harmony":"online"}`),
			seen(t, "b", imclient.StateOffline, `{}`)},
		Rejected: []imclient.UserError{
			rejected("c", imclient.CodeUnknownValue, noState+`""`),
			rejected("d", imclient.CodeMissing, missingText),
			rejected("", imclient.CodeInvalidID, "the user id is empty")},
		Unasked: 1, UnknownPlatforms: 1, Calls: 2,
	}
	if diff := cmp.Diff(want, got, ignoreTimes[imclient.Presence]()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	wantAsked := []request{
		{Path: "POST " + newLogin, Body: `{"secret":"` + testSecret + `","userID":"imAdmin"}`},
		{Path: "POST " + merged, Token: "admin-token-1", Body: `{"userID":"imAdmin","userIDs":["a","b","c","d"]}`},
		{Path: "POST " + merged, Token: "admin-token-1", Body: `{"userID":"imAdmin","userIDs":["c","d"]}`},
	}
	if diff := cmp.Diff(wantAsked, s.requests()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestQueryStatus_calls: an empty list makes no call, a refused token is
// renewed, and a batch too large is not sent.
func TestQueryStatus_calls(t *testing.T) {
	s := newServer(t, map[string][]http.HandlerFunc{merged: {fails(1501), data(`{"statusList":[{"userID":"a","status":0}]}`)}})
	c := s.client(func(c *Config) { c.PresenceBatch = 1 })
	for _, none := range [][]string{nil, {""}} {
		if got, err := c.QueryStatus(t.Context(), none); err != nil || got.Calls != 0 {
			t.Errorf("about %q: %d calls, %v", none, got.Calls, err)
		}
	}
	got, err := askStatus(t, c, []string{"a"})
	if diff := cmp.Diff(map[string]string{"a": "offline {}"}, got); diff != "" || err != nil {
		t.Errorf("with a new token: %v (-want +got):\n%s", err, diff)
	}
	if _, err := c.QueryStatus(t.Context(), []string{"a", "b"}); imclient.ClassOf(err) != imclient.ClassBadBatch {
		t.Errorf("two users, one allowed: %v", err)
	}
	if diff := cmp.Diff([]string{newLogin, merged, newLogin, merged}, s.paths()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestQueryStatus_errors(t *testing.T) {
	for name, tc := range map[string]struct {
		answer      http.HandlerFunc
		class       imclient.Class
		unsupported bool
	}{
		"a server without it":  {answersWith(http.StatusNotFound, "404 page not found"), imclient.ClassFatal, true},
		"forbidden on the way": {answersWith(http.StatusForbidden, ""), imclient.ClassFatal, false},
		"a service is down":    {fails(500), imclient.ClassTransient, false},
		"no admin":             {fails(1002), imclient.ClassFatal, false},
		"an argument":          {fails(1001), imclient.ClassBadBatch, false},
		"cut off":              {says(`{"errCode":0,"data":{"statusL`), imclient.ClassTransient, false},
		"of the wrong type":    {data(`{"statusList":{"userID":"a"}}`), imclient.ClassTransient, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, map[string][]http.HandlerFunc{merged: {tc.answer}})
			answer, err := s.client().QueryStatus(t.Context(), []string{"a"})
			if imclient.ClassOf(err) != tc.class || errors.Is(err, errors.ErrUnsupported) != tc.unsupported || answer.Calls != 1 {
				t.Errorf("%v, class %s, unsupported %t, %d calls", err, imclient.ClassOf(err), errors.Is(err, errors.ErrUnsupported), answer.Calls)
			}
			s.checkSecrets("the error", err.Error())
		})
	}
}

// callTimes hands out call times without an end, and counts them.
type callTimes struct{ reserved int }

func (c *callTimes) PutOff(context.Context, time.Duration) error { return nil }

func (c *callTimes) ReserveCalls(_ context.Context, n int, _ time.Duration) (imclient.CallTimes, error) {
	c.reserved += n
	return imclient.CallTimes{First: time.Now(), Interval: time.Second, Margin: imclient.MaxMargin}, nil
}

func (c *callTimes) Throttle(context.Context, time.Duration) error { return nil }

// TestQueryStatus_gate: it is one more call under the presence API's limit.
func TestQueryStatus_gate(t *testing.T) {
	s := newServer(t, map[string][]http.HandlerFunc{merged: {data(`{"statusList":[{"userID":"a","status":0}]}`)}})
	var presence, accounts callTimes
	c := s.client(func(c *Config) {
		c.PresenceGate, c.AccountsGate = imclient.NewGate(&presence, time.Now), imclient.NewGate(&accounts, time.Now)
	})
	if _, err := askStatus(t, c, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	if presence.reserved == 0 || accounts.reserved != 0 {
		t.Errorf("%d call times of presence were taken and %d of accounts", presence.reserved, accounts.reserved)
	}
}
