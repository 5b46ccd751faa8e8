package web

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"syncer/imclient"
	"syncer/internal/localtime"
	"syncer/internal/report"
	"syncer/repo/reports"
)

// present is what the overview shows of the present.
type present struct {
	AsOf      time.Time             `json:"as_of"`
	States    []reports.StateRow    `json:"states"`
	Online    []reports.OnlineRow   `json:"online"`
	Running   []reports.RunRow      `json:"running"`
	Instances []reports.InstanceRow `json:"instances"`
}

// now returns the reading of the present.
func (s *Server) now(ctx context.Context) (reading, error) {
	return s.readings.get(ctx, "now", freshFor, func(ctx context.Context) (any, error) {
		p := &present{}
		return p, reports.Read(ctx, s.DB, func(r *reports.Reader) (err error) {
			p.AsOf = r.AsOf
			if p.States, err = r.States(ctx); err != nil {
				return err
			}
			if p.Online, err = r.OnlineNow(ctx); err != nil {
				return err
			}
			if p.Running, err = r.Running(ctx); err != nil {
				return err
			}
			p.Instances, err = r.Instances(ctx)
			return err
		})
	})
}

// timeRange is a length of time that pages show.
type timeRange struct {
	Name, Label string
	length      time.Duration
	cell        time.Duration // of the grid; 0: a local day
	point       time.Duration // of curves
	fresh       time.Duration // a reading of it is shown for so long
}

var timeRanges = []timeRange{
	{"24h", "24 hours", 24 * time.Hour, 30 * time.Minute, 15 * time.Minute, 10 * time.Second},
	{"7d", "7 days", 7 * 24 * time.Hour, 3 * time.Hour, time.Hour, time.Minute},
	{"90d", "90 days", 90 * 24 * time.Hour, 0, 6 * time.Hour, 5 * time.Minute},
}

// rangeOf returns the range that a query names, the first by default.
func rangeOf(q url.Values) (timeRange, *problem) {
	if !q.Has("range") {
		return timeRanges[0], nil
	}
	for _, t := range timeRanges {
		if t.Name == q.Get("range") {
			return t, nil
		}
	}
	return timeRange{}, badRequest("there is no range %s (allowed: 24h, 7d, 90d)", q.Get("range"))
}

// buckets returns the starts of steps that end with the one of now.
func (t timeRange) buckets(now time.Time, step time.Duration) []time.Time {
	if step == 0 {
		days := int(t.length / (24 * time.Hour))
		year, month, day := now.Date()
		at := localtime.Day(year, month, day-days+1, now.Location())
		var all []time.Time
		for range days {
			all = append(all, at)
			at = localtime.NextDay(at)
		}
		return all
	}
	last := now.Truncate(step)
	n := int(t.length / step)
	all := make([]time.Time, n)
	for i := range all {
		all[i] = last.Add(-time.Duration(n-1-i) * step)
	}
	return all
}

// past is what pages show of a range of time.
type past struct {
	AsOf        time.Time                `json:"as_of"`
	Range       string                   `json:"range"`
	From        time.Time                `json:"from"`
	Cells       []reports.CellRow        `json:"grid"`
	CellStarts  []time.Time              `json:"grid_buckets"`
	Concurrency []reports.ConcurrencyRow `json:"concurrency"`
	Gaps        []reports.GapRow         `json:"gaps"`
	points      []time.Time
}

// readPast reads a range of time. If app is nil, it reads all apps.
func (s *Server) readPast(ctx context.Context, r *reports.Reader, t timeRange, app *string) (*past, error) {
	now := r.AsOf.In(s.Location)
	p := &past{AsOf: r.AsOf, Range: t.Name, points: t.buckets(now, t.point), CellStarts: t.buckets(now, t.cell)}
	p.From = p.points[0]
	span := reports.Span{App: app, From: p.From, To: r.AsOf.Add(time.Microsecond), Location: s.Location}
	var err error
	if p.Concurrency, err = r.Concurrency(ctx, span, p.points); err != nil {
		return nil, err
	}
	if p.Gaps, err = r.Gaps(ctx, span); err != nil {
		return nil, err
	}
	p.Cells, err = r.Grid(ctx, app, p.CellStarts)
	return p, err
}

