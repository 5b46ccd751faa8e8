package web

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"syncer/imclient"
	"syncer/internal/dev/pgtest"
	"syncer/internal/pg"
	"syncer/internal/schedule"
	"syncer/migrations"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.M{M: m}) }

// asOf is the present of the tests' database.
const asOf = "2026-11-22T12:00:00Z"

// seedSQL is three apps: main with presence runs half an hour apart, a gap, failures and
// transitions; chat and shop with few of them.
const seedSQL = `
INSERT INTO app (name, provider, created_at) VALUES ('main', 'tencent', now()), ('chat', 'openim', now());
INSERT INTO sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, max_gap, observed_from, observed_until, users, changed, failed, calls, error)
SELECT 1, 'presence', 'presence', 'cron', at, CASE WHEN at = '2026-11-22 06:00Z' THEN 'failed' ELSE 'succeeded' END, at, at + interval '12 s',
       at <> '2026-11-22 06:00Z', '1 h', at, at + interval '12 s', 1234, 7, 3, 5, CASE WHEN at = '2026-11-22 06:00Z' THEN 'the API <b>refused</b>' END
FROM generate_series('2026-11-22 00:00Z'::timestamptz, '2026-11-22 11:30Z', '30 min') AS at
WHERE at NOT BETWEEN '2026-11-22 02:10Z' AND '2026-11-22 04:40Z';
INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, users, failed, calls, observed_from)
VALUES (1, 'accounts', 'accounts', 'cron', 'running', '2026-11-22 11:59Z', 0, 0, 0, '2026-11-22 11:59Z');
INSERT INTO sync_range (run_id, range_no, status, lower_key, upper_key, owner, beat_at, users, calls, attempt)
SELECT run_id, 1, 'running', 'anouk', 'zoe', 'host-1-ABCDEF', '2026-11-22 11:59:55Z', 600, 6, 1 FROM sync_run WHERE status = 'running';
INSERT INTO observation_gap (app_id, kind, started_at, ended_at, last_seen_from, next_seen_by, run_id)
VALUES (1, 'presence', '2026-11-22 02:00:12Z', '2026-11-22 05:00Z', '2026-11-22 02:00Z', '2026-11-22 05:00:12Z', 6);
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT 1, run_id, finished_at, c.state::presence_state, c.platform, c.users + (run_id % 5) * (c.state = 'online')::int
FROM sync_run, (VALUES ('online', 'all', 400), ('online', 'ios', 300), ('online', 'web', 150), ('push_online', 'all', 34), ('offline', 'all', 800)) AS c (state, platform, users)
WHERE complete;
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since, since_after, last_online_after, last_online_at)
SELECT 1, u, s::presence_state, p::jsonb, at, at - interval '1 s', 1, at, after, CASE WHEN s = 'push_online' THEN after END, CASE WHEN s = 'push_online' THEN at END
FROM (VALUES
    ('anouk', 'online', '{"ios": "online", "web": "push_online"}', '2026-11-22 09:00:05Z'::timestamptz, '2026-11-22 08:30:05Z'::timestamptz),
    ('bob/../"<b>', 'offline', '{}', '2026-11-21 10:00:05Z', NULL),
    ('发', 'push_online', '{"android": "push_online"}', '2026-11-22 01:00:05Z', '2026-11-22 00:30:05Z')) AS v (u, s, p, at, after);
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since)
SELECT 1, 'anouk', CASE WHEN n > 0 THEN CASE n % 2 WHEN 0 THEN 'online' ELSE 'offline' END::presence_state END,
       CASE n % 2 WHEN 0 THEN 'offline' ELSE 'online' END::presence_state, CASE n % 2 WHEN 0 THEN '{}' ELSE '{"ios": "online"}' END::jsonb,
       CASE WHEN n > 0 THEN '2026-11-16 00:00Z'::timestamptz + n * interval '6 h' - interval '30 min' END, '2026-11-16 00:00Z'::timestamptz + n * interval '6 h', 1,
       CASE WHEN n > 0 THEN '2026-11-16 00:00Z'::timestamptz + (n - 1) * interval '6 h' END
FROM generate_series(0, 25) AS n;
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times)
VALUES (1, 'presence', 'mallory', '70107', 'mallory <i>is not there</i>', '2026-11-22 05:00Z', '2026-11-22 11:30Z', 7), (1, 'presence', 'otto', '70107', 'otto', '2026-11-22 06:00Z', '2026-11-22 11:30Z', 6),
       (1, 'accounts', '', 'null_id', 'a row without an id', '2026-11-22 05:00Z', '2026-11-22 11:30Z', 7);
INSERT INTO user_failure (app_id, kind, user_id, code, message, first_at, last_at, times, known_at)
VALUES (1, 'presence', '发', '70107', '发', '2026-11-22 05:00Z', '2026-11-22 11:30Z', 7, '2026-11-22 04:30Z');
-- Of chat no run is complete, of shop none lately.
INSERT INTO app (name, provider, created_at) VALUES ('shop', 'openim', now());
INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, max_gap, observed_from, observed_until)
VALUES (2, 'presence', 'presence', 'cron', 'failed', '2026-11-22 11:00Z', '2026-11-22 11:01Z', false, '45 min', '2026-11-22 11:00Z', '2026-11-22 11:01Z'),
       (3, 'presence', 'presence', 'cron', 'succeeded', '2026-11-21 11:00Z', '2026-11-21 11:01Z', true, '45 min', '2026-11-21 11:00Z', '2026-11-21 11:01Z');
INSERT INTO presence_snapshot (app_id, user_id, state, platforms, changed_at, asked_at, run_id, since)
VALUES (2, 'early', 'online', '{"web": "online"}', '2026-11-22 11:00:30Z', '2026-11-22 11:00:29Z', 1, '2026-11-22 11:00:30Z'), (2, 'late', 'online', '{"web": "online"}', '2026-11-22 11:30:30Z', '2026-11-22 11:30:29Z', 1, '2026-11-22 11:30:30Z'),
       (3, 'early', 'online', '{"web": "online"}', '2026-11-20 11:00:30Z', '2026-11-20 11:00:29Z', 1, '2026-11-20 11:00:30Z');
INSERT INTO api_quota (app_id, api, rate, next_at) VALUES (1, 'presence', 200, now()), (1, 'accounts', 100, now());`

