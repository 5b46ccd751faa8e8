package tencent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

// aliceOnline is a success for QueryPresence(alice).
func aliceOnline() http.HandlerFunc {
	return ok(`"QueryResult":[{"To_Account":"alice","Status":"Online"}]`)
}

// late answers a second later by the clock, so that a new signature differs.
func late(at *clock, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at.advance(time.Second)
		h(w, r)
	}
}

func TestCall_signsAnewOnce(t *testing.T) {
	at := newClock()
	s := newServer(t, late(at, fails(70001, "")), late(at, aliceOnline()), aliceOnline())
	c := s.client(func(c *Config) { c.Now = at.now })
	answer, err := c.QueryPresence(t.Context(), []string{"alice"})
	if err != nil || answer.Calls != 2 || len(answer.Observed) != 1 {
		t.Fatalf("%+v, %v", answer, err)
	}
	if _, err := c.QueryPresence(t.Context(), []string{"alice"}); err != nil {
		t.Fatal(err)
	}
	if s.got[0].sig == s.got[1].sig || s.got[1].sig != s.got[2].sig {
		t.Error("want one new signature, kept from then on")
	}
}

// TestCall_refusedAgain: a key that has been good is not given up when two
// signatures are refused, but one that never was is.
func TestCall_refusedAgain(t *testing.T) {
	at := newClock()
	s := newServer(t, append([]http.HandlerFunc{aliceOnline(), fails(70052, ""), fails(70052, ""), aliceOnline()}, slices.Repeat([]http.HandlerFunc{fails(70009, "")}, 20)...)...)
	c := s.client(func(c *Config) { c.Now = at.now })
	for i, want := range []bool{true, false, true, false, false, false, false, false} {
		_, err := c.QueryPresence(t.Context(), []string{"alice"})
		if (err == nil) != want || err != nil && imclient.ClassOf(err) != imclient.ClassTransient {
			t.Fatalf("call %d: %v", i, err)
		}
		at.advance(6 * time.Second)
	}
	at.advance(6 * time.Second)
	if _, err := c.QueryPresence(t.Context(), []string{"alice"}); imclient.ClassOf(err) != imclient.ClassFatal || !strings.Contains(err.Error(), "check secret_key") {
		t.Errorf("half a minute later: %v", err)
	}
	sigs := map[string]bool{}
	for _, r := range s.got {
		sigs[r.sig] = true
	}
	if len(sigs) > len(s.got)-1 || len(sigs) < len(s.got)-3 { // calls that follow one that was served, or failed twice, send the same
		t.Errorf("%d calls carried %d signatures", len(s.got), len(sigs))
	}
	never := newServer(t, fails(70009, ""), fails(70009, ""))
	if _, err := never.client().QueryPresence(t.Context(), []string{"alice"}); imclient.ClassOf(err) != imclient.ClassFatal || !strings.Contains(err.Error(), "check secret_key") {
		t.Errorf("a key that was never good: %v", err)
	}
}

func TestCall_lockedOut(t *testing.T) {
	at := newClock()
	s := newServer(t, late(at, fails(70050, "")), aliceOnline())
	c := s.client(func(c *Config) { c.Now = at.now })
	if _, err := c.QueryPresence(t.Context(), []string{"alice"}); imclient.ClassOf(err) != imclient.ClassThrottled {
		t.Fatalf("got %v", err)
	}
	if _, err := c.QueryPresence(t.Context(), []string{"alice"}); err != nil {
		t.Fatal(err)
	}
	if s.got[0].sig == s.got[1].sig {
		t.Error("after the pause the refused signature was used again")
	}
}

func TestCall_fatalNamesTheClock(t *testing.T) {
	wrong := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-2*time.Hour).UTC().Format(http.TimeFormat))
		fails(70001, "")(w, r)
	}
	_, err := newServer(t, wrong, wrong).client().QueryPresence(t.Context(), []string{"alice"})
	if imclient.ClassOf(err) != imclient.ClassFatal || !strings.Contains(err.Error(), "the provider's clock differs from ours by -2h0m") {
		t.Errorf("got %v", err)
	}
}

