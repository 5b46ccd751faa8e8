package openim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
)

// documented holds every code of OpenIM's that the two calls may answer with,
// and its class, written down apart from the client's own table.
var documented = map[int]imclient.Class{
	1: imclient.ClassTransient, 2: imclient.ClassTransient, 3: imclient.ClassBadBatch, 4: imclient.ClassTransient,
	5: imclient.ClassBadBatch, 6: imclient.ClassFatal, 7: imclient.ClassFatal, 8: imclient.ClassBadBatch,
	9: imclient.ClassFatal, 10: imclient.ClassTransient, 11: imclient.ClassBadBatch, 12: imclient.ClassFatal,
	13: imclient.ClassTransient, 14: imclient.ClassTransient, 15: imclient.ClassFatal, 16: imclient.ClassFatal,
	429: imclient.ClassThrottled, 500: imclient.ClassTransient,
	1001: imclient.ClassBadBatch, 1002: imclient.ClassFatal, 1003: imclient.ClassFatal, 1004: imclient.ClassBadBatch,
	1101: imclient.ClassBadBatch, 1102: imclient.ClassFatal,
	1501: imclient.ClassTransient, 1502: imclient.ClassTransient, 1503: imclient.ClassTransient, 1504: imclient.ClassTransient,
	1505: imclient.ClassTransient, 1506: imclient.ClassTransient, 1507: imclient.ClassTransient, // after a second refusal
	1520: imclient.ClassFatal, 80000: imclient.ClassFatal,
	90002: imclient.ClassTransient, 90004: imclient.ClassTransient, 90007: imclient.ClassFatal,
	4711: imclient.ClassTransient, // unknown
}

// TestCodes asks a server that answers with each code in turn.
func TestCodes(t *testing.T) {
	for code := range classes {
		if _, ok := documented[code]; !ok {
			t.Errorf("code %d is in the client's table only", code)
		}
	}
	for code, want := range documented {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			s := newServer(t, map[string][]http.HandlerFunc{online: times(2, fails(code)), check: times(2, fails(code))})
			c := s.client()
			_, presenceErr := c.QueryPresence(t.Context(), []string{"alice", "bob"})
			_, accountsErr := c.CheckAccounts(t.Context(), []string{"alice", "bob"})
			for api, err := range map[string]error{apiPresence: presenceErr, apiAccountCheck: accountsErr} {
				e, ok := errors.AsType[*imclient.Error](err)
				if !ok {
					t.Fatalf("got %v", err)
				}
				if e.Class != want || e.Code != strconv.Itoa(code) || e.API != api || e.Provider != imclient.ProviderOpenIM {
					t.Errorf("%s: %+v, want class %s", api, *e, want)
				}
				if !strings.Contains(e.Text, "SomeError: refused, token=[redacted] secret [redacted]") {
					t.Errorf("text %q", e.Text)
				}
				if e.OpID == "" || !strings.Contains(s.log.String(), `"operation_id":"`+e.OpID+`"`) {
					t.Errorf("operationID %q is not in the log", e.OpID)
				}
				s.checkSecrets("the error", fmt.Sprintf("%v %+v", err, *e))
			}
		})
	}
}

func TestMeaningOf_sameCodeSeveralMeanings(t *testing.T) {
	for _, tc := range []struct {
		code, status int
		text         string
		want         imclient.Class
	}{
		{500, 200, "ServerInternalError: connection refused", imclient.ClassTransient},
		{500, 400, "ServerInternalError: unexpected EOF", imclient.ClassBadBatch},
		{500, 200, "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (1 vs. 0)", imclient.ClassBadBatch},
		{8, 200, "grpc: received message larger than max (9000000 vs. 8388608), the limit", imclient.ClassBadBatch},
		{8, 200, "ResourceExhausted", imclient.ClassBadBatch},
		{8, 200, "rate limit exceeded", imclient.ClassThrottled},
		{2, 200, "CheckUserIDs is empty: 1001 ArgsError", imclient.ClassBadBatch},
		{2, 200, "something else", imclient.ClassTransient},
		{4711, 429, "too many requests", imclient.ClassThrottled},
	} {
		if got := meaningOf(tc.code, tc.status, tc.text).Class; got != tc.want {
			t.Errorf("code %d, HTTP %d, %q: %s, want %s", tc.code, tc.status, tc.text, got, tc.want)
		}
	}
}

