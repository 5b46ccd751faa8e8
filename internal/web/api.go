package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"syncer/repo/reports"
)

const (
	// maxUsers is the largest number of users in one request.
	maxUsers = 500
	// maxTransitions and transitionsByDefault are sizes of a page of the history.
	maxTransitions, transitionsByDefault = 1000, 100
	// historyByDefault is how far back the history goes if no time is given.
	historyByDefault = 7 * 24 * time.Hour
)

// problem is an error of the API, as in RFC 9457.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func badRequest(format string, args ...any) *problem {
	return &problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(format, args...)}
}

// writeProblem writes an error as a problem document.
func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail})
}

// buffers hold answers while they are made.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// answer returns a handler of the API. make appends the answer, a JSON document, to b.
func (s *Server) answer(make func(ctx context.Context, b []byte, q url.Values) ([]byte, *problem)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			writeProblem(w, http.StatusBadRequest, "the query cannot be read: write & as %26, + as %2B and % as %25 in values")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), ReadTimeout)
		defer cancel()
		buffer := buffers.Get().(*[]byte)
		defer buffers.Put(buffer)
		b, refused := make(ctx, (*buffer)[:0], query)
		if refused != nil {
			writeProblem(w, refused.Status, refused.Detail)
			return
		}
		*buffer = b
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b)
	}
}

// parameters checks that a query has only known parameters, each at most once, except
// those whose name ends with "+" in known.
func parameters(q url.Values, known ...string) *problem {
	for name, values := range q {
		switch {
		case slices.Contains(known, name+"+"):
		case !slices.Contains(known, name):
			return badRequest("there is no parameter %s (allowed: %s)", name, strings.ReplaceAll(strings.Join(known, ", "), "+", ""))
		case len(values) > 1:
			return badRequest("the parameter %s is given more than once", name)
		}
	}
	return nil
}

// unavailable returns the problem of a failed statement.
func (s *Server) unavailable(ctx context.Context, err error) *problem {
	if !errors.Is(ctx.Err(), context.Canceled) {
		s.failures.Warn().Err(err).Msg("the API cannot answer")
	}
	return &problem{Status: http.StatusServiceUnavailable, Detail: problemOf(err)}
}

// app returns the app that a query names.
func (s *Server) app(ctx context.Context, q url.Values) (reports.Observed, *problem) {
	name := q.Get("app")
	if name == "" {
		return reports.Observed{}, badRequest("the parameter app is missing")
	}
	seen, err := s.apps.get(ctx, "", freshFor, func(ctx context.Context) (any, error) { return reports.ReadObserved(ctx, s.DB) })
	if err == nil {
		err = seen.err
	}
	if err != nil {
		return reports.Observed{}, s.unavailable(ctx, err)
	}
	for _, app := range seen.value.([]reports.Observed) {
		if app.Name == name {
			return app, nil
		}
	}
	return reports.Observed{}, &problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no app %s", name)}
}

// userData refuses answers about single users unless they are configured.
func (s *Server) userData() *problem {
	if s.UserPages {
		return nil
	}
	return &problem{Status: http.StatusForbidden, Detail: "answers about single users are off: set user_pages = true in [web]"}
}

// validUser refuses ids that Postgres cannot store.
func validUser(user string) *problem {
	if user == "" || !utf8.ValidString(user) || strings.Contains(user, "\x00") {
		return badRequest("a user id must be UTF-8 text, not empty and without a zero byte")
	}
	return nil
}

// presence answers /v1/presence: the newest known presence of some users.
func (s *Server) presence(ctx context.Context, b []byte, q url.Values) ([]byte, *problem) {
	if refused := errorOf(s.userData(), parameters(q, "app", "user+")); refused != nil {
		return nil, refused
	}
	users := q["user"]
	switch {
	case len(users) == 0:
		return nil, badRequest("the parameter user is missing; repeat it for several users")
	case len(users) > maxUsers:
		return nil, badRequest("%d users are too many: at most %d in one request", len(users), maxUsers)
	}
	for _, user := range users {
		if refused := validUser(user); refused != nil {
			return nil, refused
		}
	}
	app, refused := s.app(ctx, q)
	if refused != nil {
		return nil, refused
	}
	known, err := s.lookups.get(ctx, app, users)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	b = append(b, `{"app":`...)
	b = appendText(b, app.Name)
	b = append(b, `,"users":[`...)
	for i, user := range users {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendPresence(b, user, known[user])
	}
	return append(b, "]}\n"...), nil
}

