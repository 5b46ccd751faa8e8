package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"syncer/imclient"
	"syncer/internal/report"
	"syncer/repo/reports"
)

const (
	runsShown    = 50  // on the page of an app
	rangesShown  = 50  // of a run
	groupsShown  = 200 // of failures
	changesShown = 100 // of a user, in the table
	stepsShown   = 2000
)

// appDocument is the page of an app in JSON.
type appDocument struct {
	AsOf  time.Time          `json:"as_of"`
	State []reports.StateRow `json:"states"`
	Past  *past              `json:"past"`
	Runs  []reports.RunRow   `json:"runs"`
}

// appView is the input of an app's template.
type appView struct {
	Card     card
	Chart    curve
	Range    timeRange
	Ranges   []link
	Rows     []gridRow
	Ticks    []mark
	Running  []progress
	Gaps     []gapLine
	Statuses []link
	Runs     []runLine
	Legend   []legend
}

type gapLine struct{ Kind, From, To, Length string }

type runLine struct {
	reports.RunRow
	Began string
	Took  string
	Why   string
}

// statuses are those by which runs can be selected.
var statuses = []string{"running", "succeeded", "partial", "failed", "cancelled", "skipped"}

func (s *Server) appPage(w http.ResponseWriter, r *http.Request) {
	q, ok := s.formatted(w, r, "range", "status")
	if !ok {
		return
	}
	t, refused := rangeOf(q)
	if refused != nil {
		s.refuse(w, r, refused.Status, refused.Detail)
		return
	}
	app := r.PathValue("app")
	filter := reports.RunFilter{App: &app, Limit: runsShown}
	if status := q.Get("status"); status != "" {
		filter.Statuses = []string{status}
	}
	now, err := s.now(r.Context())
	if err != nil {
		s.refuse(w, r, http.StatusServiceUnavailable, "The request was given up.")
		return
	}
	gone := fmt.Sprintf("There is no app %q.", app)
	if p, ok := now.value.(*present); ok && !slices.ContainsFunc(p.States, func(k reports.StateRow) bool { return k.App == app }) {
		s.refuse(w, r, http.StatusNotFound, gone)
		return
	}
	fresh := 5 * time.Second
	if t.fresh > 10*time.Second {
		fresh = t.fresh / 4
	}
	seen, ok := s.read(w, r, "app "+url.PathEscape(app)+" "+t.Name+" "+q.Get("status"), fresh, func(ctx context.Context) (any, error) {
		d := &appDocument{}
		err := reports.Read(ctx, s.DB, func(r *reports.Reader) (err error) {
			d.AsOf = r.AsOf
			if d.Past, err = s.readPast(ctx, r, t, &app); err != nil {
				return err
			}
			d.Runs, err = r.LatestRuns(ctx, filter)
			return err
		})
		return d, err
	})
	if !ok {
		return
	}
	p, _ := now.value.(*present)
	d, _ := seen.value.(*appDocument)
	if p == nil || d == nil {
		seen.value = nil
		if seen.err == nil {
			seen.err, seen.since = now.err, now.since
		}
	} else {
		d = &appDocument{AsOf: p.AsOf, Past: d.Past, Runs: d.Runs}
		for _, k := range p.States {
			if k.App == app {
				d.State = append(d.State, k)
			}
		}
		seen.value = d
		if seen.err == nil {
			seen.err, seen.since = now.err, now.since
		}
	}
	s.show(w, r, seen, "app.html", gone, func() page {
		v := appView{Card: s.card(p, nil, d.State), Chart: draw(d.Past, app, chartWidth, chartHeight), Range: t, Ranges: rangeLinks(t, q), Legend: legends}
		v.Rows, v.Ticks = s.grid(d.Past, t, func(string) bool { return true })
		for _, run := range p.Running {
			if run.App == app {
				v.Running = append(v.Running, s.progress(run, d.State, p.AsOf))
			}
		}
		for _, g := range d.Past.Gaps {
			line := gapLine{Kind: g.Kind, From: g.StartedAt.In(s.Location).Format(time.DateTime), To: "still open", Length: span(time.Duration(g.Seconds * float64(time.Second)))}
			if g.EndedAt != nil {
				line.To, line.Length = g.EndedAt.In(s.Location).Format(time.DateTime), took(g.Seconds)
			}
			v.Gaps = append(v.Gaps, line)
		}
		for _, status := range append([]string{""}, statuses...) {
			to := url.Values{"range": {t.Name}}
			text := status
			if status == "" {
				text = "all"
			} else {
				to.Set("status", status)
			}
			v.Statuses = append(v.Statuses, link{text, "?" + to.Encode(), q.Get("status") == status})
		}
		for _, run := range d.Runs {
			v.Runs = append(v.Runs, runLine{run, run.StartedAt.In(s.Location).Format(time.DateTime), took(run.Seconds), given(run.Error)})
		}
		return page{Title: app, Data: v}
	})
}

// runView is the input of a run's template.
type runView struct {
	Detail   reports.RunDetail
	Sections []report.Section
	Progress *progress
}

// hidden takes the place of what would show a user's id.
const hidden = "…"

