package jobs

import (
	"sync/atomic"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/schedule"
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

func TestLastTick(t *testing.T) {
	for name, tc := range map[string]struct {
		expression, zone   string
		after, until, want string
	}{
		"none yet":                    {"@every 1h", "UTC", "2026-03-01T10:00:00Z", "2026-03-01T10:59:59Z", ""},
		"at that very instant":        {"@every 1h", "UTC", "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z", "2026-03-01T11:00:00Z"},
		"not the one dealt with":      {"0 * * * *", "UTC", "2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z", ""},
		"the newest of many":          {"* * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-03-01T10:20:30Z", "2026-03-01T10:20:00Z"},
		"never run, every second":     {"@every 1s", "UTC", "", "2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z"},
		"never run, daily":            {"@daily", "America/New_York", "", "2026-03-01T10:20:30Z", "2026-03-01T05:00:00Z"},
		"never run, weekly":           {"0 3 * * 1", "UTC", "", "2026-03-01T10:20:30Z", "2026-02-23T03:00:00Z"},
		"never run, yearly":           {"@yearly", "UTC", "", "2026-03-01T10:20:30Z", "2026-01-01T00:00:00Z"},
		"never run, leap day":         {"0 0 29 2 *", "UTC", "", "2026-03-01T10:20:30Z", "2024-02-29T00:00:00Z"},
		"leap day, dealt with":        {"0 0 29 2 *", "UTC", "2024-02-29T00:00:00Z", "2026-03-01T10:20:30Z", ""},
		"never":                       {"0 0 31 2 *", "UTC", "", "2026-03-01T10:20:30Z", ""},
		"in the hour that comes back": {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", "2026-10-25T00:30:00Z"},
		"after is later than until":   {"@every 1m", "UTC", "2026-03-01T10:30:00Z", "2026-03-01T10:20:00Z", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ticks, err := schedule.Parse(tc.expression, location(t, tc.zone))
			if err != nil {
				t.Fatal(err)
			}
			if got := lastTick(ticks, instant(t, tc.after), instant(t, tc.until)); !got.Equal(instant(t, tc.want)) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// TestSchedule_clockSet: the database's clock is set forward, or the machine was
// suspended, over a tick that is hours away: it is begun soon after.
func TestSchedule_clockSet(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 50})
	var ahead atomic.Int64
	s := w.spec()
	s.Providers = []imclient.Provider{openIMApp}
	s.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	e := w.client(s)
	e.scheduler.longestWait = 50 * time.Millisecond
	if err := e.Start(w.ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.stop(e, grace) })
	job := e.job("p", openIMApp, 24*time.Hour, false)
	e.Schedule([]Job{job, e.job("often", openIMApp, time.Second, false)})
	w.eventually("the schedule is followed", func() bool { return len(w.ticks("often")) > 0 })
	tick := job.Schedule.Next(s.Now())
	ahead.Store(int64(time.Until(tick)) + int64(time.Second))
	w.eventually("the tick has come", func() bool { return len(w.ticks("p")) == 1 })
	got := w.ticks("p")[0]
	if !got.Tick.Equal(tick) || got.Trigger != "cron" {
		t.Errorf("%+v, want the tick of %s", got, tick)
	}
}
