package report

import "time"

// DayStart returns the instant at which a local day begins: its first midnight
// where clocks that are set back repeat it, and the end of the skipped time where
// clocks that are set forward leave it out. month and day may be outside their
// ranges, as for time.Date. The SQL function day_start follows the same rule.
func DayStart(year int, month time.Month, day int, location *time.Location) time.Time {
	wall := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	// time.Date chooses either of two midnights, and an instant beside a missing
	// one. Half a day before and after it, the offset is that of before and after
	// the change of clocks.
	guess := time.Date(year, month, day, 0, 0, 0, 0, location)
	const halfDay = 12 * time.Hour
	before, after := midnightBy(wall, guess.Add(-halfDay)), midnightBy(wall, guess.Add(halfDay))
	switch {
	case sameWall(before, wall):
		return before
	case sameWall(after, wall):
		return after
	default:
		skipped, _ := before.ZoneBounds()
		return skipped
	}
}

// midnightBy returns wall as an instant by the offset that is in force at t.
func midnightBy(wall, t time.Time) time.Time {
	_, offset := t.Zone()
	return wall.Add(-time.Duration(offset) * time.Second).In(t.Location())
}

// sameWall reports whether the clock shows the time of wall at t.
func sameWall(t, wall time.Time) bool { return t.Format(time.DateTime) == wall.Format(time.DateTime) }

// nextDay returns when the first local day after t begins; it is after t, also
// where clocks that are set back lead from one day into the one before.
func nextDay(t time.Time) time.Time {
	for after := 1; ; after++ {
		next := DayStart(t.Year(), t.Month(), t.Day()+after, t.Location())
		if next.After(t) {
			return next
		}
	}
}
