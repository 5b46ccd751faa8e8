package jobs

import (
	"testing"
	"time"
)

// TestOvertaken: alice has two rows, on two pages of one run. The first page is
// asked at 00:05, when she is in another state, and its answer is stuck; the second one is
// asked and written at 00:10, when she is online again. Whatever the first answer says
// then, and whenever it counts as arrived, it is the past.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, tc := range map[string]struct {
		turns    []turn
		rejected bool // at 00:05
		late     bool // the first answer counts as arrived at 00:15
		history  []string
	}{
		"the second answer is a change": {
			turns:   []turn{{5 * time.Minute, pushIOS}, {time.Minute, offline}, {time.Hour, onlineIOS}},
			late:    true,
			history: []string{"- push_online - 00:00", "push_online online 00:00 00:10"},
		},
		"the second answer is a change, and both overlap in part": {
			turns:   []turn{{5 * time.Minute, pushIOS}, {time.Minute, offline}, {time.Hour, onlineIOS}},
			history: []string{"- push_online - 00:00", "push_online online 00:00 00:10"},
		},
		// Nothing tells of the second look, but what is written is true all the same.
		"the second answer is no change": {
			turns:   []turn{{5 * time.Minute, onlineIOS}, {time.Minute, pushIOS}, {time.Hour, onlineIOS}},
			late:    true,
			history: []string{"- online - 00:00", "online push_online 00:00 00:15", "push_online online 00:05 00:15"},
		},
		"the first answer is a rejection": {
			turns:    []turn{{5 * time.Minute, pushIOS}, {time.Minute, offline}, {time.Hour, onlineIOS}},
			rejected: true,
			late:     true,
			history:  []string{"- push_online - 00:00", "push_online online 00:00 00:10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := l.trial(t)
			tr.config.PageUsers, tr.config.RangeUsers = 1, 1
			alice := &simUser{id: "alice", twin: 2, turns: tc.turns}
			tr.join(alice, 1)
			tr.sweep(tr.start(0, 0, nil), 0)

			tr.clock.at = simStart.Add(5 * time.Minute)
			run := tr.start(0, time.Minute, nil)
			open := tr.open(run)[0]
			alice.rejected = tc.rejected
			tr.work(0, run, open.no, open.job, 0, fate{what: freezes, page: 1, late: tc.late})
			alice.rejected = false
			tr.clock.at = simStart.Add(10 * time.Minute)
			tr.sweep(run, 0)
			tr.clock.at = simStart.Add(15 * time.Minute)
			tr.wakeUp(0)
			tr.windUp()
			tr.check()
			tr.same("the history of alice", tc.history, tr.lines(`
SELECT concat_ws(' ', coalesce(prev_state::text, '-'), state, coalesce(to_char(not_before AT TIME ZONE 'UTC', 'HH24:MI'), '-'), to_char(observed_at AT TIME ZONE 'UTC', 'HH24:MI'))
FROM syncer.presence_history WHERE app_id = $1 AND user_id = 'alice' ORDER BY observed_at`))
		})
	}
}
