package report

import "syncer/repo/reports"

// Longest is the number of longest sessions that are listed.
const Longest = 20

// NewSessions reports how long users stay online. longest is nil unless users may be
// named.
func NewSessions(h Head, byDay, overall []reports.SessionsRow, longest []reports.SessionRow, gaps []reports.GapRow) Report {
	r := Report{Name: Sessions, Title: "Sessions", Rows: byDay, Lists: []List{{"overall", overall}}}
	if longest != nil {
		r.Lists = append(r.Lists, List{"longest", longest})
	}
	if len(byDay) == 0 {
		r.Empty = "No session began in this time: nobody came online, or nobody looked. See: syncer report gaps"
		return r
	}
	for i, of := range groups(byDay, func(row reports.SessionsRow) string { return row.App }) {
		app := of[0].App
		lengths := h.dailyChart("Length of the sessions: "+app, "line", "seconds")
		lengths.Series = []Series{{Label: "median", Role: "line"}, {Label: "nine of ten are shorter", Role: "line"}}
		begun := h.dailyChart("Sessions begun: "+app, "bars", "sessions")
		begun.Series = []Series{{Label: "sessions", Role: "line"}}
		t := Table{Title: app, Columns: columns("began on", ">sessions", ">median", ">90 % below", ">longest", ">cut by a gap", ">open")}
		for _, row := range of {
			at := h.middle(*row.Day)
			lengths.X, begun.X = append(lengths.X, at), append(begun.X, at)
			lengths.Series[0].Values = append(lengths.Series[0].Values, value(row.MedianSeconds))
			lengths.Series[1].Values = append(lengths.Series[1].Values, value(row.P90Seconds))
			begun.Series[0].Values = append(begun.Series[0].Values, value(row.Sessions))
			t.Rows = append(t.Rows, sessionCells(weekday(*row.Day), row))
		}
		t.Footer = sessionCells("all", overall[i])
		lengths.shade(h, gaps, app, "presence")
		begun.shade(h, gaps, app, "presence")
		r.Charts = append(r.Charts, begun, lengths)
		r.Tables = append(r.Tables, t)
	}
	if longest != nil {
		r.Tables = append(r.Tables, longestSessions(longest))
	}
	r.Notes = append(r.Notes, "Lengths are estimates, from the middle of when a session can have begun to the middle of when it can have ended, "+
		"without the time in which nobody looked. A gap cuts a session; open ones count with their length so far.")
	return r
}

func sessionCells(day string, row reports.SessionsRow) []string {
	return []string{day, Count(row.Sessions), length(row.MedianSeconds), length(row.P90Seconds), length(row.LongestSeconds),
		Count(row.CutByGap), Count(row.Open)}
}

func longestSessions(rows []reports.SessionRow) Table {
	t := Table{Title: "The longest", Columns: columns("app", "user", "began by", "ended by", ">length", ">surely", "how it ended")}
	how := map[string]string{"observed": "seen", "gap": "nobody looked", "rejected": "rejected by the API", "open": "goes on"}
	for _, row := range rows {
		ended := ""
		if row.EndedAt != nil {
			ended = minute(*row.EndedAt)
		}
		t.Rows = append(t.Rows, []string{row.App, row.UserID, minute(row.StartedAt), ended,
			length(row.EstimatedSeconds), length(row.KnownSeconds), how[row.EndedBy]})
	}
	return t
}
