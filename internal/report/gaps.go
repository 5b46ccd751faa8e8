package report

import (
	"time"

	"syncer/internal/localtime"
	"syncer/repo/reports"
)

// NewGaps reports the time without observation.
func NewGaps(h Head, rows []reports.GapRow, coverage []reports.CoverageRow) Report {
	r := Report{Name: Gaps, Title: "What is not known", Rows: rows, Lists: []List{{"coverage", coverage}}}
	if len(coverage) == 0 {
		r.Empty = "No run was completed up to the end of this time, so nothing is known of it. See: syncer report runs"
		return r
	}
	totals := Table{Columns: columns("app", "kind", "observed since", ">gaps", ">not observed", ">observed", ">share observed")}
	for _, row := range coverage {
		share := ""
		if row.ObservedShare != nil {
			share = percent(*row.ObservedShare)
		}
		totals.Rows = append(totals.Rows, []string{row.App, row.Kind, minute(row.Since), Count(row.Gaps), length(row.GapSeconds),
			length(row.ObservedSeconds), share})
		if row.Kind == "presence" {
			r.Charts = append(r.Charts, h.notObserved(row, rows))
		}
	}
	r.Tables = append(r.Tables, totals)
	if len(rows) == 0 {
		r.Notes = append(r.Notes, "There is no gap: somebody looked all the time.")
		return r
	}
	t := Table{Title: "The gaps", Columns: columns("app", "kind", "from", "to", ">length", ">of it in this time")}
	for _, row := range rows {
		ended := "goes on"
		if row.EndedAt != nil {
			ended = row.EndedAt.Format(time.DateTime)
		}
		t.Rows = append(t.Rows, []string{row.App, row.Kind, row.StartedAt.Format(time.DateTime), ended, length(row.Seconds), length(row.SecondsInSpan)})
	}
	r.Tables = append(r.Tables, t)
	r.Notes = append(r.Notes, "Time in which nobody looked counts as neither online nor offline in any report.")
	return r
}

// notObserved charts the unobserved part of each local day.
func (h Head) notObserved(of reports.CoverageRow, rows []reports.GapRow) Chart {
	c := h.dailyChart("Not observed, by day: "+of.App, "bars", "seconds")
	c.Series = []Series{{Label: "not observed", Role: "line"}}
	until := h.until()
	for day := h.Span.From.In(h.Span.Location); day.Before(until); day = localtime.NextDay(day) {
		end := localtime.NextDay(day)
		if end.After(until) {
			end = until
		}
		sum := 0.0
		for _, g := range rows {
			if g.App != of.App || g.Kind != of.Kind {
				continue
			}
			stop := end
			if g.EndedAt != nil && g.EndedAt.Before(stop) {
				stop = *g.EndedAt
			}
			start := day
			if g.StartedAt.After(start) {
				start = g.StartedAt
			}
			sum += max(stop.Sub(start).Seconds(), 0)
		}
		c.X = append(c.X, h.middle(day.Format(time.DateOnly)))
		c.Series[0].Values = append(c.Series[0].Values, value(sum))
	}
	return c
}
