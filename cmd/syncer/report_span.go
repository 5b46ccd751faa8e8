package main

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"syncer/internal/localtime"
)

// instant is a value of --from and --to: a day, an instant, or a time before now. Its
// meaning depends on the time zone and on now.
type instant struct {
	day    string // 2026-11-01
	at     time.Time
	before int // of unit
	unit   byte
}

// instantForms describes the forms of an instant to users.
const instantForms = "a day such as 2026-11-01, an instant such as 2026-11-01T08:00:00Z, or a time before now such as -7d or -12h"

var beforeNow = regexp.MustCompile(`^-(\d{1,4})([wdhm])$`)

func parseInstant(s string) (instant, error) {
	if m := beforeNow.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		return instant{before: n, unit: m[2][0]}, err
	}
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return instant{day: s}, nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return instant{at: at}, nil
	}
	return instant{}, fmt.Errorf("%q is no time (want %s)", s, instantForms)
}

// checkInstant validates a flag.
func checkInstant(s string) error {
	_, err := parseInstant(s)
	return err
}

// begin returns the instant, for a day its beginning.
func (i instant) begin(now time.Time, tz *time.Location) time.Time {
	now = now.In(tz)
	switch {
	case i.day != "":
		return startOfDay(i.day, 0, tz)
	case i.unit == 'w':
		return now.AddDate(0, 0, -7*i.before)
	case i.unit == 'd':
		return now.AddDate(0, 0, -i.before)
	case i.unit == 'h':
		return now.Add(-time.Duration(i.before) * time.Hour)
	case i.unit == 'm':
		return now.Add(-time.Duration(i.before) * time.Minute)
	default:
		return i.at.In(tz)
	}
}

// end returns the instant, for a day its end.
func (i instant) end(now time.Time, tz *time.Location) time.Time {
	if i.day != "" {
		return startOfDay(i.day, 1, tz)
	}
	return i.begin(now, tz)
}

// startOfDay returns the beginning of the day that is after days later than day.
func startOfDay(day string, after int, tz *time.Location) time.Time {
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return time.Time{} // parseInstant has read it
	}
	return localtime.Day(t.Year(), t.Month(), t.Day()+after, tz)
}
