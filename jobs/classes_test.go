package jobs

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

const (
	tencentApp = imclient.ProviderTencent
	openIMApp  = imclient.ProviderOpenIM
)

// TestTransient: what passes by itself is asked again, and counted.
func TestTransient(t *testing.T) {
	t.Parallel()
	const times = 2
	w := setup(t, worldOptions{users: 300})
	s := w.spec()
	s.Timeout = patience
	e := w.engine(s)
	for _, p := range []imclient.Provider{tencentApp, openIMApp} {
		w.ended(w.backfill(e, p, imclient.KindPresence), repo.RunSucceeded)
	}
	for _, tc := range []struct {
		provider imclient.Provider
		fault    imsim.Fault
	}{
		{tencentApp, imsim.Fault{Kind: imsim.FaultCode, Code: 91000}},
		{tencentApp, imsim.Fault{Kind: imsim.FaultCode, Code: 4711}}, // nobody knows it
		{tencentApp, imsim.Fault{Kind: imsim.FaultHTML, Status: http.StatusBadGateway}},
		{tencentApp, imsim.Fault{Kind: imsim.FaultEmpty}},
		{openIMApp, imsim.Fault{Kind: imsim.FaultCode, Code: 500}},
		{openIMApp, imsim.Fault{Kind: imsim.FaultReset}},
		{openIMApp, imsim.Fault{Kind: imsim.FaultTruncate}},
		{openIMApp, imsim.Fault{Kind: imsim.FaultHTML}},
		{tencentApp, imsim.Fault{Kind: imsim.FaultHang}},
	} {
		if tc.fault.Kind == imsim.FaultHang {
			// Long enough for any call that does not hang.
			w.stop(e, grace)
			s.Process, s.Timeout = "impatient", 5*time.Second
			e = w.engine(s)
		}
		t.Run(fmt.Sprintf("%s %s %d", tc.provider, tc.fault.Kind, tc.fault.Code), func(t *testing.T) {
			tc.fault.Times = times
			w.fault(tc.fault)
			defer w.sim.ClearFaults()
			run := w.backfill(e, tc.provider, imclient.KindPresence)
			if want := (repo.Counters{Users: 300, Calls: 1 + times, Retries: times}); run.Status != repo.RunSucceeded || run.Counters != want {
				t.Errorf("the run is %s with %+v, want %+v", run.Status, run.Counters, want)
			}
		})
	}
}

// TestThrottled: a rate-limit answer halves the rate of that API for everybody,
// which recovers with time; nothing is lost.
func TestThrottled(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1000})
	e := w.engine(w.spec())
	for provider, fault := range map[imclient.Provider]imsim.Fault{
		tencentApp: {Kind: imsim.FaultCode, Code: 60007, Times: 1},
		openIMApp:  {Kind: imsim.FaultStatus, Status: http.StatusTooManyRequests, RetryAfter: 1, Times: 1},
	} {
		app := e.app(provider)
		w.fault(fault)
		run := w.backfill(e, provider, imclient.KindPresence)
		w.ended(run, repo.RunSucceeded)
		if run.Retries != 1 {
			t.Errorf("%s: counters %+v, want one retry", provider, run.Counters)
		}
		w.truthful(presenceTables, app, userIDs(1000))
		interval := func(kind imclient.Kind) time.Duration {
			times, err := e.store.Quota(app.ID, kind, 1000).ReserveCalls(w.ctx, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			return times.Interval
		}
		full, unknown := (time.Second+imclient.MaxMargin)/1000, (time.Second+8*time.Millisecond)/1000
		// As if just throttled, and at a rate at which intervals are even: 1000
		// calls a second instead of the engine's 5000.
		w.exec(`UPDATE syncer.api_quota SET throttled_at = $1, rate = rate / 5 WHERE app_id = $2 AND api = 'presence'`, e.store.Now(), app.ID)
		if got := interval(imclient.KindPresence); got != 2*full {
			t.Errorf("%s: calls are %s apart, want %s: half the rate", provider, got, 2*full)
		}
		if got := interval(imclient.KindAccounts); got != unknown {
			t.Errorf("%s: calls of the other API are %s apart, want %s", provider, got, unknown)
		}
		w.exec(`UPDATE syncer.api_quota SET throttled_at = $1 WHERE app_id = $2`, e.store.Now().Add(-time.Minute), app.ID)
		if got := interval(imclient.KindPresence); got != full {
			t.Errorf("%s: a minute later calls are %s apart, want %s: the full rate", provider, got, full)
		}
	}
}

