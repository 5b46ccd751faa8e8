// Package schedule parses the schedules of jobs. It adds to the cron library: exactly
// one tick of a fixed time on days on which clocks change (see package localtime),
// intervals whose ticks all processes agree on, and errors for fields that mean less
// than they say.
package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"syncer/internal/localtime"
)

// Parse parses a schedule: five cron fields, a descriptor such as @daily, or "@every
// 1m". It applies to location unless it begins with CRON_TZ= or TZ=.
//
// As in Vixie cron, a job with a fixed time of day (minute and hour do not begin with
// *) has exactly one tick for it: at the end of the time skipped when clocks are set
// forward, and at the first of two equal times when they are set back. Other
// expressions follow what the clock shows.
//
// The ticks of "@every" are the multiples of the interval since 1970, so that all
// processes compute the same instants.
func Parse(expression string, location *time.Location) (cron.Schedule, error) {
	schedule, err := parse(expression, location)
	if err != nil {
		return nil, fmt.Errorf("read schedule %q: %w", expression, err)
	}
	return schedule, nil
}

func parse(expression string, location *time.Location) (cron.Schedule, error) {
	if interval, ok := strings.CutPrefix(expression, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(interval))
		if err != nil {
			return nil, err
		}
		if d < time.Second {
			return nil, errors.New("the shortest interval is 1s")
		}
		return Every(d), nil
	}
	spec := expression
	for _, prefix := range []string{"CRON_TZ=", "TZ="} {
		if named, ok := strings.CutPrefix(expression, prefix); ok {
			name, rest, _ := strings.Cut(named, " ")
			var err error
			if location, err = time.LoadLocation(name); err != nil {
				return nil, err
			}
			spec = strings.TrimSpace(rest)
			break
		}
	}
	if err := checkFields(spec); err != nil {
		return nil, err
	}
	if isFixed(spec) {
		fields, err := cron.ParseStandard("CRON_TZ=UTC " + spec)
		return fixed{fields, location}, err
	}
	return cron.ParseStandard("CRON_TZ=" + location.String() + " " + spec)
}

// Every is a schedule that ticks at the multiples of an interval since 1970.
type Every time.Duration

// Next returns the first tick after t.
func (d Every) Next(t time.Time) time.Time {
	interval := time.Duration(d)
	return time.Unix(0, t.UnixNano()-t.UnixNano()%int64(interval)).Add(interval).UTC()
}

// isFixed reports whether an expression names a time of day.
func isFixed(spec string) bool {
	switch spec {
	case "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight":
		return true
	}
	fields := strings.Fields(spec)
	return len(fields) == 5 && !strings.ContainsAny(fields[0][:1]+fields[1][:1], "*?@")
}

// fixed is a schedule that ticks when a clock shows the times of an expression.
type fixed struct {
	fields   cron.Schedule // in UTC, applied to what the clock shows
	location *time.Location
}

// Next returns the first tick after t; the zero time if there is none.
func (f fixed) Next(t time.Time) time.Time {
	t = t.In(f.location)
	wall := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	for {
		wall = f.fields.Next(wall)
		if wall.IsZero() {
			return wall
		}
		// If the clock shows a time for the second time, its tick was the first.
		if tick := localtime.First(wall, f.location); tick.After(t) {
			return tick
		}
	}
}

// sizes are the numbers of values of the fields: minute, hour, day, month, weekday.
var sizes = [...]int{60, 24, 31, 12, 7}

// checkFields rejects what the cron library accepts: an empty part of a list, and a
// step larger than its field.
func checkFields(spec string) error {
	fields := strings.Fields(spec)
	if len(fields) != len(sizes) {
		return nil // a descriptor, or an error that the library returns
	}
	for i, field := range fields {
		for part := range strings.SplitSeq(field, ",") {
			if part == "" {
				return fmt.Errorf("%s has an empty part: remove a comma", field)
			}
			_, step, ok := strings.Cut(part, "/")
			if n, err := strconv.Atoi(step); ok && err == nil && n > sizes[i] {
				return fmt.Errorf("%s: the step %d is larger than the field, which has %d values", part, n, sizes[i])
			}
		}
	}
	return nil
}
