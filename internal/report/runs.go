package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"syncer/repo/reports"
)

// runsShown bounds the unsuccessful runs that are listed for people, and the runs in
// all.
const runsShown = 20

// NewRuns reports the runs, newest first, and how they ended.
func NewRuns(h Head, rows []reports.RunRow, gaps []reports.GapRow) Report {
	r := Report{Name: Runs, Title: "Runs", Rows: rows}
	if len(rows) == 0 {
		r.Empty = "No run began in this time. Is syncer running? Start it with: syncer run, or once with: syncer backfill"
		return r
	}
	byApp := slices.DeleteFunc(slices.Clone(rows), func(row reports.RunRow) bool { return row.Trigger == "hint" })
	r.Tables = append(r.Tables, outcomes(byApp))
	kindOf := func(row reports.RunRow) string { return row.App + " " + row.Kind }
	slices.SortStableFunc(byApp, func(a, b reports.RunRow) int { return strings.Compare(kindOf(a), kindOf(b)) })
	for _, of := range groups(byApp, kindOf) {
		if c := h.durations(of, gaps); len(c.X) > 0 {
			r.Charts = append(r.Charts, c)
		}
	}
	troubled := slices.DeleteFunc(slices.Clone(rows), func(row reports.RunRow) bool {
		return row.Status == "succeeded" || row.Status == "running"
	})
	if len(troubled) > 0 {
		r.Tables = append(r.Tables, newest("The newest that did not succeed", troubled))
	}
	r.Tables = append(r.Tables, newest("The newest", rows))
	if len(rows) > runsShown {
		r.Notes = append(r.Notes, fmt.Sprintf("All %s runs have a row with --format csv or json.", Count(int64(len(rows)))))
	}
	return r
}

// durations charts how long the completed runs of an app and kind took. rows are
// newest first. The line breaks at a run that did not complete and over gaps, so that
// it draws no durations that no run had.
func (h Head) durations(rows []reports.RunRow, gaps []reports.GapRow) Chart {
	app, kind := rows[0].App, rows[0].Kind
	c := h.chart("How long runs took: "+app+", "+kind, "line", "seconds")
	c.Series = []Series{{Label: "duration", Role: "line"}}
	c.shade(h, gaps, app, kind)
	add := func(at float64, v *float64) {
		c.X, c.Series[0].Values = append(c.X, at), append(c.Series[0].Values, v)
	}
	ahead := c.Gaps // in order
	for _, row := range slices.Backward(rows) {
		at := seconds(row.StartedAt)
		for len(ahead) > 0 && ahead[0][0] < at {
			add(ahead[0][0], nil)
			ahead = ahead[1:]
		}
		switch row.Status {
		case "succeeded", "partial":
			add(at, value(row.Seconds))
		case "failed", "cancelled":
			add(at, nil)
		}
	}
	if !slices.ContainsFunc(c.Series[0].Values, func(v *float64) bool { return v != nil }) {
		c.X = nil
	}
	return c
}

// newest returns a table of the first rows.
func newest(title string, rows []reports.RunRow) Table {
	t := Table{Title: title, Columns: columns("began", "app", "kind", "job", "status", ">took", ">users", ">changed", ">failed", "why")}
	for _, row := range rows[:min(len(rows), runsShown)] {
		t.Rows = append(t.Rows, []string{row.StartedAt.Format(time.DateTime), row.App, row.Kind, row.Job, row.Status, length(row.Seconds),
			Count(row.Users), Count(row.Changed), Count(row.Failed), why(row)})
	}
	return t
}

// why returns in a few words why a run did not succeed.
func why(row reports.RunRow) string {
	switch {
	case row.Error != nil:
		return shorten(*row.Error, 60)
	case row.RejectedAnswers > 0:
		return Count(row.RejectedAnswers) + " users: suspect answers were rejected"
	case row.Status == "skipped":
		return "the run before was still going"
	default:
		return ""
	}
}

// outcomes counts the runs by status.
func outcomes(rows []reports.RunRow) Table {
	statuses := []string{"succeeded", "partial", "failed", "cancelled", "skipped", "running"}
	type key struct{ app, kind string }
	counts := map[key]map[string]int64{}
	var keys []key
	for _, row := range rows {
		k := key{row.App, row.Kind}
		if counts[k] == nil {
			counts[k] = map[string]int64{}
			keys = append(keys, k)
		}
		counts[k][row.Status]++
	}
	slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.app+" "+a.kind, b.app+" "+b.kind) })
	t := Table{Title: "How they ended", Columns: columns("app", "kind", ">succeeded", ">partial", ">failed", ">cancelled", ">skipped", ">running")}
	for _, k := range keys {
		cells := []string{k.app, k.kind}
		for _, status := range statuses {
			cells = append(cells, Count(counts[k][status]))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}
