package report

import (
	"slices"
	"time"

	"syncer/internal/localtime"
	"syncer/repo/reports"
)

// Buckets divides the span into suitable buckets: at most a few hundred, each
// beginning at a round local time, except for the first.
func (h Head) Buckets() []time.Time {
	from, until := h.Span.From.In(h.Span.Location), h.until()
	width := bucketWidth(h.Span.To.Sub(h.Span.From))
	var all []time.Time
	for at := from; at.Before(until); at = nextBucket(at, width) {
		all = append(all, at)
	}
	return all
}

const aDay = 24 * time.Hour

// bucketWidth returns the length of a bucket; a day is a local one.
func bucketWidth(span time.Duration) time.Duration {
	switch {
	case span <= 4*time.Hour:
		return 5 * time.Minute
	case span <= 12*time.Hour:
		return 15 * time.Minute
	case span <= 31*aDay+time.Hour: // a month with clocks set back
		return time.Hour
	default:
		return aDay
	}
}

// nextBucket returns the first bucket start after a time.
func nextBucket(at time.Time, width time.Duration) time.Time {
	if width == aDay {
		return localtime.NextDay(at)
	}
	// Zone offsets are multiples of a quarter of an hour, so round local times need
	// not be round in UTC.
	_, offset := at.Zone()
	shift := time.Duration(offset) * time.Second
	return at.Add(shift).Truncate(width).Add(width - shift).In(at.Location())
}

// More buckets than this are summarised by day for people.
const manyBuckets = 48

// NewConcurrency reports how many users were online.
func NewConcurrency(h Head, rows []reports.ConcurrencyRow, gaps []reports.GapRow) Report {
	r := Report{Name: Concurrency, Title: "Users online", Rows: rows}
	if len(rows) == 0 {
		r.Empty = "No presence run was completed in this time, so nothing is known of it. See: syncer report runs"
		return r
	}
	hidden := false
	for _, of := range groups(rows, func(row reports.ConcurrencyRow) string { return row.App }) {
		app := of[0].App
		c := h.chart("Users online: "+app, "line", "users")
		c.terminal = 2
		c.Series = []Series{{Label: "least", Role: "low"}, {Label: "most", Role: "high"}, {Label: "average", Role: "line"}, {Label: "only by push, average", Role: "line"}}
		for _, row := range of {
			// In the middle of its bucket.
			c.X = append(c.X, seconds(row.Bucket)+row.BucketSeconds/2)
			for i, v := range []*float64{maybe(row.OnlineMin), maybe(row.OnlineMax), row.OnlineAvg, row.PushOnlineAvg} {
				c.Series[i].Values = append(c.Series[i].Values, v)
			}
		}
		if !anyPush(of) {
			c.Series = c.Series[:3]
		}
		c.shade(h, gaps, app, "presence")
		r.Charts = append(r.Charts, c)
		t := Table{Title: app}
		if len(of) > manyBuckets {
			t.onlineByDay(of)
			hidden = true
		} else {
			t.online(of)
		}
		r.Tables = append(r.Tables, t)
	}
	if hidden {
		r.Notes = append(r.Notes, "Summed up by day here; every bucket has a row with --format csv or json.")
	}
	return r
}

// anyPush reports whether a user was reachable only by push in any bucket.
func anyPush(rows []reports.ConcurrencyRow) bool {
	return slices.ContainsFunc(rows, func(row reports.ConcurrencyRow) bool { return row.PushOnlineAvg != nil && *row.PushOnlineAvg > 0 })
}

// online returns a row for each bucket.
func (t *Table) online(rows []reports.ConcurrencyRow) {
	t.Columns = columns("from", ">least", ">average", ">most", ">of users", ">observed")
	for _, row := range rows {
		cells := []string{minute(row.Bucket), "", "", "", "", observed(row.ObservedSeconds, row.BucketSeconds)}
		if row.OnlineAvg != nil {
			cells[1], cells[2], cells[3], cells[4] = Count(*row.OnlineMin), average(*row.OnlineAvg), Count(*row.OnlineMax), Count(*row.Users)
		}
		t.Rows = append(t.Rows, cells)
	}
}

