package localtime

import (
	"testing"
	"time"
)

// clockChanges lists when the clocks of a zone change within ten years.
func clockChanges(location *time.Location) (all []time.Time) {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).In(location)
	for end := at.AddDate(10, 0, 0); ; {
		_, at = at.ZoneBounds()
		if at.IsZero() || at.After(end) {
			return all
		}
		all = append(all, at)
	}
}

// TestDay holds, in zones whose midnight is left out or repeated, that a day
// begins where the one before ends, and at its first midnight if it has one.
func TestDay(t *testing.T) {
	for _, name := range []string{
		"America/Asuncion", "America/Havana", "America/Nuuk", "America/Santiago", "Africa/Cairo", "Asia/Beirut", "Asia/Gaza",
		"Atlantic/Azores", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Easter", "America/New_York", "Asia/Kolkata",
	} {
		location, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range clockChanges(location) {
			y, m, d := change.Date()
			for n := -2; n <= 2; n++ {
				begin := Day(y, m, d+n, location)
				day := time.Date(y, m, d+n, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
				before := begin.Add(-time.Nanosecond).Format(time.DateOnly)
				if begin.Format(time.DateOnly) != day || before >= day {
					t.Errorf("%s: %s begins at %s, and the instant before is on %s", name, day, begin, before)
				}
				if next, want := NextDay(begin), Day(y, m, d+n+1, location); !next.Equal(want) {
					t.Errorf("%s: after %s comes %s; want %s", name, begin, next, want)
				}
			}
		}
	}
}

func TestFirst(t *testing.T) {
	for _, test := range []struct{ zone, wall, want string }{
		{"Europe/Berlin", "2026-03-29 02:30:00", "2026-03-29T03:00:00+02:00"}, // left out
		{"Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25T02:30:00+02:00"}, // twice
		{"Europe/Berlin", "2026-10-25 03:00:00", "2026-10-25T03:00:00+01:00"},
		{"Australia/Lord_Howe", "2026-10-04 02:15:00", "2026-10-04T02:30:00+11:00"}, // by half an hour
		{"Pacific/Apia", "2011-12-30 12:00:00", "2011-12-31T00:00:00+14:00"},        // a whole day
		{"UTC", "2026-03-29 02:30:00", "2026-03-29T02:30:00Z"},
	} {
		location, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		wall, err := time.Parse(time.DateTime, test.wall)
		if err != nil {
			t.Fatal(err)
		}
		if got := First(wall, location).Format(time.RFC3339); got != test.want {
			t.Errorf("%s in %s is %s; want %s", test.wall, test.zone, got, test.want)
		}
	}
}