// site is a server of pages and API on a database of its own.
type site struct {
	t       testing.TB
	conn    *pgx.Conn
	url     string
	db      *pg.DB
	server  *Server
	handler http.Handler
	log     bytes.Buffer
	gather  prometheus.Gatherer
}

// newSite returns a site. change, if not nil, changes its configuration.
func newSite(t testing.TB, change func(*Config)) *site {
	t.Helper()
	s := &site{t: t}
	s.url = pgtest.Template(t, "web", func(url string) error {
		m, err := migrations.Open(t.Context(), migrations.Config{URL: url, Schema: "syncer"})
		if err != nil {
			return err
		}
		defer m.Close()
		if _, err := m.Up(t.Context()); err != nil {
			return err
		}
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			return err
		}
		defer conn.Close(t.Context())
		_, err = conn.Exec(t.Context(), "SET search_path = syncer; "+seedSQL)
		return err
	})
	s.conn = pgtest.Connect(t, pgtest.WithParameters(t, s.url, "syncer.as_of", asOf))
	s.db = s.open(s.url)
	ticks, err := schedule.Parse("@every 30m", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	s.gather = registry
	c := Config{
		DB: s.db, Location: time.UTC, Listen: "127.0.0.1:9465", UserPages: true, Metrics: NewMetrics(registry), Log: zerolog.New(&s.log), Version: "test",
		Jobs:    []Job{{Name: "presence", Kind: imclient.KindPresence, Ticks: ticks}},
		Limits:  map[API]float64{{"main", imclient.KindAccounts}: 100},
		Meaning: func(imclient.Provider, string) string { return "the user does not exist" },
	}
	if change != nil {
		change(&c)
	}
	s.server = New(c)
	s.handler = s.server.Handler()
	return s
}

func (s *site) open(url string) *pg.DB {
	s.t.Helper()
	db, err := pg.New(s.t.Context(), pg.Config{URL: pgtest.WithParameters(s.t, url, "syncer.as_of", asOf), Schema: "syncer", MaxConns: 2, Process: "web", ReadOnly: true, AnswerWithin: time.Minute, Location: time.UTC})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(db.Close)
	return db
}

// get requests a page as a browser on this machine does.
func (s *site) get(target string, header ...string) *http.Response {
	s.t.Helper()
	return s.do(http.MethodGet, target, header...)
}

func (s *site) do(method, target string, header ...string) *http.Response {
	s.t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:9465"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Result()
}

// text requests a page and returns its text.
func (s *site) text(status int, target string, header ...string) string {
	s.t.Helper()
	response := s.get(target, header...)
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode != status {
		s.t.Fatalf("%s: status %d, want %d: %s", target, response.StatusCode, status, text)
	}
	return string(text)
}

// want checks that a text contains others.
func (s *site) want(where, text string, parts ...string) {
	s.t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			s.t.Errorf("%s does not contain %q", where, part)
		}
	}
}

// without checks that a text does not contain others.
func (s *site) without(where, text string, parts ...string) {
	s.t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			s.t.Errorf("%s contains %q", where, part)
		}
	}
}

// contract is the OpenAPI document.
type contract struct {
	compiler *jsonschema.Compiler
	paths    map[string]struct {
		Get struct {
			Responses map[string]struct {
				Ref     string `json:"$ref"`
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					} `json:"schema"`
				} `json:"content"`
			} `json:"responses"`
		} `json:"get"`
	}
}

const contractURL = "https://syncer.test/openapi.json"

func (s *site) contract() *contract {
	s.t.Helper()
	text := s.text(http.StatusOK, "/openapi.json")
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	c := &contract{compiler: jsonschema.NewCompiler()}
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(contractURL, document); err != nil {
		s.t.Fatal(err)
	}
	var paths struct{ Paths json.RawMessage }
	if err := json.Unmarshal([]byte(text), &paths); err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(paths.Paths, &c.paths); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// check checks an answer against the document.
func (c *contract) check(t testing.TB, path string, status, contentType, body string) {
	t.Helper()
	response, ok := c.paths[path].Get.Responses[status]
	if !ok {
		t.Errorf("%s has no answer with status %s in the document", path, status)
		return
	}
	schema := "#/components/schemas/Problem"
	if response.Ref == "" {
		schema = response.Content[contentType].Schema.Ref
	} else if contentType != "application/problem+json" {
		t.Errorf("%s: an error has the type %s", path, contentType)
	}
	compiled, err := c.compiler.Compile(contractURL + schema)
	if err != nil {
		t.Fatalf("%s %s: %v", path, schema, err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		t.Errorf("%s: %v: %s", path, err, body)
		return
	}
	if err := compiled.Validate(value); err != nil {
		t.Errorf("%s: the answer is not as documented: %v\n%s", path, err, body)
	}
}