// onlineByDay returns a row for each local day.
func (t *Table) onlineByDay(rows []reports.ConcurrencyRow) {
	t.Columns = columns("day", ">least", ">average", ">most", "most at", ">of users", ">observed")
	day := func(row reports.ConcurrencyRow) string { return row.Bucket.Format(time.DateOnly) }
	for _, of := range groups(rows, day) { // also ordered by time
		var length, seen, sum float64
		var runs int64
		var least, most *reports.ConcurrencyRow
		var users int64
		for i := range of {
			row := &of[i]
			length += row.BucketSeconds
			seen += row.ObservedSeconds
			if row.OnlineAvg == nil {
				continue
			}
			runs += row.Runs
			sum += *row.OnlineAvg * float64(row.Runs)
			users = max(users, *row.Users)
			if least == nil || *row.OnlineMin < *least.OnlineMin {
				least = row
			}
			if most == nil || *row.OnlineMax > *most.OnlineMax {
				most = row
			}
		}
		cells := []string{weekday(day(of[0])), "", "", "", "", "", observed(seen, length)}
		if runs > 0 {
			cells[1], cells[2], cells[3] = Count(*least.OnlineMin), average(sum/float64(runs)), Count(*most.OnlineMax)
			cells[4], cells[5] = most.Bucket.Format("15:04"), Count(users)
		}
		t.Rows = append(t.Rows, cells)
	}
}

// observed returns the observed share of a time, "" if all of it was observed.
func observed(seconds, of float64) string {
	if of-seconds < 1 {
		return ""
	}
	return percent(seconds / of)
}

// NewActiveUsers reports how many distinct users were online by local day.
func NewActiveUsers(h Head, rows []reports.ActiveUsersRow, gaps []reports.GapRow) Report {
	r := Report{Name: ActiveUsers, Title: "Active users", Rows: rows}
	if len(rows) == 0 {
		r.Empty = "No presence run was completed up to the end of this time, so nothing is known of it. See: syncer report runs"
		return r
	}
	today := h.AsOf.In(h.Span.Location).Format(time.DateOnly)
	partly := false
	for _, of := range groups(rows, func(row reports.ActiveUsersRow) string { return row.App }) {
		app := of[0].App
		c := h.dailyChart("Active users: "+app, "line", "users")
		c.terminal = 0
		c.Series = []Series{{Label: "in the day", Role: "line"}, {Label: "in 7 days", Role: "line"}, {Label: "in 30 days", Role: "line"}}
		t := Table{Title: app, Columns: columns("day", ">in the day", ">in 7 days", ">in 30 days", ">observed")}
		for _, row := range of {
			c.X = append(c.X, h.middle(row.Day))
			for i, n := range []int64{row.Daily, row.Weekly, row.Monthly} {
				c.Series[i].Values = append(c.Series[i].Values, value(n))
			}
			seen := observed(row.ObservedSeconds, row.DaySeconds)
			if seen != "" {
				partly = true
			}
			if row.Day == today {
				seen = "so far"
			}
			t.Rows = append(t.Rows, []string{weekday(row.Day), Count(row.Daily), Count(row.Weekly), Count(row.Monthly), seen})
		}
		c.shade(h, gaps, app, "presence")
		r.Charts, r.Tables = append(r.Charts, c), append(r.Tables, t)
	}
	if partly {
		r.Notes = append(r.Notes, "observed: how much of the day somebody looked, where it is not all. Who was online only outside of it is not counted.")
	}
	return r
}

// NewPlatforms reports the platforms on which users are online.
func NewPlatforms(h Head, rows []reports.PlatformRow, devices []reports.DevicesRow) Report {
	r := Report{Name: Platforms, Title: "Platforms", Rows: rows, Lists: []List{{"multi_platform", devices}}}
	if len(rows) == 0 {
		r.Empty = "No platform was seen in this time: nobody was online, no presence run was completed, or the backend is not asked for details ([apps.tencent] detail)."
		return r
	}
	for _, of := range groups(rows, func(row reports.PlatformRow) string { return row.App }) {
		app := of[0].App
		c := h.chart("Platforms of the users online: "+app, "bars", "share")
		c.Series = []Series{{Label: "share of the users online", Role: "line"}}
		t := Table{Title: app, Columns: columns("platform", ">share", "", ">users online, average", ">most")}
		for i, row := range of {
			c.X, c.Labels = append(c.X, float64(i)), append(c.Labels, row.Platform)
			c.Series[0].Values = append(c.Series[0].Values, value(row.Share))
			t.Rows = append(t.Rows, []string{row.Platform, percent(row.Share), bar(row.Share), average(row.UsersAvg), Count(row.UsersMax)})
		}
		r.Charts, r.Tables = append(r.Charts, c), append(r.Tables, t)
	}
	if len(devices) > 0 {
		t := Table{Title: "Several platforms at once, now", Columns: columns("app", ">online", ">on several", ">share")}
		for _, row := range devices {
			cells := []string{row.App, Count(row.Online), Count(row.MultiPlatform), ""}
			if row.Share != nil {
				cells[3] = percent(*row.Share)
			}
			t.Rows = append(t.Rows, cells)
		}
		r.Tables = append(r.Tables, t)
	}
	r.Notes = append(r.Notes, "A user on two platforms counts under both, so that the shares add up to more than 100 %.")
	return r
}
