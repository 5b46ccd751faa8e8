package report

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/localtime"
	"syncer/repo/reports"
)

// TestBuckets holds where buckets begin: on round local times, whatever the
// zone is off by and when its clocks change.
func TestBuckets(t *testing.T) {
	tests := []struct {
		name, zone, from, to, asOf string
		want                       []string
	}{
		{"clocks are set back", "Europe/Berlin", "2026-10-25T00:30:00+02:00", "2026-10-25T13:00:00+01:00", "2026-10-25T04:10:00+01:00",
			[]string{"00:30 CEST", "01:00 CEST", "02:00 CEST", "02:00 CET", "03:00 CET", "04:00 CET"}},
		{"clocks are set forward", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T23:00:00+02:00", "2026-03-29T04:00:00+02:00",
			[]string{"00:00 CET", "01:00 CET", "03:00 CEST"}},
		{"three quarters off", "Asia/Kathmandu", "2026-10-25T00:10:00Z", "2026-10-25T20:00:00Z", "2026-10-25T02:00:00Z",
			[]string{"05:55 +0545", "06:00 +0545", "07:00 +0545"}},
		{"minutes", "UTC", "2026-10-25T00:12:00Z", "2026-10-25T00:20:00Z", "2026-10-26T00:00:00Z",
			[]string{"00:12 UTC", "00:15 UTC"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tz, err := time.LoadLocation(test.zone)
			if err != nil {
				t.Fatal(err)
			}
			parse := func(s string) time.Time {
				at, err := time.Parse(time.RFC3339, s)
				if err != nil {
					t.Fatal(err)
				}
				return at
			}
			h := Head{Span: reports.Span{From: parse(test.from), To: parse(test.to), Location: tz}, AsOf: parse(test.asOf)}
			var got []string
			for _, b := range h.Buckets() {
				got = append(got, b.Format("15:04 MST"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("buckets (-want +got):\n%s", diff)
			}
		})
	}
	days := Head{Span: reports.Span{From: time.Date(2026, 9, 1, 0, 0, 0, 0, berlin(t)), To: time.Date(2026, 11, 1, 0, 0, 0, 0, berlin(t)), Location: berlin(t)},
		AsOf: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}.Buckets()
	if len(days) != 61 || days[60].Format(time.RFC3339) != "2026-10-31T00:00:00+01:00" {
		t.Errorf("%d days, the last one begins at %s", len(days), days[len(days)-1])
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
			return localtime.Day(at.Year(), at.Month(), at.Day(), location)
		}
		h := Head{Span: reports.Span{From: parse(test.from), To: parse(test.to), Location: location}, AsOf: parse("2027-01-01")}
		buckets := h.Buckets()
		if len(buckets) != test.days {
			t.Errorf("%s: %d days; want %d", test.zone, len(buckets), test.days)
		}
		coverage := reports.CoverageRow{App: "main", Kind: "presence"}
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
