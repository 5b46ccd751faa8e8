package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncer/internal/dev/pgtest"
	"syncer/repo"
)

// TestPages holds that the pages show what SQL returns, with texts of others escaped,
// and that unchanged pages are not sent again.
func TestPages(t *testing.T) {
	s := newSite(t, nil)
	online := pgtest.Value[int64](t, s.conn, `SELECT online FROM syncer.presence_concurrency ORDER BY observed_at DESC LIMIT 1`)
	pages := map[string][]string{
		"/":                                   {fmt.Sprintf("%d <small>online</small>", online), "ios <b>304</b>", "/failures?app=main&amp;kind=presence", "600 users", "3 users failed", "host-1-ABCDEF", "at work", "chat"},
		"/?range=7d&app=mai":                  {"2 more are left out", `aria-current="true">7 days`},
		"/?range=90d":                         {`aria-current="true">90 days`},
		"/app/main":                           {fmt.Sprintf("%d <small>online</small>", online), "not observed from 2026-11-22 02:00:12 to 2026-11-22 05:00:00", "the API &lt;b&gt;refused"},
		"/app/main?status=failed":             {"the API &lt;b&gt;refused"},
		"/app/chat":                           {"no complete sweep yet"},
		"/run/1":                              {"succeeded", "1,234 asked about, 7 changed, 3 failed"},
		"/failures":                           {"70107", "mallory &lt;i&gt;is not there", "the user does not exist", "/user?id=mallory", "(no id)"},
		"/failures?code=70107":                {"70107"},
		"/failures?app=none":                  {"No user fails with this filter"},
		"/user/anouk":                         {"online", "on ios, web (push_online), since 2026-11-22 09:00:05", "became online after 2026-11-21 05:30:00, by 2026-11-21 06:00:00", "url(#online-begin)", "url(#hatch)"},
		"/user?id=mallory":                    {"it fails since 2026-11-22 05:00:00 with code 70107"},
		"/user?id=" + "bob%2F..%2F%22%3Cb%3E": {"bob/../&#34;&lt;b&gt;", "offline"},
		"/user/nobody":                        {"Nothing is known about this user"},
	}
	for target, parts := range pages {
		text := s.text(http.StatusOK, target)
		s.want(target, text, parts...)
		s.without(target, text, "<b>refused", "<i>is not", "style=", "onclick", "ZgotmplZ", "%!", "NaN")
	}
	s.without("failures of one code", s.text(http.StatusOK, "/failures?code=70107"), "null_id")

	// The same page in JSON.
	type row struct {
		App    string
		Online *int64
	}
	var d struct {
		Data struct{ Online []row }
	}
	decode(t, s.text(http.StatusOK, "/?format=json"), &d)
	if diff := cmp.Diff([]row{{"main", &online}}, d.Data.Online); diff != "" {
		t.Errorf("online, as in SQL (-) and in JSON (+):\n%s", diff)
	}
	for target := range pages {
		separator := "?"
		if strings.Contains(target, "?") {
			separator = "&"
		}
		var document struct {
			ReadAt  *time.Time `json:"read_at"`
			Problem *string
			Data    map[string]any
		}
		decode(t, s.text(http.StatusOK, target+separator+"format=json"), &document)
		if document.ReadAt == nil || document.Problem != nil || len(document.Data) == 0 {
			t.Errorf("%s in JSON: %+v", target, document)
		}
	}

	// Unchanged pages, HEAD, other methods, what is not there.
	for target := range pages {
		first := s.get(target)
		again := s.get(target, "If-None-Match", first.Header.Get("ETag"))
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: status %d", target, again.StatusCode)
		}
		if got := first.Header.Get("Content-Security-Policy"); got != policy {
			t.Errorf("%s: policy %s", target, got)
		}
	}
	if head := s.do(http.MethodHead, "/"); head.StatusCode != http.StatusOK || head.ContentLength > 0 {
		t.Errorf("HEAD: status %d", head.StatusCode)
	}
	for target, status := range map[string]int{
		"/nothing": 404, "/app/none": 404, "/run/99999": 404, "/run/x": 404, "/user?id=anouk&app=none": 404,
		"/?range=1y": 400, "/?format=xml": 400, "/?colour=red": 400, "/user": 400, "/user?id=%ff": 400,
	} {
		text := s.text(status, target)
		s.want(target, text, "<h1>")
		if strings.Contains(target, "format") {
			continue
		}
		s.want(target+" as JSON", s.text(status, target+map[bool]string{true: "&", false: "?"}[strings.Contains(target, "?")]+"format=json"), `"status":`)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		for _, target := range []string{"/", "/v1/online", "/user/anouk"} {
			if response := s.do(method, target); response.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: status %d", method, target, response.StatusCode)
			}
		}
	}

	// Who looked is logged, at whom is not.
	if looks, users := strings.Count(s.log.String(), `"user_hash":`), 4; looks != users {
		t.Errorf("%d looks are logged, want one for each of %d users", looks, users)
	}
	s.without("the log", s.log.String(), `"anouk"`, "mallory")
}

