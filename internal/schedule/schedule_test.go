package schedule

import (
	"strings"
	"testing"
	"time"
)

func location(t *testing.T, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func instant(t *testing.T, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		expression, zone string
		after            string
		want             []string
	}{
		"five fields": {"30 2 * * *", "UTC", "2026-03-01T00:00:00Z",
			[]string{"2026-03-01T02:30:00Z", "2026-03-02T02:30:00Z"}},
		"in the job's zone": {"0 9 * * *", "Asia/Shanghai", "2026-03-01T00:00:00Z",
			[]string{"2026-03-01T01:00:00Z"}},
		"CRON_TZ wins": {"CRON_TZ=Asia/Tokyo 0 9 * * *", "America/New_York", "2026-03-01T00:30:00Z",
			[]string{"2026-03-02T00:00:00Z"}},
		"TZ wins": {"TZ=Asia/Tokyo 0 9 * * *", "America/New_York", "2026-03-01T00:30:00Z",
			[]string{"2026-03-02T00:00:00Z"}},
		"a time of day that the spring leaves out": {"30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		"several of them": {"0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T22:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:00:00Z"}},
		"a midnight that the spring leaves out": {"@daily", "Africa/Cairo", "2026-04-23T12:00:00Z",
			[]string{"2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		"a first of the month that began an hour late": {"0 0 1 * *", "America/Asuncion", "2017-09-15T00:00:00Z",
			[]string{"2017-10-01T04:00:00Z", "2017-11-01T03:00:00Z"}},
		"every minute, over the hour that the spring leaves out": {"* 2-3 * * *", "Europe/Berlin", "2026-03-29T00:59:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:01:00Z"}},
		"days across the spring": {"0 12 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z",
			[]string{"2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z"}},
		"an hourly job in the autumn": {"15 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z",
			[]string{"2026-10-25T00:15:00Z", "2026-10-25T01:15:00Z", "2026-10-25T02:15:00Z"}},
		"a time of day that the autumn has twice": {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		"asked in between": {"30 2 * * *", "Europe/Berlin", "2026-10-25T01:15:00Z",
			[]string{"2026-10-26T01:30:00Z"}},
		"a midnight that the autumn has twice": {"@daily", "America/Havana", "2026-10-31T12:00:00Z",
			[]string{"2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"}},
		"daily": {"@daily", "Asia/Kolkata", "2026-03-01T00:00:00Z",
			[]string{"2026-03-01T18:30:00Z", "2026-03-02T18:30:00Z"}},
		"leap day": {"0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z",
			[]string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		"never": {"0 0 31 2 *", "UTC", "2026-03-01T00:00:00Z", []string{""}},
		"every, aligned": {"@every 15m", "Asia/Kolkata", "2026-03-01T00:07:09Z",
			[]string{"2026-03-01T00:15:00Z", "2026-03-01T00:30:00Z"}},
		"every, from a tick": {"@every 1m", "UTC", "2026-03-01T00:07:00Z",
			[]string{"2026-03-01T00:08:00Z"}},
		"every, an odd interval": {"@every 7m", "UTC", "1970-01-01T00:20:00Z",
			[]string{"1970-01-01T00:21:00Z", "1970-01-01T00:28:00Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			ticks, err := Parse(tc.expression, location(t, tc.zone))
			if err != nil {
				t.Fatal(err)
			}
			at := instant(t, tc.after)
			for i, want := range tc.want {
				at = ticks.Next(at)
				if !at.Equal(instant(t, want)) {
					t.Errorf("tick %d is at %s, want %s", i+1, at.UTC(), want)
				}
			}
		})
	}
}

func TestParse_refuses(t *testing.T) {
	for expression, want := range map[string]string{
		"":                          "read schedule",
		"* * * *":                   "expected exactly 5 fields",
		"* * * * * *":               "expected exactly 5 fields",
		"61 * * * *":                "above maximum",
		"@every":                    "read schedule",
		"@every soon":               "soon",
		"@every 500ms":              "shortest interval is 1s",
		"@every -1m":                "shortest interval is 1s",
		"@fortnightly":              "fortnightly",
		"*/61 * * * *":              "the step 61 is larger than the field",
		"0 */25 * * *":              "the step 25 is larger than the field",
		"1,,2 * * * *":              "1,,2 has an empty part",
		"1 ,2 * * *":                ",2 has an empty part",
		"CRON_TZ=Mars/Here * * * *": "Mars",
	} {
		if _, err := Parse(expression, time.UTC); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", expression, err, want)
		}
	}
}
