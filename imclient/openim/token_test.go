package openim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncer/imclient"
)

// aliceOnline is a success for QueryPresence(alice).
func aliceOnline() http.HandlerFunc { return data(`[{"userID":"alice","status":1}]`) }

func askAlice(t *testing.T, c *Client) (presences, error) {
	t.Helper()
	return c.QueryPresence(t.Context(), []string{"alice"})
}

func checkPaths(t *testing.T, s *server, want ...string) {
	t.Helper()
	if got := s.paths(); !slices.Equal(got, want) {
		t.Errorf("calls %v\nwant  %v", got, want)
	}
}

func TestTokens_loginOfOlderServers(t *testing.T) {
	notFound := answersWith(http.StatusNotFound, "404 page not found")
	at := newClock()
	s := newServer(t, map[string][]http.HandlerFunc{newLogin: {notFound}, online: times(3, aliceOnline())})
	c := s.client(func(c *Config) { c.Now = at.now })
	answer, err := askAlice(t, c)
	if err != nil || answer.Calls != 1 {
		t.Fatalf("%d calls, %v", answer.Calls, err)
	}
	if got, want := s.requests()[1].Body, `{"secret":"made-up-secret","platformID":10,"userID":"imAdmin"}`; got != want {
		t.Errorf("login %s, want %s", got, want)
	}
	// The way that worked is remembered, until the server is a newer one.
	at.advance(80 * 24 * time.Hour)
	if _, err := askAlice(t, c); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.answers[oldLogin] = []http.HandlerFunc{notFound}
	s.mu.Unlock()
	at.advance(80 * 24 * time.Hour)
	if _, err := askAlice(t, c); err != nil {
		t.Fatal(err)
	}
	checkPaths(t, s, newLogin, oldLogin, online, oldLogin, online, oldLogin, newLogin, online)
}

func TestTokens_noLoginAtAll(t *testing.T) {
	notFound := answersWith(http.StatusNotFound, "404 page not found")
	s := newServer(t, map[string][]http.HandlerFunc{newLogin: {notFound}, oldLogin: {notFound}})
	_, err := askAlice(t, s.client())
	if imclient.ClassOf(err) != imclient.ClassFatal || !strings.Contains(err.Error(), "check base_url") {
		t.Errorf("got %v", err)
	}
	checkPaths(t, s, newLogin, oldLogin)
}

func TestTokens_renewedAheadOfExpiry(t *testing.T) {
	lasting := func(n, seconds int) http.HandlerFunc {
		return data(fmt.Sprintf(`{"token":"admin-token-%d","expireTimeSeconds":%d}`, n, seconds))
	}
	at := newClock()
	s := newServer(t, map[string][]http.HandlerFunc{
		newLogin: {lasting(1, 1000), lasting(2, 1000), answersWith(502, ""), answersWith(502, ""), answersWith(502, ""), lasting(3, 0)},
		online:   times(20, aliceOnline()),
	})
	c := s.client(func(c *Config) { c.Now = at.now })
	for i, step := range []struct {
		after time.Duration
		want  string // the token used; "" when the call fails
	}{
		{0, "admin-token-1"},
		{799 * time.Second, "admin-token-1"},
		{time.Second, "admin-token-2"},
		{800 * time.Second, "admin-token-2"}, // cannot be renewed, goes on
		{59 * time.Second, "admin-token-2"},  // not tried again yet
		{time.Second, "admin-token-2"},       // tried again in vain
		{140 * time.Second, ""},              // over, and still no login
		{0, "admin-token-3"},
		{1000 * time.Hour, "admin-token-3"}, // names no lifetime: until refused
	} {
		at.advance(step.after)
		_, err := askAlice(t, c)
		if step.want == "" {
			if imclient.ClassOf(err) != imclient.ClassTransient || err == nil {
				t.Errorf("step %d: %v, want a transient error", i, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		all := s.requests()
		if got := all[len(all)-1].Token; got != step.want {
			t.Errorf("step %d: used %s, want %s", i, got, step.want)
		}
	}
	if logins := strings.Count(strings.Join(s.paths(), " "), newLogin); logins != 6 {
		t.Errorf("%d logins, want 6", logins)
	}
}

func TestTokens_loginRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		class  imclient.Class
		text   string
	}{
		"wrong secret":            {fails(1002), imclient.ClassFatal, "]; check secret against"},
		"wrong user":              {fails(1001), imclient.ClassFatal, "]; make admin_user_id one of the server's admin users"},
		"unknown user":            {fails(1004), imclient.ClassFatal, "]; make admin_user_id one of the server's admin users"},
		"token error":             {fails(1505), imclient.ClassFatal, "]; check secret and admin_user_id"},
		"server down":             {fails(14), imclient.ClassTransient, "code 14"},
		"unknown code":            {fails(4711), imclient.ClassTransient, "code 4711"},
		"rate limit":              {answersWith(429, `{"errCode":429}`, "Retry-After", "2"), imclient.ClassThrottled, "code 429"},
		"HTML 502":                {answersWith(502, "<html>"), imclient.ClassTransient, "HTTP 502"},
		"403 of a proxy":          {answersWith(403, ""), imclient.ClassFatal, "check base_url"},
		"no token":                {data(`{}`), imclient.ClassTransient, "the answer holds no token"},
		"token with a line break": {data(`{"token":"a\nb"}`), imclient.ClassTransient, "the answer holds no token"},
		"token twice":             {data(`{"token":"a","token":"b"}`), imclient.ClassTransient, "two members of one name"},
		"endless token":           {data(`{"token":"` + strings.Repeat("a", 20<<10) + `"}`), imclient.ClassTransient, "the answer holds no token"},
		"no data":                 {says(`{"errCode":0}`), imclient.ClassTransient, "the answer holds no token"},
		"no JSON":                 {says(`OK`), imclient.ClassTransient, "no reply of the API"},
		"token of a type":         {data(`{"token":5}`), imclient.ClassTransient, "the answer holds no token"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, map[string][]http.HandlerFunc{newLogin: {tc.answer}})
			answer, err := askAlice(t, s.client())
			if err == nil || imclient.ClassOf(err) != tc.class || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("class %s: %v, want %s with %q", imclient.ClassOf(err), err, tc.class, tc.text)
			}
			if answer.Calls != 0 {
				t.Errorf("%d calls counted, want 0", answer.Calls)
			}
			s.checkSecrets("the error", err.Error())
		})
	}
}