// TestCall_misbehaving asks servers and proxies that answer otherwise than the
// documents say.
func TestCall_misbehaving(t *testing.T) {
	whole := `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[{"To_Account":"alice","Status":"Online"}]}`
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		class  imclient.Class
		text   string
	}{
		"HTML 502":                 {answersWith(502, "<html>Bad Gateway"), imclient.ClassTransient, "HTTP 502 Bad Gateway"},
		"empty 500":                {answersWith(500, ""), imclient.ClassTransient, "HTTP 500"},
		"text 404":                 {answersWith(404, "404 page not found"), imclient.ClassFatal, "HTTP 404 Not Found: check base_url"},
		"403 of a firewall":        {answersWith(403, "{}"), imclient.ClassFatal, "HTTP 403"},
		"429":                      {answersWith(429, ""), imclient.ClassThrottled, "HTTP 429"},
		"a success with HTTP 503":  {answersWith(503, whole), imclient.ClassTransient, "HTTP 503"},
		"a code with HTTP 500":     {answersWith(500, `{"ErrorCode":90009}`), imclient.ClassFatal, "code 90009"},
		"empty":                    {says(""), imclient.ClassTransient, "the answer (0 bytes) is cut off"},
		"HTML":                     {says("<html>captive portal"), imclient.ClassTransient, "no reply of the API"},
		"null":                     {says("null"), imclient.ClassTransient, "no reply of the API"},
		"an array":                 {says("[]"), imclient.ClassTransient, "no reply of the API"},
		"no code":                  {says("{}"), imclient.ClassTransient, "no reply of the API"},
		"code of another type":     {says(`{"ErrorCode":{},"QueryResult":[]}`), imclient.ClassTransient, "no reply of the API"},
		"code is no whole number":  {says(`{"ErrorCode":0.5}`), imclient.ClassTransient, "no reply of the API"},
		"cut off":                  {says(whole[:len(whole)-5]), imclient.ClassTransient, "is cut off"},
		"something after the end":  {says(whole + "}"), imclient.ClassTransient, "no reply of the API"},
		"a failure without a code": {says(`{"ActionStatus":"FAIL","ErrorCode":0,"ErrorInfo":"odd"}`), imclient.ClassTransient, "without a code: odd"},
		"lists of the wrong type": {says(`{"ActionStatus":"OK","ErrorCode":0,"QueryResult":{"To_Account":"alice"},"ErrorList":"none"}`),
			imclient.ClassTransient, "wrong type"},
		"a list twice": {says(`{"ErrorCode":0,"QueryResult":[{"To_Account":"alice","Status":"Online"}],"QueryResult":[{"To_Account":"bob"}]}`),
			imclient.ClassTransient, "two members of one name"},
		"an id twice":   {ok(`"QueryResult":[{"To_Account":"alice","To_Account":"bob","Status":"Online"}]`), imclient.ClassTransient, "two members of one name"},
		"a code twice":  {says(`{"ErrorCode":90009,"ErrorCode":0,"QueryResult":[]}`), imclient.ClassTransient, "two members of one name"},
		"a state twice": {ok(`"QueryResult":[{"To_Account":"alice","Status":"Online","\u0053tatus":"Offline"}]`), imclient.ClassTransient, "two members of one name"},
		"a list of failures twice": {fails(70107, `,"ErrorList":[{"To_Account":"alice","ErrorCode":70107}],"ErrorList":[{"To_Account":"bob"}]`),
			imclient.ClassTransient, "two members of one name"},
		"failures, cut off": {fails(70107, `,"ErrorList":[{"To_Account":"alice","ErrorCode":70107},{"To_Acc`), imclient.ClassTransient, "is cut off"},
		"users without end": {ok(`"QueryResult":[` + strings.Repeat(`{},`, 1000) + `{}]`), imclient.ClassTransient, "far more users than the 2 asked about"},
		"no user of the right type": {says(`{"ErrorCode":"0","QueryResult":[7,{"To_Account":1,"Status":true}],"ErrorList":[{"To_Account":{}}]}`),
			imclient.ClassTransient, "wrong type"},
		"wrong types, and a code": {says(`{"ErrorCode":90009,"ErrorInfo":5,"QueryResult":"none"}`), imclient.ClassFatal, "code 90009"},
		"redirect":                {answersWith(302, "", "Location", "https://elsewhere.example/?usersig=x"), imclient.ClassFatal, "https://elsewhere.example;"},
		"too slow":                {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, imclient.ClassTransient, "no answer within the timeout of 150ms"},
		"every user timed out": {fails(70169, `,"ErrorList":[{"To_Account":"alice","ErrorCode":70169},{"To_Account":"bob","ErrorCode":70169}]`),
			imclient.ClassTransient, "code 70169"},
		"not an admin, with a list": {fails(90009, `,"ErrorList":[{"To_Account":"alice","ErrorCode":70107}]`), imclient.ClassFatal, "identifier"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, tc.answer)
			answer, err := s.client(func(c *Config) { c.Timeout = 150 * time.Millisecond }).QueryPresence(t.Context(), []string{"alice", "bob"})
			if err == nil {
				t.Fatalf("no error but %+v", answer)
			}
			if imclient.ClassOf(err) != tc.class || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("class %s: %v\nwant %s with %q", imclient.ClassOf(err), err, tc.class, tc.text)
			}
			if answer.Calls != 1 || answer.Observed != nil || answer.Rejected != nil {
				t.Errorf("with an error came %+v", answer)
			}
			s.checkSecrets("the error", fmt.Sprintf("%v %+v", err, errors.Unwrap(err)))
		})
	}
}