// TestPages_withoutUsers holds that no page shows a user's id if user pages are off.
func TestPages_withoutUsers(t *testing.T) {
	s := newSite(t, func(c *Config) { c.UserPages = false })
	running := pgtest.Value[int64](t, s.conn, `SELECT run_id FROM syncer.sync_run WHERE status = 'running'`)
	for _, target := range []string{"/", "/app/main", "/run/1", fmt.Sprintf("/run/%d", running), "/failures", "/failures?format=json", fmt.Sprintf("/run/%d?format=json", running)} {
		s.without(target, s.text(http.StatusOK, target), "anouk", "mallory", "zoe")
	}
	s.want("a user's page", s.text(http.StatusForbidden, "/user/anouk"), "user_pages = true")
}

// TestAdmission holds that a token is required if there is one, and that without one
// foreign names of this machine are refused.
func TestAdmission(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Token = "right" })
	ask := func(name, password string) int {
		r, _ := http.NewRequest(http.MethodGet, "/", nil)
		r.SetBasicAuth(name, password)
		return s.get("/v1/online", "Authorization", r.Header.Get("Authorization")).StatusCode
	}
	for _, target := range []string{"/", "/v1/online", "/assets/live.js", "/openapi.json", "/nothing"} {
		response := s.get(target)
		if response.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(response.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s without the token: status %d", target, response.StatusCode)
		}
	}
	for password, want := range map[string]int{"right": 200, "": 401, "righ": 401, "right ": 401, "wrong": 401} {
		if got := ask("anyone", password); got != want {
			t.Errorf("with the password %q: status %d, want %d", password, got, want)
		}
	}
	if got := s.get("/v1/online", "Authorization", "Bearer right").StatusCode; got != 401 {
		t.Errorf("with a bearer token: status %d", got)
	}
	open := newSite(t, nil)
	r, _ := http.NewRequest(http.MethodGet, "http://evil.test/", nil)
	w := &recorder{ResponseWriter: discard{}}
	open.handler.ServeHTTP(w, r)
	if w.status != http.StatusMisdirectedRequest {
		t.Errorf("with a foreign name: status %d", w.status)
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// clock is a clock that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// TestShared holds that 200 tabs cost one set of statements in 2 seconds.
func TestShared(t *testing.T) {
	s := newSite(t, nil)
	c := &clock{at: time.Now()}
	s.server.readings.now = c.now
	const tabs = 200
	for round := range 4 {
		var all sync.WaitGroup
		for range tabs {
			all.Go(func() {
				if status := s.get("/").StatusCode; status != http.StatusOK {
					t.Errorf("status %d", status)
				}
			})
		}
		all.Wait()
		// The first round also reads the day, which is good for ten seconds.
		want := float64(round + 2)
		if got := testutil.ToFloat64(s.server.Metrics.readings.WithLabelValues("read")); got != want {
			t.Errorf("after %d rounds of %d tabs: %v sets of statements, want %v", round+1, tabs, got, want)
		}
		c.advance(freshFor)
	}
}

// TestAway holds that a page shows the last data with their age while Postgres is away.
func TestAway(t *testing.T) {
	s := newSite(t, nil)
	c := &clock{at: time.Now()}
	s.server.readings.now = c.now
	targets := []string{"/", "/app/main", "/run/1", "/failures", "/user/anouk"}
	for _, target := range targets {
		s.text(http.StatusOK, target)
	}
	s.db.Close()
	c.advance(5 * time.Minute)
	for _, target := range targets {
		text := s.text(http.StatusOK, target)
		s.want(target, text, "Postgres cannot be reached (see the log)", "5 minutes ago", "main")
		s.without(target, text, "closed pool")
		var d struct {
			Problem *string
			Data    map[string]any
		}
		decode(t, s.text(http.StatusOK, target+"?format=json"), &d)
		if d.Problem == nil || len(d.Data) == 0 {
			t.Errorf("%s in JSON: %+v", target, d)
		}
	}
	s.want("a page that was never read", s.text(http.StatusServiceUnavailable, "/run/2"), "Nothing was read before", "Postgres cannot be reached")
	s.want("the log", s.log.String(), "closed pool")
}

// TestReader holds that the role that grant-reader makes is enough, and that the
// sessions of the pages cannot write even as the owner.
func TestReader(t *testing.T) {
	s := newSite(t, nil)
	role, asRole := pgtest.NewRole(t, s.conn, s.url)
	for _, statement := range repo.GrantReaderSQL("syncer", role) {
		pgtest.Exec(t, s.conn, statement)
	}
	reader := New(Config{DB: s.open(asRole), Location: time.UTC, Listen: "127.0.0.1:9465", UserPages: true, Log: s.server.Log})
	s.handler = reader.Handler()
	for _, target := range []string{"/", "/app/main", "/run/1", "/failures", "/user/anouk", "/v1/online", "/v1/presence?app=main&user=anouk", "/v1/history?app=main&user=anouk"} {
		s.without(target, s.text(http.StatusOK, target), "Postgres refuses", "may not read")
	}
	_, err := s.db.Exec(t.Context(), `DELETE FROM syncer.user_failure`)
	if err == nil || !strings.Contains(err.Error(), "read-only transaction") {
		t.Errorf("a session of the pages wrote: %v", err)
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