// withoutUsers returns the detail without ids of users, keys and messages about single
// users.
func withoutUsers(d reports.RunDetail) reports.RunDetail {
	d.Ranges = append([]reports.RangeRow(nil), d.Ranges...)
	for i := range d.Ranges {
		if d.Ranges[i].Lower != nil {
			d.Ranges[i].Lower = new(hidden)
		}
		if d.Ranges[i].Upper != nil {
			d.Ranges[i].Upper = new(hidden)
		}
	}
	d.Failures = append([]reports.FailureRow(nil), d.Failures...)
	for i := range d.Failures {
		d.Failures[i].Example, d.Failures[i].Message = hidden, hidden
	}
	d.Left = append([]reports.LeftRow(nil), d.Left...)
	for i := range d.Left {
		d.Left[i].Examples = []string{hidden}
	}
	return d
}

func (s *Server) runPage(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.formatted(w, r); !ok {
		return
	}
	text := r.PathValue("id")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		s.refuse(w, r, http.StatusNotFound, fmt.Sprintf("%q is no number of a run.", text))
		return
	}
	seen, ok := s.read(w, r, "run "+strconv.FormatInt(id, 10), freshFor, func(ctx context.Context) (any, error) {
		var value any = absent{}
		err := reports.Read(ctx, s.DB, func(r *reports.Reader) error {
			d, ok, err := r.RunDetail(ctx, id, rangesShown)
			if ok && !s.UserPages {
				d = withoutUsers(d)
			}
			if ok {
				value = runDocument{report.RunDocument(d), d}
			}
			return err
		})
		return value, err
	})
	if !ok {
		return
	}
	s.show(w, r, seen, "run.html", fmt.Sprintf("There is no run %d: it never was, or was removed with its app.", id), func() page {
		d := seen.value.(runDocument).detail
		v := runView{Detail: d, Sections: report.RunSections(d, rangesShown)}
		v.Sections[0].Title = "Details" // the page has the title
		if d.Status == "running" {
			if now, err := s.now(r.Context()); err == nil && now.value != nil {
				p := now.value.(*present)
				v.Progress = new(s.progress(d.RunRow, p.States, p.AsOf))
			}
		}
		return page{Title: fmt.Sprintf("run %d", id), Data: v}
	})
}

// runDocument is a run in JSON, as syncer runs show prints it.
type runDocument struct {
	Run    any
	detail reports.RunDetail
}

// MarshalJSON returns the run as syncer runs show prints it.
func (d runDocument) MarshalJSON() ([]byte, error) { return marshal(d.Run) }

// failuresView is the input of the template of failures.
type failuresView struct {
	Groups          []failureLine
	App, Kind, Code string
	Total           int64
	More            bool // there are more groups
}

type failureLine struct {
	reports.FailureGroup
	Since   string
	Meaning string
	Message string
	User    string // "": not shown
	UserURL string
}

// failuresDocument is the page of failures in JSON.
type failuresDocument struct {
	AsOf   time.Time              `json:"as_of"`
	Groups []reports.FailureGroup `json:"failures"`
}

func (s *Server) failuresPage(w http.ResponseWriter, r *http.Request) {
	q, ok := s.formatted(w, r, "app", "kind", "code")
	if !ok {
		return
	}
	chosen := func(name string) *string {
		if v := q.Get(name); v != "" {
			return &v
		}
		return nil
	}
	key := "failures " + url.Values{"app": {q.Get("app")}, "kind": {q.Get("kind")}, "code": {q.Get("code")}}.Encode()
	seen, ok := s.read(w, r, key, 10*time.Second, func(ctx context.Context) (any, error) {
		d := &failuresDocument{}
		return d, reports.Read(ctx, s.DB, func(r *reports.Reader) (err error) {
			d.AsOf = r.AsOf
			d.Groups, err = r.Failures(ctx, chosen("app"), chosen("kind"), chosen("code"), groupsShown)
			if !s.UserPages {
				for i := range d.Groups {
					d.Groups[i].Example, d.Groups[i].Message = hidden, hidden
				}
			}
			return err
		})
	})
	if !ok {
		return
	}
	s.show(w, r, seen, "failures.html", "", func() page {
		d := seen.value.(*failuresDocument)
		v := failuresView{App: q.Get("app"), Kind: q.Get("kind"), Code: q.Get("code"), More: len(d.Groups) == groupsShown}
		for _, g := range d.Groups {
			line := failureLine{FailureGroup: g, Since: g.FirstAt.In(s.Location).Format(time.DateTime), Meaning: s.meaning(g.Provider, g.Code)}
			if s.UserPages {
				line.Message = given(&g.Message)
				if g.Example != "" {
					line.User, line.UserURL = report.Printable(g.Example), userURL(g.Example)
				}
			}
			v.Total += g.Users
			v.Groups = append(v.Groups, line)
		}
		return page{Title: "failures", Data: v}
	})
}

func (s *Server) meaning(provider, code string) string {
	if s.Meaning == nil {
		return ""
	}
	return s.Meaning(imclient.Provider(provider), code)
}