// appendPresence appends a user's presence; row is nil if nothing is known.
func appendPresence(b []byte, user string, row *reports.PresenceRow) []byte {
	b = append(b, `{"user":`...)
	b = appendText(b, user)
	if row == nil {
		return append(b, `,"state":null,"platforms":{},"since_after":null,"since":null,"last_online_after":null,"last_online_at":null,"last_checked_at":null,"stale":true}`...)
	}
	b = append(b, `,"state":"`...)
	b = append(b, row.State...)
	b = append(b, `","platforms":`...)
	b = append(b, row.Platforms...)
	b = append(b, `,"since_after":`...)
	b = appendTime(b, row.SinceAfter)
	b = append(b, `,"since":`...)
	b = appendTime(b, &row.Since)
	b = append(b, `,"last_online_after":`...)
	b = appendTime(b, row.LastOnlineAfter)
	b = append(b, `,"last_online_at":`...)
	b = appendTime(b, row.LastOnlineAt)
	b = append(b, `,"last_checked_at":`...)
	b = appendTime(b, &row.LastCheckedAt)
	b = append(b, `,"stale":`...)
	b = strconv.AppendBool(b, row.Stale)
	return append(b, '}')
}

// appendTime appends a time as RFC 3339 in UTC, or null.
func appendTime(b []byte, t *time.Time) []byte {
	if t == nil {
		return append(b, "null"...)
	}
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c > '~' {
			quoted, _ := json.Marshal(s) // a string never fails
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// errorOf returns the first problem.
func errorOf(all ...*problem) *problem {
	for _, p := range all {
		if p != nil {
			return p
		}
	}
	return nil
}

// onlineAnswer is the document of /v1/online.
type onlineAnswer struct {
	AsOf time.Time           `json:"as_of"`
	Apps []reports.OnlineRow `json:"apps"`
}

// online answers /v1/online from the overview's reading, which all viewers share.
func (s *Server) online(ctx context.Context, b []byte, q url.Values) ([]byte, *problem) {
	if refused := parameters(q, "app"); refused != nil {
		return nil, refused
	}
	seen, err := s.now(ctx)
	if err == nil && seen.err != nil {
		err = seen.err // counts of an earlier time are no answer
	}
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	now := seen.value.(*present)
	answer := onlineAnswer{AsOf: now.AsOf.UTC(), Apps: []reports.OnlineRow{}}
	name, one := q.Get("app"), q.Has("app")
	known := false
	for _, state := range now.States {
		known = known || state.App == name
	}
	if one && !known {
		return nil, &problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no app %s", name)}
	}
	for _, row := range now.Online {
		if !one || row.App == name {
			row.ObservedAt = row.ObservedAt.UTC()
			answer.Apps = append(answer.Apps, row)
		}
	}
	document, err := marshal(answer)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	return append(b, document...), nil
}

// historyAnswer is the document of /v1/history.
type historyAnswer struct {
	App         string                  `json:"app"`
	User        string                  `json:"user"`
	From        time.Time               `json:"from"`
	To          time.Time               `json:"to"`
	Transitions []reports.TransitionRow `json:"transitions"`
	Next        *string                 `json:"next"` // address of the next page
}

// history answers /v1/history: the transitions of a user, page by page.
func (s *Server) history(ctx context.Context, b []byte, q url.Values) ([]byte, *problem) {
	if refused := errorOf(s.userData(), parameters(q, "app", "user", "from", "to", "after", "limit")); refused != nil {
		return nil, refused
	}
	user := q.Get("user")
	if !q.Has("user") {
		return nil, badRequest("the parameter user is missing")
	}
	if refused := validUser(user); refused != nil {
		return nil, refused
	}
	to := time.Now()
	from := to.Add(-historyByDefault)
	var after time.Time
	limit := transitionsByDefault
	for name, into := range map[string]*time.Time{"from": &from, "to": &to, "after": &after} {
		if text := q.Get(name); text != "" {
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil || at.Year() < 1 {
				return nil, badRequest("%s=%s is no time as in RFC 3339, such as 2026-11-30T08:00:00Z (write + as %%2B)", name, text)
			}
			*into = at
		}
	}
	if q.Has("to") && !q.Has("from") {
		from = to.Add(-historyByDefault)
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxTransitions {
			return nil, badRequest("limit=%s is no number from 1 to %d", text, maxTransitions)
		}
		limit = n
	}
	if !from.Before(to) {
		return nil, badRequest("from is not before to")
	}
	app, refused := s.app(ctx, q)
	if refused != nil {
		return nil, refused
	}
	rows, err := reports.Transitions(ctx, s.DB, app.AppID, user, from, to, after, limit+1)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	answer := historyAnswer{App: app.Name, User: user, From: from.UTC(), To: to.UTC(), Transitions: rows}
	if len(rows) > limit {
		answer.Transitions = rows[:limit]
		next := url.Values{
			"app": {app.Name}, "user": {user}, "from": {answer.From.Format(time.RFC3339Nano)}, "to": {answer.To.Format(time.RFC3339Nano)},
			"after": {rows[limit-1].ObservedAt.UTC().Format(time.RFC3339Nano)}, "limit": {strconv.Itoa(limit)},
		}
		answer.Next = new("/v1/history?" + next.Encode())
	}
	for i := range answer.Transitions {
		t := &answer.Transitions[i]
		t.ObservedAt = t.ObservedAt.UTC()
		if t.NotBefore != nil {
			t.NotBefore = new(t.NotBefore.UTC())
		}
	}
	document, err := marshal(answer)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	return append(b, document...), nil
}