// TestCall_misbehaving asks servers and proxies that answer otherwise than
// OpenIM does.
func TestCall_misbehaving(t *testing.T) {
	whole := `{"errCode":0,"errMsg":"","errDlt":"","data":[{"userID":"alice","status":1,"detailPlatformStatus":[{"platformID":1,"token":"session-token","connID":"conn-id"}]}]}`
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		class  imclient.Class
		text   string
	}{
		"HTML 502":               {answersWith(502, "<html>Bad Gateway"), imclient.ClassTransient, "HTTP 502 Bad Gateway"},
		"panic handler":          {answersWith(500, ""), imclient.ClassTransient, "HTTP 500"},
		"text 404":               {answersWith(404, "404 page not found"), imclient.ClassFatal, "HTTP 404 Not Found: check base_url"},
		"401 of a proxy":         {answersWith(401, ""), imclient.ClassFatal, "HTTP 401"},
		"429 of a proxy":         {answersWith(429, "slow down"), imclient.ClassThrottled, "HTTP 429"},
		"413 of a proxy":         {answersWith(413, "<html>"), imclient.ClassBadBatch, "HTTP 413"},
		"success, but a 503":     {answersWith(503, whole), imclient.ClassTransient, "HTTP 503"},
		"empty":                  {says(""), imclient.ClassTransient, "the answer (0 bytes) is cut off"},
		"HTML":                   {says("<html>captive portal"), imclient.ClassTransient, "no reply of the API"},
		"null":                   {says("null"), imclient.ClassTransient, "no reply of the API"},
		"an array":               {says("[]"), imclient.ClassTransient, "no reply of the API"},
		"no code":                {says("{}"), imclient.ClassTransient, "no reply of the API"},
		"code of another type":   {says(`{"errCode":false,"data":[]}`), imclient.ClassTransient, "no reply of the API"},
		"a list of another type": {says(`{"errCode":0,"data":{"userID":"alice","status":1}}`), imclient.ClassTransient, "wrong type"},
		"no user of a type":      {says(`{"errCode":0,"data":[7,{"userID":1,"status":1}]}`), imclient.ClassTransient, "wrong type"},
		"code, of a type":        {says(`{"errCode":1002,"errMsg":5,"data":""}`), imclient.ClassFatal, "code 1002"},
		"a list twice": {says(`{"errCode":0,"data":[{"userID":"alice","status":1}],"data":[{"userID":"bob"}]}`),
			imclient.ClassTransient, "two members of one name"},
		"an id twice":        {data(`[{"userID":"alice","userID":"bob","status":1}]`), imclient.ClassTransient, "two members of one name"},
		"a code twice":       {says(`{"errCode":1002,"errCode":0,"data":[]}`), imclient.ClassTransient, "two members of one name"},
		"a token twice":      {data(`[{"userID":"alice","status":1,"detailPlatformStatus":[{"token":"session-token","token":""}]}]`), imclient.ClassTransient, "two members of one name"},
		"users without end":  {data(`[` + strings.Repeat(`{},`, 1000) + `{}]`), imclient.ClassTransient, "far more users than the 2 asked about"},
		"a code, and a page": {answersWith(500, `{"errCode":14}<html>`), imclient.ClassTransient, "HTTP 500"},
		"cut off in a token": {says(whole[:len(whole)-30]), imclient.ClassTransient, "is cut off"},
		"redirect":           {answersWith(307, "", "Location", "https://elsewhere.example/sso?x=y"), imclient.ClassFatal, "https://elsewhere.example;"},
		"too slow":           {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, imclient.ClassTransient, "no answer within the timeout of 150ms"},
		"connection closed":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, imclient.ClassTransient, "send the request"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, map[string][]http.HandlerFunc{online: {tc.answer}})
			answer, err := s.client(func(c *Config) { c.Timeout = 150 * time.Millisecond }).QueryPresence(t.Context(), []string{"alice", "bob"})
			e, ok := errors.AsType[*imclient.Error](err)
			if !ok {
				t.Fatalf("got %+v, %v", answer, err)
			}
			if e.Class != tc.class || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("class %s: %v\nwant %s with %q", e.Class, err, tc.class, tc.text)
			}
			if answer.Calls != 1 || answer.Observed != nil || answer.Rejected != nil {
				t.Errorf("with an error came %+v", answer)
			}
			if e.OpID == "" {
				t.Error("the error has no operationID")
			}
			s.checkSecrets("the error", fmt.Sprintf("%v %+v", err, *e))
		})
	}
}

