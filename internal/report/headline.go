package report

import (
	"fmt"
	"time"

	"syncer/repo/reports"
)

// headline are the figures of one app at the head of the page of all reports.
type headline struct {
	App     string
	Figures []figure
}

// figure is a number under a name; Detail says when, or of what. Value is – if it is not
// known.
type figure struct{ Name, Value, Detail string }

// unknown is the text for a figure that is not known.
const unknown = "–"

// headlines returns the figures of each app of the reports, as far as they are among them.
func (h Head) headlines(all []Report) []headline {
	byName := map[string]Report{}
	for _, r := range all {
		byName[r.Name] = r
	}
	online, _ := byName[Concurrency].Rows.([]reports.ConcurrencyRow)
	active, _ := byName[ActiveUsers].Rows.([]reports.ActiveUsersRow)
	runs, _ := byName[Runs].Rows.([]reports.RunRow)
	devices, _ := byName[Platforms].List("multi_platform").([]reports.DevicesRow)
	accounts, _ := byName[Accounts].List("coverage").([]reports.AccountCoverageRow)
	coverage, _ := byName[Gaps].List("coverage").([]reports.CoverageRow)
	if len(all) < len(Names) {
		return nil
	}
	var lines []headline
	for _, of := range groups(online, func(row reports.ConcurrencyRow) string { return row.App }) {
		app := of[0].App
		lines = append(lines, headline{app, []figure{
			h.onlineNow(ofApp(devices, app, func(row reports.DevicesRow) string { return row.App })),
			peak(of),
			h.active(ofApp(active, app, func(row reports.ActiveUsersRow) string { return row.App }), "Active in a day", func(row reports.ActiveUsersRow) int64 { return row.Daily }),
			h.active(ofApp(active, app, func(row reports.ActiveUsersRow) string { return row.App }), "Active in 30 days", func(row reports.ActiveUsersRow) int64 { return row.Monthly }),
			imported(ofApp(accounts, app, func(row reports.AccountCoverageRow) string { return row.App })),
			observedShare(ofApp(coverage, app, func(row reports.CoverageRow) string { return row.App })),
			h.freshness(ofApp(runs, app, func(row reports.RunRow) string { return row.App })),
		}})
	}
	return lines
}

func ofApp[T any](rows []T, app string, name func(T) string) (of []T) {
	for _, row := range rows {
		if name(row) == app {
			of = append(of, row)
		}
	}
	return of
}

// onlineNow has a row only if users are online and their presence is not stale.
func (h Head) onlineNow(rows []reports.DevicesRow) figure {
	f := figure{"Online now", unknown, "nobody, or stale"}
	if len(rows) > 0 {
		f.Value, f.Detail = Count(rows[0].Online), ""
		if rows[0].MultiPlatform > 0 {
			f.Detail = Count(rows[0].MultiPlatform) + " on several platforms"
		}
	}
	return f
}

func peak(rows []reports.ConcurrencyRow) figure {
	f := figure{"Peak", unknown, ""}
	most := int64(-1)
	for _, row := range rows {
		if row.OnlineMax != nil && *row.OnlineMax > most {
			most = *row.OnlineMax
			f.Value, f.Detail = Count(most), "after "+minute(row.Bucket)
		}
	}
	return f
}

// active is the figure of the last whole day, or of the day that is not over if it is the
// only one.
func (h Head) active(rows []reports.ActiveUsersRow, name string, of func(reports.ActiveUsersRow) int64) figure {
	f := figure{name, unknown, ""}
	if len(rows) == 0 {
		return f
	}
	last := rows[len(rows)-1]
	today := h.AsOf.In(h.Span.Location).Format(time.DateOnly)
	if last.Day == today && len(rows) > 1 {
		last = rows[len(rows)-2]
	}
	f.Value, f.Detail = Count(of(last)), weekday(last.Day)
	switch seen := observed(last.ObservedSeconds, last.DaySeconds); {
	case last.Day == today:
		f.Detail += ", so far"
	case seen != "":
		f.Detail += ", " + seen + " observed"
	}
	return f
}

