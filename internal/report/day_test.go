package report

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/repo"
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

// TestDayStart holds, in zones whose midnight is left out or repeated, that a day
// begins where the one before ends, and at its first midnight if it has one.
func TestDayStart(t *testing.T) {
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
				begin := DayStart(y, m, d+n, location)
				day := time.Date(y, m, d+n, 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
				before := begin.Add(-time.Nanosecond).Format(time.DateOnly)
				if begin.Format(time.DateOnly) != day || before >= day {
					t.Errorf("%s: %s begins at %s, and the instant before is on %s", name, day, begin, before)
				}
				if next, want := nextDay(begin), DayStart(y, m, d+n+1, location); !next.Equal(want) {
					t.Errorf("%s: after %s comes %s; want %s", name, begin, next, want)
				}
			}
		}
	}
}

// TestDays holds that whole months are cut into their days, whose midnight the
// clocks leave out or repeat.
func TestDays(t *testing.T) {
	for _, test := range []struct {
		zone       string
		from, to   string
		days       int
		begins     string // of the day on which the clocks change
		endsBefore string
	}{
		{"America/Havana", "2026-03-01", "2026-05-01", 61, "2026-03-08T01:00:00-04:00", "2026-03-09T00:00:00-04:00"},
		{"America/Santiago", "2026-09-01", "2026-11-01", 61, "2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"},
		{"Atlantic/Azores", "2026-03-01", "2026-05-01", 61, "2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"},
		{"Atlantic/Azores", "2026-10-01", "2026-12-01", 61, "2026-10-25T00:00:00Z", "2026-10-26T00:00:00-01:00"},
	} {
		location, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		parse := func(day string) time.Time {
			at, err := time.Parse(time.DateOnly, day)
			if err != nil {
				t.Fatal(err)
			}
			return DayStart(at.Year(), at.Month(), at.Day(), location)
		}
		h := Head{Span: repo.Span{From: parse(test.from), To: parse(test.to), Location: location}, AsOf: parse("2027-01-01")}
		buckets := h.Buckets()
		if len(buckets) != test.days {
			t.Errorf("%s: %d days; want %d", test.zone, len(buckets), test.days)
		}
		coverage := repo.CoverageRow{App: "main", Kind: "presence"}
		if bars := h.notObserved(coverage, nil); len(bars.X) != test.days {
			t.Errorf("%s: %d bars; want %d", test.zone, len(bars.X), test.days)
		}
		for i, begin := range buckets {
			if begin.Format(time.DateOnly) != test.begins[:len(time.DateOnly)] {
				continue
			}
			got := []string{begin.Format(time.RFC3339), buckets[i+1].Format(time.RFC3339)}
			if diff := cmp.Diff([]string{test.begins, test.endsBefore}, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.zone, diff)
			}
		}
	}
}
