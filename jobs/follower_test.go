package jobs

import (
	"testing"
	"time"

	"syncer/internal/schedule"
)

// TestFollower_due: the tick that is started is the newest one that was not dealt
// with. Before a change takes effect it is the newest one before the change.
func TestFollower_due(t *testing.T) {
	t.Parallel()
	at := func(minute, second int) time.Time { return time.Date(2026, 11, 30, 12, minute, second, 0, time.UTC) }
	every := Job{Schedule: schedule.Every(time.Minute)}
	for name, tc := range map[string]struct {
		last, now time.Time
		next      *change
		want      time.Time
	}{
		"before the next tick":         {last: at(1, 0), now: at(1, 59)},
		"at the tick":                  {last: at(1, 0), now: at(2, 0), want: at(2, 0)},
		"several ticks late":           {last: at(1, 0), now: at(5, 30), want: at(5, 0)},
		"a clock that was set back":    {last: at(5, 0), now: at(3, 0)},
		"a change amid late ticks":     {last: at(1, 0), now: at(5, 30), next: &change{at: at(3, 10)}, want: at(3, 0)},
		"a change before any new tick": {last: at(1, 0), now: at(5, 30), next: &change{at: at(1, 10)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &follower{job: every, last: tc.last, next: tc.next}
			if got := f.due(tc.now); !got.Equal(tc.want) {
				t.Errorf("due is %s, want %s", got, tc.want)
			}
		})
	}
}