// overview is the overview in JSON.
type overview struct {
	*present
	Day  *past `json:"-"`
	Past *past `json:"past"`
}

// overviewView is the input of the overview's template.
type overviewView struct {
	At       time.Time
	Cards    []card
	Hidden   int  // apps that the filter leaves out
	Filter   bool // there are so many apps that a filter helps
	App      string
	Range    timeRange
	Ranges   []link
	Rows     []gridRow
	Ticks    []mark
	Running  []progress
	Machines []machine
	Legend   []legend
}

type link struct {
	Text, URL string
	Current   bool
}

func (s *Server) overviewPage(w http.ResponseWriter, r *http.Request) {
	q, ok := s.formatted(w, r, "range", "app")
	if !ok {
		return
	}
	t, refused := rangeOf(q)
	if refused != nil {
		s.refuse(w, r, refused.Status, refused.Detail)
		return
	}
	now, err := s.now(r.Context())
	if err != nil {
		s.refuse(w, r, http.StatusServiceUnavailable, "The request was given up.")
		return
	}
	all := now
	if now.value != nil {
		o := &overview{present: now.value.(*present)}
		for _, part := range []struct {
			t    timeRange
			into **past
		}{{timeRanges[0], &o.Day}, {t, &o.Past}} {
			seen, ok := s.read(w, r, "past "+part.t.Name, part.t.fresh, func(ctx context.Context) (any, error) {
				var p *past
				err := reports.Read(ctx, s.DB, func(r *reports.Reader) (err error) {
					p, err = s.readPast(ctx, r, part.t, nil)
					return err
				})
				return p, err
			})
			if !ok {
				return
			}
			*part.into, _ = seen.value.(*past)
			if all.err == nil {
				all.err, all.since = seen.err, seen.since
			}
		}
		all.value = o
	}
	s.show(w, r, all, "overview.html", "", func() page {
		return page{Title: "syncer", Data: s.viewOverview(all.value.(*overview), t, q)}
	})
}

func (s *Server) viewOverview(o *overview, t timeRange, q url.Values) overviewView {
	v := overviewView{At: o.AsOf.In(s.Location), App: q.Get("app"), Range: t, Ranges: rangeLinks(t, q), Legend: legends}
	shown := func(app string) bool { return strings.Contains(app, v.App) }
	for i := 0; i < len(o.States); i += 2 { // both kinds of an app
		if !shown(o.States[i].App) {
			v.Hidden++
			continue
		}
		v.Cards = append(v.Cards, s.card(o.present, o.Day, o.States[i:i+2]))
	}
	v.Filter = v.App != "" || len(v.Cards) > 6
	// What needs a look comes first.
	slices.SortStableFunc(v.Cards, func(a, b card) int { return cmp.Compare(severity(b.Status), severity(a.Status)) })
	v.Rows, v.Ticks = s.grid(o.Past, t, shown)
	for _, run := range o.Running {
		if shown(run.App) {
			v.Running = append(v.Running, s.progress(run, o.States, o.AsOf))
		}
	}
	for _, i := range o.Instances {
		v.Machines = append(v.Machines, machine{InstanceRow: i, Beat: s.beat(i, o.AsOf)})
	}
	return v
}

// rangeLinks returns links to the same page with other ranges.
func rangeLinks(t timeRange, q url.Values) []link {
	var all []link
	for _, other := range timeRanges {
		to := maps.Clone(q)
		to.Set("range", other.Name)
		all = append(all, link{other.Label, "?" + to.Encode(), other.Name == t.Name})
	}
	return all
}

// card is what the overview shows of an app.
type card struct {
	App, Provider string
	Status, Says  string // class of the state, and a word for it
	Online        *reports.OnlineRow
	Share         string // of the known users
	At            time.Time
	Age           string
	Spark         curve
	Platforms     []bar
	Kinds         []kindLine
	Alerts        []alert
}

// kindLine is the sweeps of a kind of an app.
type kindLine struct {
	Kind            string
	Last, URL, Took string // of the newest complete run
	Next            string // tick; "": not known
	Quota, Limit    string // share in use; configured calls per second, "": not known
	Users           int64
	Failing         int64
	FailingURL      string
}

// alert is something that needs a look. Class is bad or warn.
type alert struct{ Class, Text, URL string }

