package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"syncer/imclient"
	"syncer/internal/schedule"
)

// hintJob is repo.HintJob.
const hintJob = "hints"

func (v validator) jobs() {
	names := make([]string, len(v.c.Jobs))
	for i := range v.c.Jobs {
		job := &v.c.Jobs[i]
		path := fmt.Sprintf("jobs[%d]", i)
		names[i] = job.Name
		if job.Name == hintJob {
			v.problem(path+".name", "%s is the name under which the work on hooks is recorded; choose another one", quote(job.Name))
		}
		v.jobApp(path+".app", job)
		if !v.well(path + ".timezone") {
			job.Timezone = time.UTC // so that a wrong schedule is reported, too
		}
		if v.well(path + ".schedule") {
			v.schedule(path, job)
		}
	}
	v.names("jobs", names)
}

func (v validator) jobApp(path string, job *Job) {
	if job.App == "" || !v.well(path, "apps") {
		return
	}
	var apps []string
	for _, app := range v.c.Apps {
		apps = append(apps, app.Name)
	}
	if !slices.Contains(apps, job.App) {
		v.problem(path, `unknown app %s (allowed: %s, or "" for every app)`, quote(job.App), strings.Join(apps, ", "))
	}
}

// schedule sets what follows from a job's schedule.
func (v validator) schedule(path string, job *Job) {
	spec, zone, err := splitZone(job.Schedule)
	if err != nil {
		v.problem(path+".schedule", "%v", err)
		return
	}
	if zone != nil {
		if v.isGiven(path+".timezone") && job.Timezone.String() != zone.String() {
			v.problem(path+".timezone", "is %s, but the schedule says %s; keep one", job.Timezone, zone)
		}
		job.Timezone = zone
	}
	if job.Interval, err = interval(spec, job.Timezone); err != nil {
		v.problem(path+".schedule", "%s %v", quote(job.Schedule), err)
		return
	}
	job.Schedule = spec
	v.maxGap(job)
}

// gapIntervals is the default maximum gap in intervals: one run may be skipped and
// one may fail.
const gapIntervals = 3

// maxGap sets a job's largest gap. sweep.max_gap applies to presence, from which
// durations are computed; accounts are checked far less often.
func (v validator) maxGap(job *Job) {
	const path = "sweep.max_gap"
	job.MaxGap = gapIntervals * job.Interval
	given := v.c.Sweep.MaxGap
	if given == 0 || job.Kind != imclient.KindPresence || !v.well(path) {
		return
	}
	job.MaxGap = given
	if given < job.Interval {
		v.problem(path, "%s is less than the %s between two ticks of job %q: all time would count as not observed", given, job.Interval, job.Name)
	}
}

// splitZone removes the time zone from the front of a schedule; zone is nil if there
// is none. The cron library panics on a zone with nothing after it.
func splitZone(s string) (spec string, zone *time.Location, err error) {
	s = strings.TrimSpace(s)
	named, ok := strings.CutPrefix(s, "CRON_TZ=")
	if !ok {
		if named, ok = strings.CutPrefix(s, "TZ="); !ok {
			return s, nil, nil
		}
	}
	name, spec, _ := strings.Cut(named, " ")
	zone, err = Location(name)
	return strings.TrimSpace(spec), zone, err
}

// reference is the fixed start of trial ticks, so that a configuration is valid or
// invalid permanently. The library's look-ahead of five years contains two 29ths of
// February.
var reference = time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)

// triedTicks is the number of ticks examined to find the shortest interval.
const triedTicks = 64

var (
	errSchedule = errors.New(`is no schedule (allowed: five fields "minute hour day month weekday", @hourly, @daily, @weekly, @monthly, @yearly, "@every 90s")`)
	errEvery    = errors.New("must be a whole number of seconds, at least one and at most a year")
	errNever    = errors.New("never comes: no such day is in the calendar")
)

// interval checks a schedule without a zone and returns the shortest time between two
// ticks.
func interval(spec string, zone *time.Location) (time.Duration, error) {
	if every, ok := strings.CutPrefix(spec, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(every))
		switch {
		case err != nil:
			return 0, errSchedule
		case d < time.Second || d%time.Second != 0 || d > 365*24*time.Hour:
			return 0, errEvery
		}
		return d, nil
	}
	s, err := schedule.Parse(spec, zone)
	if err != nil {
		return 0, fmt.Errorf("%w: %s", errSchedule, cut(errors.Unwrap(err).Error(), 200)) // the library's text repeats the schedule
	}
	at := s.Next(reference)
	shortest := time.Duration(0)
	for range triedTicks {
		if at.IsZero() {
			break
		}
		next := s.Next(at)
		if gap := next.Sub(at); !next.IsZero() && (shortest == 0 || gap < shortest) {
			shortest = gap
		}
		at = next
	}
	if shortest <= 0 {
		return 0, errNever
	}
	return shortest, nil
}