// TestCall_noAnswer: what an earlier answer said is not taken for the words of a
// call that got none.
func TestCall_noAnswer(t *testing.T) {
	cut := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	const list = `,"ErrorList":[{"To_Account":"alice","ErrorCode":70107},{"To_Account":"bob","ErrorCode":70107}]`
	s := newServer(t, fails(70001, list), cut, fails(70107, list), cut)
	c := s.client()
	for i, want := range []bool{false, true, false} {
		answer, err := c.QueryPresence(t.Context(), []string{"alice", "bob"})
		if (err == nil) != want || err != nil && imclient.ClassOf(err) != imclient.ClassTransient || want != (len(answer.Rejected) == 2) {
			t.Errorf("call %d: %+v, %v", i, answer, err)
		}
	}
}

func TestCall_unreachable(t *testing.T) {
	s := newServer(t)
	c := s.client(func(c *Config) { c.BaseURL = "http://127.0.0.1:1" })
	answer, err := c.QueryPresence(t.Context(), []string{"alice"})
	if imclient.ClassOf(err) != imclient.ClassTransient || answer.Calls != 1 {
		t.Errorf("%d calls, %v", answer.Calls, err)
	}
	sig, signErr := c.exchange.Credentials.Get(t.Context())
	if signErr != nil {
		t.Fatal(signErr)
	}
	if text := fmt.Sprintf("%+v", err); strings.Contains(text, sig.Text) || strings.Contains(text, "usersig") {
		t.Errorf("the URL is in the error: %s", text)
	}
}

func TestCall_contextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	answer, err := s.client().QueryPresence(ctx, []string{"alice"})
	if err != context.Canceled || answer.Calls != 1 {
		t.Errorf("%d calls, %v; want the context's own error", answer.Calls, err)
	}
}

// limitStore is a call store that only remembers its arguments.
type limitStore struct {
	mu     sync.Mutex
	pauses []time.Duration
	err    error
}

func (s *limitStore) ReserveCalls(context.Context, int, time.Duration) (imclient.CallTimes, error) {
	return imclient.CallTimes{First: time.Now(), Interval: time.Microsecond, Margin: imclient.MaxMargin}, nil
}

