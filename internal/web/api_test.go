package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgtest"
)

// same compares two JSON documents.
func same(t *testing.T, what, want, got string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(want), &a); err != nil {
		t.Fatalf("%s: %v: %s", what, err, want)
	}
	if err := json.Unmarshal([]byte(got), &b); err != nil {
		t.Fatalf("%s: %v: %s", what, err, got)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("%s, as in SQL (-) and in the answer (+):\n%s", what, diff)
	}
}

// singly returns each user alone.
func singly(users []string) (all [][]string) {
	for _, user := range users {
		all = append(all, []string{user})
	}
	return all
}

// instant is a SQL expression in the form of the API's times.
const instant = `CASE WHEN %[1]s IS NOT NULL THEN regexp_replace(to_char(%[1]s AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '\.?0+$', '') || 'Z' END`

// times puts instant in the place of «expression».
func times(sql string) string {
	for {
		before, rest, ok := strings.Cut(sql, "«")
		if !ok {
			return sql
		}
		expression, after, _ := strings.Cut(rest, "»")
		sql = before + fmt.Sprintf(instant, expression) + after
	}
}

// TestAPI holds that the API answers with the rows that SQL returns, as its document
// says, and refuses what it cannot answer.
func TestAPI(t *testing.T) {
	s := newSite(t, nil)
	contract := s.contract()
	answer := func(target string) string {
		t.Helper()
		text := s.text(http.StatusOK, target)
		path, _, _ := strings.Cut(target, "?")
		contract.check(t, path, "200", "application/json", text)
		return text
	}
	t.Run("presence", func(t *testing.T) {
		for app, users := range map[string][]string{
			"main": {"发", "anouk", "nobody", `bob/../"<b>`, "anouk"}, "chat": {"early", "late"}, "shop": {"early"},
		} {
			for _, users := range append([][]string{users}, singly(users)...) {
				want := pgtest.Value[string](t, s.conn, times(`
SELECT json_build_object('app', $1::text, 'users', json_agg(json_build_object('user', u.id, 'state', c.state, 'platforms', coalesce(c.platforms, '{}'),
    'since_after', «c.since_after», 'since', «c.since», 'last_online_after', «c.last_online_after», 'last_online_at', «c.last_online_at»,
    'last_checked_at', «c.last_checked_at», 'stale', coalesce(c.stale, true)) ORDER BY u.no))::text
FROM unnest($2::text[]) WITH ORDINALITY AS u (id, no)
LEFT JOIN syncer.presence_current AS c ON c.app = $1 AND c.user_id = u.id`), app, users)
				same(t, fmt.Sprint(app, users), want, answer("/v1/presence?"+url.Values{"app": {app}, "user": users}.Encode()))
			}
		}
		many := url.Values{"app": {"chat"}}
		for i := range 500 {
			many.Add("user", fmt.Sprintf("u%d", i))
		}
		answer("/v1/presence?" + many.Encode())
	})
	t.Run("online", func(t *testing.T) {
		want := pgtest.Value[string](t, s.conn, times(`
SELECT json_build_object('as_of', «syncer.as_of()», 'apps', json_agg(json_build_object('app', c.app, 'run_id', c.run_id, 'observed_at', «c.observed_at», 'users', c.users,
    'online', c.online, 'push_online', c.push_online, 'offline', c.offline, 'platforms', c.platforms, 'gap_since', NULL)))::text
FROM (SELECT * FROM syncer.presence_concurrency ORDER BY observed_at DESC LIMIT 1) AS c`))
		same(t, "online", want, answer("/v1/online"))
		same(t, "online", want, answer("/v1/online?app=main"))
		same(t, "an app without runs", `{"as_of": "`+asOf+`", "apps": []}`, answer("/v1/online?app=chat"))
	})
	t.Run("history", func(t *testing.T) {
		want := pgtest.Value[string](t, s.conn, times(`
SELECT json_agg(json_build_object('prev_state', prev_state, 'state', state, 'platforms', platforms, 'not_before', «not_before», 'observed_at', «observed_at», 'run_id', run_id) ORDER BY observed_at)::text
FROM syncer.presence_history WHERE user_id = 'anouk' AND observed_at >= '2026-11-16 06:00Z' AND observed_at < '2026-11-22 06:00Z'`))
		var all []json.RawMessage
		pages := 0
		for next := "/v1/history?app=main&user=anouk&from=2026-11-16T06:00:00Z&to=2026-11-22T06:00:00Z&limit=7"; next != ""; pages++ {
			var page struct {
				Transitions []json.RawMessage
				Next        *string
			}
			if err := json.Unmarshal([]byte(answer(next)), &page); err != nil {
				t.Fatal(err)
			}
			all = append(all, page.Transitions...)
			next = ""
			if page.Next != nil {
				next = *page.Next
			}
		}
		got, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "all pages", want, string(got))
		if pages != 4 {
			t.Errorf("%d pages for %d transitions, 7 each", pages, len(all))
		}
		answer("/v1/history?app=main&user=nobody")
		answer("/v1/history?app=main&user=anouk&from=2026-11-16T06:00:00%2B02:00&to=2026-11-22T06:00:00Z")
	})
	t.Run("refusals", func(t *testing.T) {
		many := "/v1/presence?app=main" + strings.Repeat("&user=u", 501)
		for _, test := range []struct {
			target string
			status int
			detail string
		}{
			{"/v1/presence?user=anouk", 400, "the parameter app is missing"},
			{"/v1/presence?app=main", 400, "the parameter user is missing"},
			{"/v1/presence?app=main&users=anouk", 400, "there is no parameter users (allowed: app, user)"},
			{"/v1/presence?app=main&app=chat&user=anouk", 400, "the parameter app is given more than once"},
			{"/v1/presence?app=main&user=", 400, "a user id must be"},
			{"/v1/presence?app=main&user=%ff", 400, "a user id must be"},
			{"/v1/presence?app=main&user=a%00", 400, "a user id must be"},
			{"/v1/presence?app=main&user=100%", 400, "the query cannot be read"},
			{many, 400, "501 users are too many: at most 500 in one request"},
			{"/v1/presence?app=gone&user=anouk", 404, "there is no app gone"},
			{"/v1/online?app=gone", 404, "there is no app gone"},
			{"/v1/online?user=anouk", 400, "there is no parameter user"},
			{"/v1/history?app=main", 400, "the parameter user is missing"},
			{"/v1/history?app=main&user=anouk&from=yesterday", 400, "from=yesterday is no time as in RFC 3339"},
			{"/v1/history?app=main&user=anouk&from=2026-11-16T06:00:00Z&to=2026-11-16T06:00:00Z", 400, "from is not before to"},
			{"/v1/history?app=main&user=anouk&limit=1001", 400, "limit=1001 is no number from 1 to 1000"},
			{"/v1/history?app=gone&user=anouk", 404, "there is no app gone"},
		} {
			response := s.get(test.target)
			text, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			path, _, _ := strings.Cut(test.target, "?")
			contract.check(t, path, fmt.Sprint(test.status), response.Header.Get("Content-Type"), string(text))
			var p problem
			if err := json.Unmarshal(text, &p); err != nil || response.StatusCode != test.status || p.Status != test.status || !strings.Contains(p.Detail, test.detail) {
				t.Errorf("%.60s: status %d, %s", test.target, response.StatusCode, text)
			}
		}
	})
	t.Run("no data about single users", func(t *testing.T) {
		off := newSite(t, func(c *Config) { c.UserPages = false })
		for _, target := range []string{"/v1/presence?app=main&user=anouk", "/v1/history?app=main&user=anouk"} {
			path, _, _ := strings.Cut(target, "?")
			contract.check(t, path, "403", "application/problem+json", off.text(http.StatusForbidden, target))
		}
		off.text(http.StatusOK, "/v1/online")
	})
	t.Run("Postgres is away", func(t *testing.T) {
		answer("/v1/presence?app=main&user=anouk")
		s.db.Close()
		for _, target := range []string{"/v1/presence?app=main&user=anouk", "/v1/history?app=main&user=anouk"} {
			path, _, _ := strings.Cut(target, "?")
			text := s.text(http.StatusServiceUnavailable, target)
			contract.check(t, path, "503", "application/problem+json", text)
			s.want(target, text, "Postgres cannot be reached")
		}
	})
}

// TestContract holds that the document has exactly the API's routes.
func TestContract(t *testing.T) {
	s := newSite(t, nil)
	var paths []string
	for path := range s.contract().paths {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	if diff := cmp.Diff([]string{"/v1/history", "/v1/online", "/v1/presence"}, paths); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}
