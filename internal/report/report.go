// Package report prints what package repo reads for reports: tables and curves for a
// terminal, CSV, JSON, and a self-contained HTML page. cmd/syncer calls it; package
// localtime cuts its days.
package report

import (
	"fmt"
	"strings"
	"time"

	"syncer/internal/localtime"
	"syncer/repo/reports"
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
	Inactive    = "inactive"
)

// Names are the names of the reports of the page, in its order. Inactive, which lists users,
// is not one of them.
var Names = []string{Concurrency, ActiveUsers, Sessions, Platforms, Accounts, Runs, Gaps}

// Head is common to all reports of one page. Times are in the span's location.
type Head struct {
	Span reports.Span
	AsOf time.Time // when the report was made; nothing later is known
	// Version is that of the program, which the page shows; "" omits it.
	Version string
}

// until returns the end of the known part of the span.
func (h Head) until() time.Time {
	if h.AsOf.Before(h.Span.To) {
		return h.AsOf
	}
	return h.Span.To
}

// app describes the selected apps.
func (h Head) app() string {
	if h.Span.App == nil {
		return "all apps"
	}
	return "app " + *h.Span.App
}

// span describes the time that is reported.
func (h Head) span() string {
	at := h.Span.Location
	return fmt.Sprintf("%s to %s (%s)", minute(h.Span.From.In(at)), minute(h.Span.To.In(at)), at)
}

// Report is one report: Rows and Lists for programs, charts and tables of the same
// data for people.
type Report struct {
	Name  string
	Title string
	// Rows is a slice of structs with json tags: the columns of CSV and the keys
	// of JSON, the same as in SQL.
	Rows  any
	Lists []List
	// Empty is a sentence for a report without data; "" otherwise.
	Empty  string
	Charts []Chart
	Tables []Table
	Notes  []string
}

// List is a further list in JSON.
type List struct {
	Key  string
	Rows any
}

// List returns the rows of the list with a key.
func (r Report) List(key string) any {
	for _, list := range r.Lists {
		if list.Key == key {
			return list.Rows
		}
	}
	return nil
}

// Table is data for people.
type Table struct {
	Title   string // "" for a single table
	Columns []Column
	Rows    [][]string
	Footer  []string // nil: none
}

// Column is a column of a Table.
type Column struct {
	Title string
	Right bool // numbers
}

// columns returns columns; a title that begins with > is of numbers.
func columns(titles ...string) []Column {
	all := make([]Column, len(titles))
	for i, title := range titles {
		all[i].Title, all[i].Right = strings.CutPrefix(title, ">")
	}
	return all
}

// Chart is a chart of values over time or over categories.
type Chart struct {
	Title  string   `json:"title"`
	Kind   string   `json:"kind"` // line or bars
	Unit   string   `json:"unit"` // users, seconds, share or sessions
	Series []Series `json:"series"`
	// X are seconds since 1970 or, with Labels, their indexes.
	X      []float64 `json:"x"`
	Labels []string  `json:"labels,omitempty"`
	// Gaps are the times without observation, in seconds since 1970.
	Gaps [][2]float64 `json:"gaps"`
	// From and To bound the time axis.
	From float64 `json:"from"`
	To   float64 `json:"to"`
	// Later is the time from which on nothing can be known yet.
	Later float64 `json:"later"`
	// Daily means that each value is of a local day and drawn in its middle.
	Daily bool `json:"daily"`
	// terminal is the index of the series that a terminal draws; -1: none.
	terminal int
}

// Series is one line or one row of bars. A nil value is unknown.
type Series struct {
	Label  string     `json:"label"`
	Values []*float64 `json:"values"`
	// Role is line, or low and high for the edges of a band.
	Role string `json:"role"`
}

// chart returns a chart over the head's span.
func (h Head) chart(title, kind, unit string) Chart {
	return Chart{Title: title, Kind: kind, Unit: unit, terminal: -1,
		From: seconds(h.Span.From), To: seconds(h.until()), Later: seconds(h.AsOf), Gaps: [][2]float64{}}
}

// shade marks the gaps of an app and kind in a chart.
func (c *Chart) shade(h Head, gaps []reports.GapRow, app, kind string) {
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

// seconds returns a time in the form of charts.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// middle returns the middle of a local day, where charts draw its values.
func (h Head) middle(day string) float64 {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return 0 // the database returns no other form
	}
	begin := localtime.Day(t.Year(), t.Month(), t.Day(), h.Span.Location)
	return (seconds(begin) + seconds(localtime.NextDay(begin))) / 2
}

// dailyChart returns a chart with a value for each local day.
func (h Head) dailyChart(title, kind, unit string) Chart {
	c := h.chart(title, kind, unit)
	c.Daily = true
	// Whole days: a line from before the axis would enter it at a value that was not
	// measured.
	first := h.Span.From.In(h.Span.Location)
	c.From = min(c.From, seconds(localtime.Day(first.Year(), first.Month(), first.Day(), h.Span.Location)))
	last := h.until().Add(-time.Microsecond).In(h.Span.Location)
	c.To = max(c.To, seconds(localtime.NextDay(last)))
	return c
}

// groups splits rows, ordered by a key, into those of each key.
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