func (s *limitStore) PutOff(context.Context, time.Duration) error { return s.err }

func (s *limitStore) Throttle(_ context.Context, pause time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pauses = append(s.pauses, pause)
	return s.err
}

func TestCall_throttlesItsGate(t *testing.T) {
	presence, accounts := &limitStore{}, &limitStore{err: errors.New("database down")}
	s := newServer(t, fails(60028, ""), aliceOnline(), answersWith(429, "", "Retry-After", "3"), fails(90994, ""))
	c := s.client(func(c *Config) {
		c.PresenceGate = imclient.NewGate(presence, time.Now)
		c.AccountsGate = imclient.NewGate(accounts, time.Now)
	})
	for i, class := range []imclient.Class{imclient.ClassThrottled, imclient.ClassTransient} {
		_, err := c.QueryPresence(t.Context(), []string{"alice"})
		if i == 0 && imclient.ClassOf(err) != class || i == 1 && err != nil {
			t.Errorf("presence call %d: %v", i, err)
		}
	}
	for i, class := range []imclient.Class{imclient.ClassThrottled, imclient.ClassTransient} {
		_, err := c.CheckAccounts(t.Context(), []string{"alice"})
		if imclient.ClassOf(err) != class {
			t.Errorf("accounts call %d: %v", i, err)
		}
		if told := strings.Contains(err.Error(), "database down"); told != (i == 0) {
			t.Errorf("accounts call %d does not tell of the limit that could not be passed on: %v", i, err)
		}
	}
	if !slices.Equal(presence.pauses, []time.Duration{time.Hour}) || !slices.Equal(accounts.pauses, []time.Duration{3 * time.Second}) {
		t.Errorf("pauses: presence %v, accounts %v", presence.pauses, accounts.pauses)
	}
	if text := s.log.String(); strings.Contains(text, `"level":"warn"`) {
		t.Errorf("the error is logged although the caller gets it: %s", text)
	}
}

// TestCall_logged: each call is a line at debug, by which it can be found again
// at the provider; it says how many were asked about, not who.
func TestCall_logged(t *testing.T) {
	s := newServer(t, aliceOnline(), fails(60028, ""), answersWith(502, ""))
	c := s.client()
	for range 3 {
		_, _ = c.QueryPresence(t.Context(), []string{"alice"})
	}
	type call struct {
		Level, API, Class, Code, Message string
		Users, Status                    int
	}
	var got []call
	for line := range strings.Lines(s.log.String()) {
		var more struct {
			call
			Random string
			Took   *float64 `json:"dur_ms"`
		}
		if err := json.Unmarshal([]byte(line), &more); err != nil {
			t.Fatal(err)
		}
		if !s.randoms[more.Random] || more.Took == nil || strings.Contains(line, "alice") {
			t.Errorf("a call that cannot be found again, without its time, or that names users: %s", line)
		}
		got = append(got, more.call)
	}
	want := []call{
		{"debug", "query_online_status", "", "", "call", 1, 200},
		{"debug", "query_online_status", "throttled", "60028", "call", 1, 200},
		{"debug", "query_online_status", "transient", "", "call", 1, 502},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestClockWatch(t *testing.T) {
	at := newClock()
	dated := func(by time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", at.now().Add(by).Format(http.TimeFormat))
			aliceOnline()(w, r)
		}
	}
	s := newServer(t, dated(0), dated(-time.Minute), dated(5*time.Minute), dated(-5*time.Minute), dated(5*time.Minute))
	c := s.client(func(c *Config) { c.Now = at.now })
	for i, tc := range []struct {
		after time.Duration
		want  int // warnings so far
	}{{0, 0}, {0, 0}, {0, 1}, {59 * time.Minute, 1}, {time.Minute, 2}} {
		at.unixNano.Store(at.now().Add(tc.after).Truncate(time.Second).UnixNano()) // Date has whole seconds
		if _, err := c.QueryPresence(t.Context(), []string{"alice"}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(s.log.String(), "clock differs"); got != tc.want {
			t.Errorf("after call %d: %d warnings, want %d", i, got, tc.want)
		}
	}
}

func TestAnswer_dates(t *testing.T) {
	at := newClock()
	start := at.now()
	after := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			at.advance(time.Second)
			h(w, r)
		}
	}
	s := newServer(t, after(ok(`"QueryResult":[]`)), after(aliceOnline()))
	answer, err := s.client(func(c *Config) { c.Now = at.now }).QueryPresence(t.Context(), []string{"alice"})
	if err != nil {
		t.Fatal(err)
	}
	if !answer.AskedAt.Equal(start) || !answer.AnsweredAt.Equal(start.Add(2*time.Second)) {
		t.Errorf("dated %s to %s, want the first question to the second answer", answer.AskedAt, answer.AnsweredAt)
	}
}