func severity(class string) int { return slices.Index([]string{"idle", "good", "warn", "bad"}, class) }

// bar is a part of a whole.
type bar struct {
	Name  string
	Users int64
	X, W  float64 // of 100
	No    int     // of its colour
}

// card returns the card of an app. day is nil if it could not be read.
func (s *Server) card(p *present, day *past, kinds []reports.StateRow) card {
	c := card{App: kinds[0].App, Provider: kinds[0].Provider, Status: "idle", Says: "nothing known yet"}
	now := p.AsOf.In(s.Location)
	for i := range p.Online {
		if p.Online[i].App != c.App {
			continue
		}
		c.Online = &p.Online[i]
		c.At = c.Online.ObservedAt.In(s.Location)
		c.Age = ago(now, c.At)
		c.Status, c.Says = "good", "up to date"
		if c.Online.Online != nil && c.Online.Users > 0 {
			c.Share = fmt.Sprintf("%.1f %%", 100*float64(*c.Online.Online)/float64(c.Online.Users))
		}
		c.Platforms = bars(c.Online.Platforms)
	}
	if day != nil {
		c.Spark = draw(day, c.App, sparkWidth, sparkHeight)
	}
	for _, k := range kinds {
		if line, ok := s.kindLine(k, p, now); ok {
			c.Kinds = append(c.Kinds, line)
		}
		c.Alerts = append(c.Alerts, alerts(k, now)...)
	}
	for _, a := range c.Alerts {
		if severity(a.Class) > severity(c.Status) {
			c.Status = a.Class
			c.Says = map[string]string{"bad": "needs help", "warn": "look at it"}[a.Class]
		}
	}
	return c
}

// kindLine describes the sweeps of a kind. It reports false if there is nothing to say.
func (s *Server) kindLine(k reports.StateRow, p *present, now time.Time) (line kindLine, ok bool) {
	line = kindLine{Kind: k.Kind, Last: "none yet", Next: s.nextTick(k, now)}
	if k.CompleteRun == nil && line.Next == "" && k.LastRun == nil {
		return line, false
	}
	if k.CompleteRun != nil && k.ObservedUntil != nil {
		line.Last, line.URL, line.Took, line.Users = short(now.Sub(*k.ObservedUntil))+" ago", fmt.Sprintf("/run/%d", *k.CompleteRun), took(*k.Seconds), *k.Users
	}
	line.Quota, line.Limit = s.quota(k, p.Running)
	if k.Failed != nil && *k.Failed > 0 {
		line.Failing, line.FailingURL = *k.Failed, "/failures?"+url.Values{"app": {k.App}, "kind": {k.Kind}}.Encode()
	}
	return line, true
}

