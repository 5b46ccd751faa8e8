// Package report turns what was read for reports into what is printed: tables
// and curves for a terminal, CSV, JSON, and a self-contained HTML page.
package report

import (
	"fmt"
	"strings"
	"time"

	"syncer/internal/localtime"
	"syncer/repo"
)

// The reports.
const (
	Concurrency = "concurrency"
	ActiveUsers = "active-users"
	Sessions    = "sessions"
	Platforms   = "platforms"
	Accounts    = "accounts"
	Runs        = "runs"
	Gaps        = "gaps"
)

// Names are the names of all reports, in the order of a page.
var Names = []string{Concurrency, ActiveUsers, Sessions, Platforms, Accounts, Runs, Gaps}

// Head is what all reports of one page have in common. Times are in the span's
// location.
type Head struct {
	Span repo.Span
	AsOf time.Time // when it was made; nothing later is known
}

// until is the end of what can be known of the span.
func (h Head) until() time.Time {
	if h.AsOf.Before(h.Span.To) {
		return h.AsOf
	}
	return h.Span.To
}

// app says which apps it is about.
func (h Head) app() string {
	if h.Span.App == nil {
		return "all apps"
	}
	return "app " + *h.Span.App
}

// span says in words what time it is about.
func (h Head) span() string {
	at := h.Span.Location
	return fmt.Sprintf("%s to %s (%s)", minute(h.Span.From.In(at)), minute(h.Span.To.In(at)), at)
}

// Report is one report. For machines it has Rows and Lists, for people charts
// and tables of the same.
type Report struct {
	Name  string
	Title string
	// Rows is a slice of structs with json tags: the columns of CSV and the keys
	// of JSON, the same as in SQL.
	Rows  any
	Lists []List
	// Empty says in words that there is nothing; "" when there is something.
	Empty  string
	Charts []Chart
	Tables []Table
	Notes  []string
}

// List is what JSON has beside the rows.
type List struct {
	Key  string
	Rows any
}

// List gives the rows of the list of a key.
func (r Report) List(key string) any {
	for _, list := range r.Lists {
		if list.Key == key {
			return list.Rows
		}
	}
	return nil
}

// Table is rows for people.
type Table struct {
	Title   string // "" for the only one
	Columns []Column
	Rows    [][]string
	Footer  []string // nil: none
}

// Column is a column of a Table.
type Column struct {
	Title string
	Right bool // numbers
}

// columns makes columns: numbers have a > before their title.
func columns(titles ...string) []Column {
	all := make([]Column, len(titles))
	for i, title := range titles {
		all[i].Title, all[i].Right = strings.CutPrefix(title, ">")
	}
	return all
}

// Chart is a picture of values over time, or over categories.
type Chart struct {
	Title  string   `json:"title"`
	Kind   string   `json:"kind"` // line or bars
	Unit   string   `json:"unit"` // users, seconds, share or sessions
	Series []Series `json:"series"`
	// X are seconds since 1970, or when there are Labels the numbers of these.
	X      []float64 `json:"x"`
	Labels []string  `json:"labels,omitempty"`
	// Gaps are the times in which nobody looked, in seconds since 1970.
	Gaps [][2]float64 `json:"gaps"`
	// From and To bound the axis of time.
	From float64 `json:"from"`
	To   float64 `json:"to"`
	// Daily says that each value is of a local day, in the middle of which it is.
	Daily bool `json:"daily"`
	// terminal is the number of the series that a terminal shows as a curve; -1: none.
	terminal int
}

// Series is one line of a chart, or one row of bars. A nil value is not known.
type Series struct {
	Label  string     `json:"label"`
	Values []*float64 `json:"values"`
	// Role is line, or low and high for the edges of a band around it.
	Role string `json:"role"`
}

// chart makes a chart over the time of the head.
func (h Head) chart(title, kind, unit string) Chart {
	return Chart{Title: title, Kind: kind, Unit: unit, terminal: -1,
		From: seconds(h.Span.From), To: seconds(h.until()), Gaps: [][2]float64{}}
}

// shade marks the gaps of an app and kind in a chart.
func (c *Chart) shade(h Head, gaps []repo.GapRow, app, kind string) {
	for _, g := range gaps {
		if g.App != app || g.Kind != kind {
			continue
		}
		end := h.AsOf
		if g.EndedAt != nil {
			end = *g.EndedAt
		}
		from, to := max(seconds(g.StartedAt), c.From), min(seconds(end), c.To)
		if from < to {
			c.Gaps = append(c.Gaps, [2]float64{from, to})
		}
	}
}

// seconds is a time as charts have it.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// middle is when half of a local day is over: where charts have its values.
func (h Head) middle(day string) float64 {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return 0 // the database writes no other form
	}
	begin := localtime.Day(t.Year(), t.Month(), t.Day(), h.Span.Location)
	return (seconds(begin) + seconds(localtime.NextDay(begin))) / 2
}

// dailyChart makes a chart with a value for each local day.
func (h Head) dailyChart(title, kind, unit string) Chart {
	c := h.chart(title, kind, unit)
	c.Daily = true
	// Whole days: a line that begins before the axis would enter it at a value that
	// was not measured.
	first := h.Span.From.In(h.Span.Location)
	c.From = min(c.From, seconds(localtime.Day(first.Year(), first.Month(), first.Day(), h.Span.Location)))
	last := h.until().Add(-time.Microsecond).In(h.Span.Location)
	c.To = max(c.To, seconds(localtime.NextDay(last)))
	return c
}

// groups cuts rows, which are ordered by a key, into those of each.
func groups[T any](rows []T, key func(T) string) [][]T {
	var all [][]T
	begin := 0
	for i := range rows {
		if i+1 == len(rows) || key(rows[i+1]) != key(rows[i]) {
			all = append(all, rows[begin:i+1])
			begin = i + 1
		}
	}
	return all
}

func value[N int64 | float64](n N) *float64 {
	v := float64(n)
	return &v
}

func maybe[N int64 | float64](n *N) *float64 {
	if n == nil {
		return nil
	}
	return value(*n)
}