// TestThrottled_rateSetTooHigh: the provider allows far less than configured.
func TestThrottled_rateSetTooHigh(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 5000, tencent: imsim.Tencent{AccountsRate: 20}})
	s := w.spec()
	s.Rate = 100
	e := w.engine(s)
	run := w.backfill(e, tencentApp, imclient.KindAccounts)
	w.ended(run, repo.RunSucceeded)
	if limited := w.sim.Stats().Total().RateLimited; limited == 0 || run.Users != 5000 || run.Calls != w.calls() {
		t.Errorf("%d calls were refused; counters %+v, the API saw %d calls", limited, run.Counters, w.calls())
	}
	w.truthful(accountTables, e.app(tencentApp), userIDs(5000))
}

// TestUnauthorised: signatures or tokens that are refused in the middle of a run
// are renewed, once for all calls in flight.
func TestUnauthorised(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 6000})
	s := w.spec()
	s.Rate, s.Batch = 25, 100
	e := w.engine(s)
	tencent, openIM := w.start(e, tencentApp, imclient.KindAccounts), w.start(e, openIMApp, imclient.KindAccounts)
	// More than a second's calls: the next signature must be dated later.
	w.eventually("both runs are under way", func() bool {
		apis := w.sim.Stats().APIs
		return apis[imsim.PathTencentAccounts].Calls > 30 && apis[imsim.PathOpenIMAccounts].Calls > 30
	})
	w.sim.RevokeSignatures()
	w.sim.KickTokens()
	for _, run := range []repo.Run{w.wait(e, tencent), w.wait(e, openIM)} {
		w.ended(run, repo.RunSucceeded)
		if run.Users != 6000 || run.Changed != 6000 {
			t.Errorf("counters %+v", run.Counters)
		}
	}
	stats := w.sim.Stats().APIs
	for _, path := range []string{imsim.PathTencentAccounts, imsim.PathOpenIMAccounts} {
		if stats[path].Unauthorised == 0 {
			t.Errorf("%s: no call was refused", path)
		}
	}
	if logins := stats[imsim.PathAdminToken].Calls; logins != 2 {
		t.Errorf("%d logins, want 2", logins)
	}
}

// TestFatal: an app whose setting is wrong fails its run at once, with words on
// what to fix; the other app's run is left alone.
func TestFatal(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		failing, other imclient.Provider
		spec           func(*engineSpec)
		fault          imsim.Fault
		want           []string
	}{
		"Tencent: no admin any more": {tencentApp, openIMApp, func(*engineSpec) {},
			imsim.Fault{Kind: imsim.FaultNotAdmin, Path: "/v4/*", After: 2}, []string{"70403", "identifier"}},
		"Tencent: wrong key": {tencentApp, openIMApp, func(s *engineSpec) { s.Key += "0" },
			imsim.Fault{}, []string{"70009", "secret_key"}},
		"OpenIM: no admin any more": {openIMApp, tencentApp, func(*engineSpec) {},
			imsim.Fault{Kind: imsim.FaultNotAdmin, Path: "/user/*", After: 2}, []string{"1002", "admin_user_id"}},
		"OpenIM: wrong secret": {openIMApp, tencentApp, func(s *engineSpec) { s.Secret += "0" },
			imsim.Fault{}, []string{"1002", "secret"}},
		"OpenIM: moved": {openIMApp, tencentApp, func(*engineSpec) {},
			imsim.Fault{Kind: imsim.FaultRedirect, Path: "/user/*", After: 1}, []string{"redirects", "base_url"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, worldOptions{users: 3000})
			s := w.spec()
			s.Rate, s.Batch, s.Range, s.Page = 30, 100, 500, 300
			tc.spec(&s)
			e := w.engine(s)
			if tc.fault.Kind != "" {
				w.fault(tc.fault)
			}
			var all sync.WaitGroup
			all.Go(func() {
				run := w.backfill(e, tc.other, imclient.KindAccounts)
				if run.Status != repo.RunSucceeded || run.Users != 3000 {
					t.Errorf("the other app's run ended as %s with %+v", run.Status, run.Counters)
				}
			})
			run := w.start(e, tc.failing, imclient.KindAccounts)
			run = w.wait(e, run)
			if took := run.Duration(time.Time{}); took > 900*time.Millisecond && run.Calls > 20 {
				t.Errorf("the run failed only after %s and %d calls", took, run.Calls)
			}
			all.Wait()
			w.ended(run, repo.RunFailed)
			for _, want := range tc.want {
				if !strings.Contains(run.Error, want) {
					t.Errorf("the run's error is %q, want %q in it", run.Error, want)
				}
			}
			w.eventually("the run's end is logged", func() bool { return len(w.log.lines("run closed")) > 0 })
			if len(w.log.lines("run closed", `"level":"error"`, `"status":"failed"`, tc.want[0])) == 0 {
				t.Errorf("the end of the run is not logged:\n%s", w.log.tail())
			}
		})
	}
}