// nextTick returns the next tick of a kind's jobs, "" if it is not known.
func (s *Server) nextTick(k reports.StateRow, now time.Time) string {
	var next time.Time
	for _, job := range s.Jobs {
		if string(job.Kind) != k.Kind || job.App != "" && job.App != k.App {
			continue
		}
		if t := job.Ticks.Next(now); !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	switch {
	case next.IsZero():
		return ""
	case next.Sub(now) < 24*time.Hour:
		return next.In(s.Location).Format(time.TimeOnly)
	default:
		return next.In(s.Location).Format("2006-01-02 15:04")
	}
}

// quota returns how much of a kind's quota is in use, and its limit, "" if that is not
// known.
func (s *Server) quota(k reports.StateRow, running []reports.RunRow) (use, limitText string) {
	limit, known := s.Limits[API{k.App, imclient.Kind(k.Kind)}]
	if !known && k.Rate != nil && k.ThrottledAt == nil {
		limit, known = *k.Rate, true
	}
	use = "idle"
	for _, run := range running {
		if run.App != k.App || run.Kind != k.Kind || run.Seconds < 1 {
			continue
		}
		rate := float64(run.Calls) / run.Seconds
		use = fmt.Sprintf("%.0f/s", rate)
		if known {
			use = fmt.Sprintf("%.0f %%", min(100, 100*rate/limit))
		}
	}
	if known {
		limitText = fmt.Sprintf("%.0f/s", limit)
	}
	return use, limitText
}

// throttledFor is how long a rate-limit answer is shown.
const throttledFor = 10 * time.Minute

// alerts returns what is wrong with a kind of an app.
func alerts(k reports.StateRow, now time.Time) []alert {
	var all []alert
	say := func(class string, run *int64, format string, args ...any) {
		a := alert{Class: class, Text: k.Kind + ": " + fmt.Sprintf(format, args...)}
		if run != nil {
			a.URL = fmt.Sprintf("/run/%d", *run)
		}
		all = append(all, a)
	}
	at := func(t *time.Time) string {
		return t.In(now.Location()).Format(time.DateTime) + " (" + ago(now, *t) + ")"
	}
	if k.OutageSince != nil {
		say("bad", nil, "no answer from the API since %s: %s", at(k.OutageSince), given(k.OutageError))
	}
	if k.GapSince != nil {
		say("bad", nil, "not observed since %s; what happened since is unknown", at(k.GapSince))
	}
	if k.LastStatus != nil {
		switch {
		case *k.LastStatus == "failed":
			say("bad", k.LastRun, "run %d failed: %s", *k.LastRun, given(k.LastError))
		case *k.LastStatus == "cancelled":
			say("warn", k.LastRun, "run %d was cancelled", *k.LastRun)
		case *k.HeldBack > 0:
			say("warn", k.LastRun, "removals are held back: %s", given(k.LastError))
		case *k.Rejected > 0:
			say("warn", k.LastRun, "suspect answers about %s users were rejected", report.Count(*k.Rejected))
		}
	}
	if k.Suspect {
		say("warn", nil, "pages of which too many users went offline at once wait for their recheck")
	}
	if k.ThrottledAt != nil && now.Sub(*k.ThrottledAt) < throttledFor {
		say("warn", nil, "slowed down after a rate-limit answer at %s", k.ThrottledAt.In(now.Location()).Format(time.TimeOnly))
	}
	return all
}

// given returns a text on one line, "" for nil.
func given(s *string) string {
	if s == nil {
		return ""
	}
	return report.Printable(strings.ReplaceAll(*s, "\n", " "))
}

// bars returns the platforms as parts of a bar, the largest first.
func bars(platforms map[string]int64) []bar {
	var all []bar
	var total int64
	for _, name := range slices.Sorted(maps.Keys(platforms)) {
		if n := platforms[name]; n > 0 {
			all = append(all, bar{Name: name, Users: n})
			total += n
		}
	}
	slices.SortStableFunc(all, func(a, b bar) int { return cmp.Compare(b.Users, a.Users) })
	x := 0.0
	for i := range all {
		all[i].X, all[i].W, all[i].No = tenth(x), tenth(100*float64(all[i].Users)/float64(total)), i%6
		x += 100 * float64(all[i].Users) / float64(total)
	}
	return all
}

// progress is a running run.
type progress struct {
	reports.RunRow
	Began    time.Time
	Percent  float64 // < 0: unknown
	Expected int64   // users of the complete run before; 0: unknown
	Rate     string
	Left     string
}

func (s *Server) progress(run reports.RunRow, states []reports.StateRow, now time.Time) progress {
	p := progress{RunRow: run, Began: run.StartedAt.In(s.Location), Percent: -1}
	for _, k := range states {
		if k.App == run.App && k.Kind == run.Kind && k.Users != nil && run.Trigger != "hint" && run.Trigger != "hot" {
			p.Expected = *k.Users
		}
	}
	if run.Seconds > 0 && run.Users > 0 {
		p.Rate = report.Count(int64(float64(run.Users)/run.Seconds)) + " users/s"
	}
	if p.Expected > 0 {
		p.Percent = min(100, 100*float64(run.Users)/float64(p.Expected))
		if run.Users > 0 && run.Users < p.Expected {
			p.Left = took(run.Seconds * float64(p.Expected-run.Users) / float64(run.Users))
		}
	}
	return p
}

// machine is a process of syncer.
type machine struct {
	reports.InstanceRow
	Beat string
}

// quietAfter is when a sign of life of a process at work is late.
const quietAfter = 30 * time.Second

func (s *Server) beat(i reports.InstanceRow, now time.Time) string {
	switch {
	case i.BeatAt == nil:
		return "waits for work"
	case now.Sub(*i.BeatAt) > quietAfter:
		return "last sign of life at " + i.BeatAt.In(s.Location).Format(time.TimeOnly)
	default:
		return "at work"
	}
}