func TestTokens_refused(t *testing.T) {
	for _, code := range []int{1501, 1502, 1503, 1505, 1506, 1507} {
		s := newServer(t, map[string][]http.HandlerFunc{online: {fails(code), aliceOnline()}})
		answer, err := askAlice(t, s.client())
		if err != nil || answer.Calls != 2 {
			t.Errorf("code %d: %d calls, %v", code, answer.Calls, err)
		}
		checkPaths(t, s, newLogin, online, newLogin, online)
	}
	s := newServer(t, map[string][]http.HandlerFunc{
		newLogin: {data(`{"token":"admin-token-1","expireTimeSeconds":100}`), fails(1002)},
		online:   {fails(1505)},
	})
	if _, err := askAlice(t, s.client()); imclient.ClassOf(err) != imclient.ClassFatal || !strings.Contains(err.Error(), "login refused") {
		t.Errorf("the secret was changed: %v", err)
	}
}

// TestTokens_refusedAgain: a new token that is refused is a matter of time, until
// several logins over half a minute have brought no success.
func TestTokens_refusedAgain(t *testing.T) {
	at := newClock()
	s := newServer(t, map[string][]http.HandlerFunc{online: append(times(3, fails(1507)), append([]http.HandlerFunc{aliceOnline()}, times(40, fails(1507))...)...)})
	c := s.client(func(c *Config) { c.Now = at.now })
	ask := func() *imclient.Error {
		t.Helper()
		_, err := askAlice(t, c)
		e, _ := errors.AsType[*imclient.Error](err)
		return e
	}
	if e := ask(); e == nil || e.Class != imclient.ClassTransient || e.Code != "1507" {
		t.Fatalf("two refusals: %v, want a transient error", e)
	}
	if e := ask(); e != nil {
		t.Fatalf("the second call is served after one more refusal: %v", e)
	}
	logins := s.logins
	for range 5 {
		at.advance(6 * time.Second)
		if e := ask(); e == nil || e.Class != imclient.ClassTransient {
			t.Fatalf("%d logins since: %v, want a transient error", s.logins-logins, e)
		}
	}
	at.advance(6 * time.Second)
	e := ask()
	if e == nil || e.Class != imclient.ClassFatal || !strings.Contains(e.Text, "the tokens of several logins") || !strings.Contains(e.Text, "admin_user_id") {
		t.Errorf("half a minute later: %v, want a fatal error", e)
	}
	s.checkSecrets("the error", fmt.Sprint(e))
}

func TestTokens_notYetValid(t *testing.T) {
	at := newClock()
	s := newServer(t, map[string][]http.HandlerFunc{online: {fails(1504), fails(1504), aliceOnline()}})
	c := s.client(func(c *Config) { c.Now = at.now })
	if _, err := askAlice(t, c); err == nil || imclient.ClassOf(err) != imclient.ClassTransient {
		t.Errorf("at once: %v, want a transient error", err)
	}
	at.advance(patienceNotYet + time.Second)
	if _, err := askAlice(t, c); err != nil {
		t.Error(err)
	}
	checkPaths(t, s, newLogin, online, online, newLogin, online)
}

// TestTokens_singleFlight lets many calls need a token at once, twice.
func TestTokens_singleFlight(t *testing.T) {
	const callers = 24
	var refused sync.WaitGroup
	refused.Add(callers)
	first := func(w http.ResponseWriter, r *http.Request) {
		refused.Done()
		refused.Wait() // until all calls carry the first token
		fails(1507)(w, r)
	}
	s := newServer(t, map[string][]http.HandlerFunc{online: append(times(callers, first), times(callers, aliceOnline())...)})
	c := s.client()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if _, err := askAlice(t, c); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s.logins != 2 {
		t.Errorf("%d logins, want one for all and one more for all", s.logins)
	}
	for i, r := range s.requests() {
		if strings.HasSuffix(r.Path, online) && i > callers+2 && r.Token != "admin-token-2" {
			t.Errorf("call %d used %s", i, r.Token)
		}
	}
	if n := s.opened.Load(); n > 2*callers {
		t.Errorf("%d connections were opened", n)
	}
}

func TestTokens_contextEnds(t *testing.T) {
	arrived := make(chan struct{})
	s := newServer(t, map[string][]http.HandlerFunc{
		newLogin: {func(_ http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-r.Context().Done()
		}},
		online: {aliceOnline()},
	})
	c := s.client()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := c.QueryPresence(ctx, []string{"alice"}); !errors.Is(err, context.Canceled) {
			t.Errorf("the one who left: %v", err)
		}
	})
	<-arrived
	all.Go(func() { // is not the one who left, and logs in itself
		if _, err := askAlice(t, c); err != nil {
			t.Error(err)
		}
	})
	cancel()
	all.Wait()
}