func TestCall_contextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t, map[string][]http.HandlerFunc{online: {func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}}})
	if _, err := s.client().QueryPresence(ctx, []string{"alice"}); err != context.Canceled {
		t.Errorf("got %v, want the context's own error", err)
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
	s := newServer(t, map[string][]http.HandlerFunc{
		online: {fixture(t, "main-7848d7c/rate_limited_429.capture.json"), aliceOnline()},
		check:  {answersWith(429, "", "Retry-After", "3")},
	})
	c := s.client(func(c *Config) {
		c.PresenceGate = imclient.NewGate(presence, time.Now)
		c.AccountsGate = imclient.NewGate(accounts, time.Now)
	})
	if _, err := askAlice(t, c); imclient.ClassOf(err) != imclient.ClassThrottled {
		t.Errorf("got %v", err)
	}
	if _, err := askAlice(t, c); err != nil {
		t.Error(err)
	}
	_, err := c.CheckAccounts(t.Context(), []string{"alice"})
	if imclient.ClassOf(err) != imclient.ClassThrottled || !strings.Contains(err.Error(), "database down") {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(presence.pauses, []time.Duration{time.Second}) || !slices.Equal(accounts.pauses, []time.Duration{3 * time.Second}) {
		t.Errorf("pauses: presence %v, accounts %v", presence.pauses, accounts.pauses)
	}
	if text := s.log.String(); strings.Contains(text, `"level":"warn"`) {
		t.Errorf("the error is logged although the caller gets it: %s", text)
	}
}

// TestCall_logged: each call is a line at debug, by which it can be found again
// in the server's log; it says how many were asked about, not who.
func TestCall_logged(t *testing.T) {
	s := newServer(t, map[string][]http.HandlerFunc{online: {aliceOnline(), answersWith(502, "")}})
	c := s.client()
	for range 2 {
		_, _ = askAlice(t, c)
	}
	type call struct {
		Level, API, Class, Code, Message string
		Users, Status                    int
	}
	var got []call
	for line := range strings.Lines(s.log.String()) {
		var more struct {
			call
			ID   string   `json:"operation_id"`
			Took *float64 `json:"dur_ms"`
		}
		if err := json.Unmarshal([]byte(line), &more); err != nil {
			t.Fatal(err)
		}
		if more.ID == "" || more.Took == nil || strings.Contains(line, "alice") {
			t.Errorf("a call that cannot be found again, without its time, or that names users: %s", line)
		}
		got = append(got, more.call)
	}
	want := []call{
		{"debug", "get_admin_token", "", "", "call", 0, 200},
		{"debug", "get_users_online_status", "", "", "call", 1, 200},
		{"debug", "get_users_online_status", "transient", "", "call", 1, 502},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestClient_reusesConnections(t *testing.T) {
	const workers, each = 8, 10
	s := newServer(t, map[string][]http.HandlerFunc{online: times(workers*each, aliceOnline())})
	c := s.client()
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				if _, err := askAlice(t, c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := s.opened.Load(); n > 2*workers {
		t.Errorf("%d calls opened %d connections", workers*each, n)
	}
	if s.logins != 1 {
		t.Errorf("%d logins, want 1", s.logins)
	}
}

func TestTooManyIDs(t *testing.T) {
	c := newServer(t, nil).client(func(c *Config) { c.PresenceBatch, c.AccountsBatch = 3, 2 })
	if c.MaxPresenceBatch() != 3 || c.MaxAccountsBatch() != 2 {
		t.Errorf("limits %d and %d", c.MaxPresenceBatch(), c.MaxAccountsBatch())
	}
	if _, err := c.QueryPresence(t.Context(), make([]string, 4)); imclient.ClassOf(err) != imclient.ClassBadBatch {
		t.Errorf("presence: %v", err)
	}
	if _, err := c.CheckAccounts(t.Context(), make([]string, 3)); imclient.ClassOf(err) != imclient.ClassBadBatch {
		t.Errorf("accounts: %v", err)
	}
}

func TestNew_refuses(t *testing.T) {
	good := Config{BaseURL: "http://127.0.0.1:10002", AdminUserID: testAdmin, Secret: testSecret}
	c, err := New(good)
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxPresenceBatch() != 500 || c.MaxAccountsBatch() != 500 {
		t.Errorf("default limits %d and %d", c.MaxPresenceBatch(), c.MaxAccountsBatch())
	}
	for want, change := range map[string]func(*Config){
		"base_url (or region) is missing":     func(c *Config) { c.BaseURL = "" },
		"base_url must be https://host":       func(c *Config) { c.BaseURL = "127.0.0.1:10002" },
		"admin_user_id: the user id is empty": func(c *Config) { c.AdminUserID = "" },
		"secret is missing":                   func(c *Config) { c.Secret = "" },
		"PresenceBatch is 2001":               func(c *Config) { c.PresenceBatch = 2001 },
		"AccountsBatch is -1":                 func(c *Config) { c.AccountsBatch = -1 },
		"timeout is -1ns":                     func(c *Config) { c.Timeout = -1 },
	} {
		bad := good
		change(&bad)
		_, err := New(bad)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), testSecret) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := New(Config{}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want all faults at once: %v", err)
	}
}