func imported(rows []reports.AccountCoverageRow) figure {
	f := figure{"Imported", unknown, "no accounts run"}
	if len(rows) > 0 {
		if users := rows[0].Imported + rows[0].NotImported + rows[0].NeverChecked; users > 0 {
			f.Value, f.Detail = percent(float64(rows[0].Imported)/float64(users)), "of "+Count(users)+" users"
		}
	}
	return f
}

func observedShare(rows []reports.CoverageRow) figure {
	f := figure{"Observed", unknown, ""}
	for _, row := range rows {
		if row.Kind == "presence" && row.ObservedShare != nil {
			f.Value = percent(*row.ObservedShare)
			if row.Gaps > 0 {
				f.Detail = fmt.Sprintf("%s of gaps", length(row.GapSeconds))
			}
		}
	}
	return f
}

// freshness is the age of the newest presence run that ended; rows have the newest first.
func (h Head) freshness(rows []reports.RunRow) figure {
	f := figure{"Last run", unknown, "none in this time"}
	for _, row := range rows {
		if row.Kind == "presence" && row.FinishedAt != nil && (row.Status == "succeeded" || row.Status == "partial") {
			f.Value, f.Detail = length(max(h.AsOf.Sub(*row.FinishedAt).Seconds(), 0))+" ago", minute(row.FinishedAt.In(h.Span.Location))
			break
		}
	}
	return f
}

// heatMap is the mean of the users online at each hour of the week, as a table.
type heatMap struct {
	Title string
	Hours []string
	Days  []heatDay
}

type heatDay struct {
	Name  string
	Cells []heatCell
}

// heatCell is one hour of the week; Level is 0 to 9, of the highest mean. Text is empty if
// the hour was not observed.
type heatCell struct {
	Level int
	Text  string
	Title string
}

// leastHeat is the shortest span with a heat map: the default of the page, six days and the
// part of today that is over.
const leastHeat = 6 * aDay

// heatMaps returns a heat map per app, if buckets are no longer than an hour and the span
// is long enough.
func (h Head) heatMaps(rows []reports.ConcurrencyRow) []heatMap {
	if h.until().Sub(h.Span.From) < leastHeat || bucketWidth(h.Span.To.Sub(h.Span.From)) > time.Hour {
		return nil
	}
	var maps []heatMap
	for _, of := range groups(rows, func(row reports.ConcurrencyRow) string { return row.App }) {
		var sum, runs [7][24]float64
		for _, row := range of {
			if row.OnlineAvg != nil {
				at := row.Bucket.In(h.Span.Location)
				day := (int(at.Weekday()) + 6) % 7 // Monday first
				sum[day][at.Hour()] += *row.OnlineAvg * float64(row.Runs)
				runs[day][at.Hour()] += float64(row.Runs)
			}
		}
		most := 0.0
		for day := range sum {
			for hour := range sum[day] {
				if runs[day][hour] > 0 {
					most = max(most, sum[day][hour]/runs[day][hour])
				}
			}
		}
		m := heatMap{Title: "Mean of the users online, by hour of the week: " + of[0].App}
		for hour := range 24 {
			m.Hours = append(m.Hours, fmt.Sprintf("%02d", hour))
		}
		for day := range sum {
			d := heatDay{Name: time.Weekday((day + 1) % 7).String()[:3]}
			for hour := range sum[day] {
				c := heatCell{Title: fmt.Sprintf("%s %02d:00: not observed", d.Name, hour)}
				if runs[day][hour] > 0 {
					mean := sum[day][hour] / runs[day][hour]
					c.Text = average(mean)
					c.Title = fmt.Sprintf("%s %02d:00: %s", d.Name, hour, c.Text)
					if most > 0 {
						c.Level = int(9*mean/most + 0.5)
					}
				}
				d.Cells = append(d.Cells, c)
			}
			m.Days = append(m.Days, d)
		}
		maps = append(maps, m)
	}
	return maps
}
