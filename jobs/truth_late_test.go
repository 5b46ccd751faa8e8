package jobs

import (
	"errors"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// TestLateAnswer: alice is seen online at 00:00. At 00:05, when she is offline
// for a minute, a page about her is answered, but its worker is stuck. At 00:10
// she is seen online again, which writes nothing by which her snapshot could
// tell. When the worker goes on at 00:15, its answer is the past.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	stuck := fate{what: freezes, page: 1}
	lost := fate{what: freezes, page: 1, silent: true}
	for _, tc := range []struct {
		name string
		fate fate
		// meanwhile makes somebody else see alice at 00:10.
		meanwhile func(tr *trial, run *simRun)
		late      []string // what the late answer leads to
	}{
		{"a stuck page, of a run that was ended", stuck, func(tr *trial, run *simRun) {
			tr.end(run, repo.RunFailed)
			tr.sweep(tr.start(0, 0, nil), 0)
		}, nil},
		{"a stuck page, of a run that was stopped and resumed", stuck, func(tr *trial, run *simRun) {
			tr.end(run, repo.RunCancelled)
			tr.resume(1, run)
			tr.sweep(run, 0)
		}, nil},
		{"a rescued range, of a run that goes on", lost, func(tr *trial, run *simRun) {
			tr.rescue(1)
			alice := tr.open(run)[0]
			tr.work(1, run, alice.no, alice.job, 0, fate{what: goesThrough})
			if run.status != repo.RunRunning {
				tr.t.Errorf("the run is %s", run.status)
			}
		}, nil},
		{"a rescued range, of a run that went through", lost, func(tr *trial, run *simRun) {
			tr.rescue(1)
			tr.sweep(run, 0)
		}, nil},
		{"two instances, of which the queue gives the range to the second", lost, func(tr *trial, run *simRun) {
			alice := tr.open(run)[0]
			tr.work(1, run, alice.no, alice.job, 0, fate{what: goesThrough})
		}, nil},
		// Then it is the newest answer there is, and true, if the second opinion agrees.
		{"nobody has seen her since", stuck, func(tr *trial, _ *simRun) { tr.redisEmpty = true }, []string{"online offline 00:00 00:15"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := l.trial(t)
			tr.config.PageUsers, tr.config.RangeUsers = 1, 1
			alice := &simUser{id: "alice", turns: []turn{{5 * time.Minute, onlineIOS}, {time.Minute, offline}, {time.Hour, onlineIOS}}}
			tr.join(alice, 1)
			tr.join(&simUser{id: "bob", turns: []turn{{time.Hour, offline}}}, 2)
			tr.sweep(tr.start(0, 0, nil), 0)

			tr.clock.at = simStart.Add(5 * time.Minute)
			run := tr.start(0, 0, nil)
			open := tr.open(run)[0]
			w := tr.work(0, run, open.no, open.job, 0, tc.fate)
			if got := w.page.answers["alice"].value; got != offline {
				t.Fatalf("alice is %v to the worker", got)
			}
			tr.clock.at = simStart.Add(10 * time.Minute)
			tc.meanwhile(tr, run)
			tr.clock.at = simStart.Add(15 * time.Minute)
			tr.wakeUp(0)
			if gone := len(tc.late) == 0; gone != errors.Is(w.err, repo.ErrGone) {
				t.Errorf("the worker ended with %v", w.err)
			}
			want := append([]string{"- online - 00:00"}, tc.late...)
			tr.same("the history of alice", want, tr.lines(`
SELECT concat_ws(' ', coalesce(prev_state::text, '-'), state, coalesce(to_char(not_before AT TIME ZONE 'UTC', 'HH24:MI'), '-'), to_char(observed_at AT TIME ZONE 'UTC', 'HH24:MI'))
FROM syncer.presence_history WHERE app_id = $1 AND user_id = 'alice' ORDER BY observed_at`))
			tr.windUp()
			tr.check()
		})
	}
}

// TestLateHint: as TestLateAnswer, but the stuck answer is one to a hint, which no run owns.
// Nothing would refuse it if no run had begun meanwhile, and then it is true.
func TestLateHint(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, tc := range []struct {
		name      string
		meanwhile func(tr *trial)
		late      []string
	}{
		{"a sweep", func(tr *trial) { tr.sweep(tr.start(0, 0, nil), 0) }, nil},
		{"the start of a sweep", func(tr *trial) { tr.start(0, 0, nil) }, nil},
		{"nothing", func(*trial) {}, []string{"online push_online 00:00 00:05 00:05"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := l.trial(t)
			tr.config.PageUsers, tr.config.RangeUsers = 2, 2
			// push_online, which needs no second opinion
			alice := &simUser{id: "alice", turns: []turn{{5 * time.Minute, onlineIOS}, {time.Minute, pushIOS}, {time.Hour, onlineIOS}}}
			tr.join(alice, 1)
			tr.sweep(tr.start(0, 0, nil), 0)

			tr.clock.at = simStart.Add(5*time.Minute + time.Second)
			a := tr.asker(0, 0, fate{what: freezes, page: 1})
			a.hooks["alice"] = imclient.Hook{UserID: "alice", Logout: true, ToldAt: simStart.Add(5 * time.Minute)}
			a.hinter.Tell([]imclient.Hook{a.hooks["alice"]}, tr.clock.Now())
			tr.lookAt(a)
			tr.clock.at = simStart.Add(10 * time.Minute)
			tc.meanwhile(tr)
			tr.clock.at = simStart.Add(15 * time.Minute)
			tr.wakeAsker(0)
			tr.same("the history of alice", append([]string{"- online - 00:00"}, tc.late...), tr.lines(`
SELECT concat_ws(' ', coalesce(prev_state::text, '-'), state, coalesce(to_char(not_before AT TIME ZONE 'UTC', 'HH24:MI'), '-'), to_char(observed_at AT TIME ZONE 'UTC', 'HH24:MI'), to_char(told_at AT TIME ZONE 'UTC', 'HH24:MI'))
FROM syncer.presence_history WHERE app_id = $1 AND user_id = 'alice' ORDER BY observed_at`))
			tr.windUp()
			tr.check()
		})
	}
}
