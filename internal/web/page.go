package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"syncer/internal/report"
)

// page is the input of a template.
type page struct {
	Title string
	Zone  string
	Users bool // user pages are on
	// Refresh makes the page load itself again.
	Refresh bool
	Away    *away
	Style   string // addresses of the assets
	Script  string
	JSON    string // address of the same page in JSON
	Version string
	Data    any
}

// away says that the shown data are old.
type away struct {
	Problem string
	Since   time.Time
	Age     string
	ReadAt  time.Time
	Nothing bool // there are no earlier data
}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"count": func(n any) string {
		switch n := n.(type) {
		case int64:
			return report.Count(n)
		case *int64:
			if n == nil {
				return "–"
			}
			return report.Count(*n)
		case int:
			return report.Count(int64(n))
		}
		return fmt.Sprint(n)
	},
	"clock":     func(t time.Time) string { return t.Format(time.TimeOnly) },
	"instant":   func(t time.Time) string { return t.Format(time.DateTime) },
	"iso":       func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"printable": report.Printable,
	"runURL":    func(id int64) string { return fmt.Sprintf("/run/%d", id) },
	"appURL":    appURL,
	"length":    took,
}).ParseFS(assets, "assets/*.html"))

// sums are the addresses of the assets with a digest, so that a browser may keep them.
var sums = map[string]string{}

func init() {
	for _, name := range []string{"style.css", "live.js"} {
		content, err := assets.ReadFile("assets/" + name)
		if err != nil {
			panic(err) // embedded
		}
		sum := sha256.Sum256(content)
		sums[name] = hex.EncodeToString(sum[:6])
	}
}

func serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	header := w.Header()
	header.Set("Cache-Control", "private, max-age=31536000, immutable")
	if r.URL.Query().Get("v") != sums[name] {
		header.Set("Cache-Control", "no-cache")
	}
	http.ServeFileFS(w, r, assets, "assets/"+name)
}

func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, assets, "assets/openapi.json")
}

func appURL(app string) string { return "/app/" + url.PathEscape(app) }

// userURL returns the address of a user's page. An id can look like a path that clients
// shorten.
func userURL(user string) string { return "/user?id=" + url.QueryEscape(user) }

// render answers with a page.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, name string, p page) {
	p.Zone, p.Users, p.Version = s.Location.String(), s.UserPages, s.Version
	p.Style, p.Script = "/assets/style.css?v="+sums["style.css"], "/assets/live.js?v="+sums["live.js"]
	q := r.URL.Query()
	q.Set("format", "json")
	p.JSON = "?" + q.Encode()
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, p); err != nil {
		s.Log.Error().Err(err).Str("page", name).Msg("a page cannot be made")
		http.Error(w, "The page cannot be made; see the log.", http.StatusInternalServerError)
		return
	}
	send(w, r, status, "text/html; charset=utf-8", b.Bytes())
}

// send answers with a text that the client may keep, and has to ask for again: the
// answer is 304 if it has not changed.
func send(w http.ResponseWriter, r *http.Request, status int, contentType string, text []byte) {
	sum := sha256.Sum256(text)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	header := w.Header()
	header.Set("Cache-Control", "private, no-cache")
	header.Set("ETag", tag)
	if status == http.StatusOK && strings.Contains(r.Header.Get("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", contentType)
	if status == http.StatusServiceUnavailable {
		header.Set("Retry-After", "5")
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text)
	}
}

// document is a page in JSON.
type document struct {
	ReadAt  *time.Time `json:"read_at"` // nil: nothing could be read
	Problem *string    `json:"problem"` // why nothing newer could be read
	Data    any        `json:"data"`
}

// show answers with what was read, as a page or in JSON. view returns the page for the
// newest reading. gone is the message if what the page is about does not exist.
func (s *Server) show(w http.ResponseWriter, r *http.Request, seen reading, name, gone string, view func() page) {
	status := http.StatusOK
	if seen.value == nil {
		status = http.StatusServiceUnavailable
	}
	if seen.value == (absent{}) {
		s.refuse(w, r, http.StatusNotFound, gone)
		return
	}
	if r.URL.Query().Get("format") == "json" {
		d := document{Data: seen.value}
		if seen.value != nil {
			d.ReadAt = new(seen.at.UTC())
		}
		if seen.err != nil {
			d.Problem = new(problemOf(seen.err))
		}
		text, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			s.Log.Error().Err(err).Str("page", name).Msg("a page cannot be made")
			http.Error(w, "The page cannot be made; see the log.", http.StatusInternalServerError)
			return
		}
		send(w, r, status, "application/json", append(text, '\n'))
		return
	}
	p := page{Title: "syncer"}
	if seen.value != nil {
		p = view()
	} else {
		name = "error.html"
	}
	p.Refresh = true
	if seen.err != nil {
		now := s.readings.now()
		p.Away = &away{Problem: problemOf(seen.err), Since: seen.since.In(s.Location), ReadAt: seen.at.In(s.Location), Nothing: seen.value == nil}
		if seen.value != nil {
			p.Age(now.Sub(seen.at))
		}
	}
	s.render(w, r, status, name, p)
}

// Age sets how old the shown data are.
func (p *page) Age(d time.Duration) { p.Away.Age = span(d) }

// formatted refuses unknown formats and parameters. known are the parameters besides
// format.
func (s *Server) formatted(w http.ResponseWriter, r *http.Request, known ...string) (url.Values, bool) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.refuse(w, r, http.StatusBadRequest, "The address cannot be read.")
		return nil, false
	}
	if refused := parameters(q, append(known, "format")...); refused != nil {
		s.refuse(w, r, refused.Status, refused.Detail)
		return nil, false
	}
	if f := q.Get("format"); q.Has("format") && f != "json" && f != "html" {
		s.refuse(w, r, http.StatusBadRequest, "There is no format "+f+" (allowed: html, json).")
		return nil, false
	}
	return q, true
}

// read returns the kept or a new reading, and answers itself if the client has gone.
func (s *Server) read(w http.ResponseWriter, r *http.Request, key string, fresh time.Duration, read func(context.Context) (any, error)) (reading, bool) {
	seen, err := s.readings.get(r.Context(), key, fresh, read)
	if err != nil {
		s.refuse(w, r, http.StatusServiceUnavailable, "The request was given up.")
		return seen, false
	}
	return seen, true
}

// ago describes how long ago something was, in units so coarse that a page rarely
// changes because of them.
func ago(now, t time.Time) string { return span(now.Sub(t)) + " ago" }

// span describes a length of time coarsely.
func span(d time.Duration) string {
	some := func(n int, what string) string {
		if n == 1 {
			return "1 " + what
		}
		return fmt.Sprintf("%d %ss", n, what)
	}
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < 2*time.Hour:
		return some(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return some(int(d.Hours()), "hour")
	default:
		return some(int(d.Hours()/24), "day")
	}
}

// took formats a duration to the second: 45s, 2m5s.
func took(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// short describes a length of time as coarsely as span, in few letters.
func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "< 1 min"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}