func TestTooManyIDs(t *testing.T) {
	c := newServer(t).client()
	if _, err := c.QueryPresence(t.Context(), make([]string, c.MaxPresenceBatch()+1)); imclient.ClassOf(err) != imclient.ClassBadBatch {
		t.Errorf("presence: %v", err)
	}
	if _, err := c.CheckAccounts(t.Context(), make([]string, c.MaxAccountsBatch()+1)); imclient.ClassOf(err) != imclient.ClassBadBatch {
		t.Errorf("accounts: %v", err)
	}
	if c.MaxPresenceBatch() != 500 || c.MaxAccountsBatch() != 100 {
		t.Errorf("limits %d and %d", c.MaxPresenceBatch(), c.MaxAccountsBatch())
	}
}

func TestClient_concurrent(t *testing.T) {
	const workers, each = 8, 10
	s := newServer(t, slices.Repeat([]http.HandlerFunc{aliceOnline()}, workers*each)...)
	c := s.client()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				if _, err := c.QueryPresence(t.Context(), []string{"alice"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := s.opened.Load(); n > 2*workers {
		t.Errorf("%d calls opened %d connections", workers*each, n)
	}
}

func TestNew_refuses(t *testing.T) {
	good := Config{SDKAppID: 1, Identifier: "admin", SecretKey: testSecret, BaseURL: "https://console.tim.qq.com"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"sdk_app_id is missing":             func(c *Config) { c.SDKAppID = 0 },
		"identifier: the user id is empty":  func(c *Config) { c.Identifier = "" },
		"secret_key is missing":             func(c *Config) { c.SecretKey = "" },
		`presence_api is "query" (allowed:`: func(c *Config) { c.PresenceAPI = "query" },
		"UserSigTTL is 1ns":                 func(c *Config) { c.UserSigTTL = 1 },
		"timeout is -1ns":                   func(c *Config) { c.Timeout = -1 },
		"base_url (or region) is missing":   func(c *Config) { c.BaseURL = "" },
		"base_url must be https://host":     func(c *Config) { c.BaseURL = "console.tim.qq.com" },
	} {
		bad := good
		change(&bad)
		_, err := New(bad)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), testSecret) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(Config{}); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("want all faults at once: %v", err)
	}
}

func TestRegions(t *testing.T) {
	want := []string{"china", "singapore", "seoul", "tokyo", "frankfurt", "silicon_valley", "jakarta"}
	if !slices.Equal(Regions(), want) {
		t.Errorf("regions %v", Regions())
	}
	for _, region := range Regions() {
		base, ok := BaseURL(region)
		if err := imclient.CheckBaseURL(base); !ok || err != nil || !strings.HasPrefix(base, "https://") {
			t.Errorf("%s: %q, %v", region, base, err)
		}
	}
	if base, _ := BaseURL("singapore"); base != "https://adminapisgp.im.qcloud.com" {
		t.Errorf("singapore is %s", base)
	}
	if base, ok := BaseURL("mars"); ok {
		t.Errorf("mars is %s", base)
	}
}
