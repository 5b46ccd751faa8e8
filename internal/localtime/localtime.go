// Package localtime maps what a local clock shows to instants, also where clocks are
// set forward or back. Reports cut days with it, and package schedule computes ticks.
package localtime

import "time"

// First returns the first instant at which the clocks of location show the date and
// time of wall, whose own location is ignored. If they never do because they are set
// forward over it, First returns the instant of that change.
func First(wall time.Time, location *time.Location) time.Time {
	wall = time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), time.UTC)
	// time.Date returns either of two instants, and a neighbour of a missing one.
	// Clocks have never been set by more than a day, so the offsets a day before and
	// after are those before and after the change.
	guess := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), location)
	const beyond = 25 * time.Hour
	before, after := byOffsetOf(guess.Add(-beyond), wall), byOffsetOf(guess.Add(beyond), wall)
	switch {
	case shows(before, wall):
		return before
	case shows(after, wall):
		return after
	default:
		skipped, _ := before.ZoneBounds()
		return skipped
	}
}

// byOffsetOf returns wall as an instant, with the offset in force at t.
func byOffsetOf(t, wall time.Time) time.Time {
	_, offset := t.Zone()
	return wall.Add(-time.Duration(offset) * time.Second).In(t.Location())
}

// shows reports whether the clock at t shows the date and time of wall.
func shows(t, wall time.Time) bool { return t.Format(time.DateTime) == wall.Format(time.DateTime) }

// Day returns the instant at which a local day begins, as First does. month and day
// may be out of range, as for time.Date. The SQL function day_start follows the same
// rule.
func Day(year int, month time.Month, day int, location *time.Location) time.Time {
	return First(time.Date(year, month, day, 0, 0, 0, 0, time.UTC), location)
}

// NextDay returns when the first local day after t begins. The result is after t even
// where clocks set back lead from one day into the day before.
func NextDay(t time.Time) time.Time {
	for after := 1; ; after++ {
		if next := Day(t.Year(), t.Month(), t.Day()+after, t.Location()); next.After(t) {
			return next
		}
	}
}
