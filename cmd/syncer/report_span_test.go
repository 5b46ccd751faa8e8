package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/config"
)

// TestInstants holds what --from and --to mean: in Berlin, whose clocks were set
// back in the night to 2026-10-25.
func TestInstants(t *testing.T) {
	tz, err := config.Location("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 10, 26, 9, 30, 0, 0, time.UTC)
	tests := []struct{ text, begin, end string }{
		{"2026-10-25", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"},
		{"2026-10-25T01:30:00Z", "2026-10-25T02:30:00+01:00", "2026-10-25T02:30:00+01:00"},
		{"-2d", "2026-10-24T10:30:00+02:00", "2026-10-24T10:30:00+02:00"},
		{"-1w", "2026-10-19T10:30:00+02:00", "2026-10-19T10:30:00+02:00"},
		{"-36h", "2026-10-24T23:30:00+02:00", "2026-10-24T23:30:00+02:00"},
		{"-90m", "2026-10-26T09:00:00+01:00", "2026-10-26T09:00:00+01:00"},
	}
	for _, test := range tests {
		i, err := parseInstant(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
			continue
		}
		got := []string{i.begin(now, tz).Format(time.RFC3339), i.end(now, tz).Format(time.RFC3339)}
		if diff := cmp.Diff([]string{test.begin, test.end}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
	}
	for _, text := range []string{"", "now", "-", "-7", "-7y", "7d", "-99999d", "2026-13-01", "2026-10-25 12:00", "2026-10-25T12:00"} {
		if i, err := parseInstant(text); err == nil {
			t.Errorf("%q is taken for %+v", text, i)
		}
	}
}

// TestInstants_noMidnight holds where a day begins whose midnight the clocks leave
// out: when they are set forward. Apia left out a whole day.
func TestInstants_noMidnight(t *testing.T) {
	for _, test := range []struct{ zone, day, begin, end string }{
		{"America/Santiago", "2026-09-06", "2026-09-06T01:00:00-03:00", "2026-09-07T00:00:00-03:00"},
		{"America/Santiago", "2026-09-05", "2026-09-05T00:00:00-04:00", "2026-09-06T01:00:00-03:00"},
		{"Asia/Beirut", "2026-03-29", "2026-03-29T01:00:00+03:00", "2026-03-30T00:00:00+03:00"},
		{"Pacific/Apia", "2011-12-30", "2011-12-31T00:00:00+14:00", "2011-12-31T00:00:00+14:00"},
	} {
		tz, err := config.Location(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		i, err := parseInstant(test.day)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{i.begin(time.Time{}, tz).Format(time.RFC3339), i.end(time.Time{}, tz).Format(time.RFC3339)}
		if diff := cmp.Diff([]string{test.begin, test.end}, got); diff != "" {
			t.Errorf("%s in %s (-want +got):\n%s", test.day, test.zone, diff)
		}
	}
}
