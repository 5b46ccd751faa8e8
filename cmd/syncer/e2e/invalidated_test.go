package e2e

import (
	"slices"
	"testing"
	"time"

	"syncer/internal/imsim"
)

// TestInvalidatedTokens: OpenIM voids the token five times during a backfill of 20,000
// users, each time after 30 more answered calls, which take 0.3 s at this rate. Of the
// server's two auth instances one learns of each login late, and one accepts old tokens on.
// The backfill succeeds, with the history that was served.
func TestInvalidatedTokens(t *testing.T) {
	t.Parallel()
	for _, version := range []imsim.OpenIMVersion{imsim.OpenIM383, imsim.OpenIMMain} {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			const users, voids = 20_000, 5
			w := newWorld(t, worldOptions{users: users, openIM: version, limits: imsim.Tencent{PresenceRate: 110}})
			for _, f := range []imsim.Fault{
				{Kind: imsim.FaultAuthLag, Delay: 5 * time.Millisecond, Probability: 0.5},
				{Kind: imsim.FaultAuthOld, Probability: 0.5},
			} {
				if _, err := w.sim.AddFault(f); err != nil {
					t.Fatal(err)
				}
			}
			w.run(exitDone, "migrate", "up")
			p := w.start("SYNCER_APPS_CHAT_OPENIM_PRESENCE_RATE=100", "SYNCER_SWEEP_PAGE_USERS=100", "backfill", "--app", "chat", "--job", "presence")
			stats := func() imsim.APIStats { return w.sim.Stats().APIs[imsim.PathOpenIMPresence] }
			for n := range voids {
				w.eventually("30 more calls were answered", func() bool { s := stats(); return s.Calls-s.Unauthorised >= 30*(n+1) })
				if version == imsim.OpenIMMain && n%2 == 1 {
					w.sim.ForgetTokens() // which 3.8.3 does not notice
				} else {
					w.sim.KickTokens()
				}
			}
			p.wait(exitDone)
			if s := stats(); s.Unauthorised == 0 || s.RateLimited > 0 {
				t.Errorf("%d calls were refused for their token, %d for the rate; want some, and none", s.Unauthorised, s.RateLimited)
			}
			w.wantSQL("succeeded t 20000 20000 0", `SELECT concat_ws(' ', status, complete, users, changed, failed) FROM syncer.sync_run`)
			w.storedAsServed(w.sim, slices.DeleteFunc(slices.Clone(allStored), func(s stored) bool { return s.served != imsim.OpenIMPresence }))
		})
	}
}
