package jobs

import (
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/jobs/ask"
	"syncer/repo"
)

// TestUnauthorised_again: the token is voided five times, each time after some
// more calls, and fresh tokens are not known to one of two auth instances for some
// milliseconds. The run goes through, each user once, and few calls are refused.
func TestUnauthorised_again(t *testing.T) {
	t.Parallel()
	const users, voids = 20_000, 5
	w := setup(t, worldOptions{users: users})
	s := w.spec()
	s.Rate, s.Batch = 100, 100
	e := w.engine(s)
	w.fault(imsim.Fault{Kind: imsim.FaultAuthLag, Path: imsim.PathOpenIMAccounts, Delay: 5 * time.Millisecond, Probability: 0.5})
	run := w.start(e, openIMApp, imclient.KindAccounts)
	stats := func() imsim.APIStats { return w.sim.Stats().APIs[imsim.PathOpenIMAccounts] }
	for n := range voids {
		w.eventually("more calls were answered", func() bool { s := stats(); return s.Calls-s.Unauthorised > 20*(n+1) })
		if n%2 == 0 {
			w.sim.KickTokens()
		} else {
			w.sim.ForgetTokens()
		}
	}
	run = w.wait(e, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != users || run.Changed != users {
		t.Errorf("counters %+v", run.Counters)
	}
	w.truthful(accountTables, e.app(openIMApp), userIDs(users))
	if refused := stats().Unauthorised; refused == 0 || refused > voids*(ask.CallsAhead+8) {
		t.Errorf("%d calls were refused", refused)
	}
}
