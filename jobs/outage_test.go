package jobs

import (
	"net"
	"strings"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/jobs/ask"
	"syncer/repo"
)

// TestOutage_onePageOfARange: the first page of a range gets no answer for
// longer than a batch is tried, while later pages are answered and have to be
// asked about again. Every call is counted.
func TestOutage_onePageOfARange(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 2000})
	s := w.spec()
	s.Page, s.Workers = 200, 1
	e := w.engine(s)
	app := e.app(imclient.ProviderTencent)
	w.fault(imsim.Fault{Kind: imsim.FaultCode, Code: 91000, Times: ask.Tries + 1, IDs: []string{userID(1)}})
	run := w.backfill(e, app.Provider, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	if run.Users != 2000 || run.Calls != w.calls() || run.Retries < ask.Tries {
		t.Errorf("counters %+v, the API saw %d calls", run.Counters, w.calls())
	}
	w.truthful(presenceTables, app, userIDs(2000))
	if len(w.log.lines("failed; it will be retried", `"class":"transient"`, `"code":"91000"`)) != 1 {
		t.Errorf("the failure of the range is not logged once:\n%s", w.log.tail())
	}
}

// TestOutage_forGood: a backend that stays away fails the run when it has been away
// for long enough, with its words, and what was written stays. That takes few calls.
func TestOutage_forGood(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 5000})
	s := w.spec()
	s.Page, s.Range, s.Batch, s.Workers = 500, 500, 100, 1
	s.Outage, s.Hold = 5*time.Second, time.Second
	e := w.engine(s)
	app := e.app(imclient.ProviderOpenIM)
	const answered = 10 // the calls of two pages
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503, After: answered})
	run := w.backfill(e, app.Provider, imclient.KindAccounts)
	w.ended(run, repo.RunFailed)
	if !strings.HasPrefix(run.Error, "no answer since 20") || !strings.Contains(run.Error, "503") {
		t.Errorf("the run's error is %q", run.Error)
	}
	if took := run.Duration(time.Time{}); took < s.Outage {
		t.Errorf("the run was given up after %s", took)
	}
	// Besides the answered ones those on the wire when the first failed, of three
	// pages, and probes; not five for each of 40 batches.
	// One that was given up before it arrived counts too.
	if run.Calls < w.calls() || run.Calls > answered+15+15 {
		t.Errorf("counters %+v, the API saw %d calls", run.Counters, w.calls())
	}
	if got := int64(len(w.snapshot(accountTables, app.ID))); got != run.Users || got > 100*answered {
		t.Errorf("%d users have a snapshot, %d were written", got, run.Users)
	}
	w.eventually("the run's end is logged", func() bool { return len(w.log.lines("run closed")) > 0 })
	if len(w.log.lines("run closed", `"level":"error"`, "no answer since")) != 1 ||
		len(w.log.lines("the API gives no answer; calls are held back", `"level":"warn"`, `"kind":"accounts"`, `"class":"transient"`)) != 1 {
		t.Errorf("the outage is not logged once:\n%s", w.log.tail())
	}
	// No range is given up for it, and the next run goes through at once.
	if n := w.count(`SELECT count(*) FROM syncer.sync_range WHERE run_id = $1 AND status = 'failed'`, run.ID); n != 0 {
		t.Errorf("%d ranges were given up", n)
	}
	w.sim.ClearFaults()
	w.ended(w.backfill(e, app.Provider, imclient.KindAccounts), repo.RunSucceeded)
	w.truthful(accountTables, app, userIDs(5000))
	if len(w.log.lines("the API answers again", `"probes":`)) != 1 || e.metrics("syncer_api_breaker_open") != lines(
		`syncer_api_breaker_open{app="openim",kind="accounts"} 0`, `syncer_api_breaker_open{app="openim",kind="presence"} 0`,
		`syncer_api_breaker_open{app="tencent",kind="accounts"} 0`, `syncer_api_breaker_open{app="tencent",kind="presence"} 0`,
	) {
		t.Errorf("the end of the outage is not told:\n%s%s", e.metrics("syncer_api_breaker_open"), w.log.tail())
	}
}

// TestOutage_waitedOut: an outage that ends in time costs a run nothing but time,
// however often its ranges come back meanwhile. No attempt is used up.
func TestOutage_waitedOut(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1000})
	s := w.spec()
	s.Page, s.Range, s.Workers, s.FirstRetry, s.Hold = 100, 200, 2, time.Millisecond, 10*time.Millisecond
	e := w.engine(s)
	app := e.app(imclient.ProviderTencent)
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503})
	run := w.start(e, app.Provider, imclient.KindPresence)
	const claims = `SELECT coalesce(max(attempt), 0) FROM syncer.sync_range WHERE run_id = $1`
	w.eventually("a range was given back more often than it may fail", func() bool { return w.count(claims, run.ID) > maxAttempts+1 })
	w.sim.ClearFaults()
	run = w.wait(e, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != 1000 || run.Calls != w.calls() {
		t.Errorf("counters %+v, the API saw %d calls", run.Counters, w.calls())
	}
	w.truthful(presenceTables, app, userIDs(1000))
}

// TestOutage_ofOne: of two engines one is cut off from the API, for much longer than
// a run waits for an answer, while the other is slow: its pages take longer than that
// too. The run is not ended, the slow one goes through with it, and does so with all
// ranges.
func TestOutage_ofOne(t *testing.T) {
	t.Parallel()
	const users = 5000
	w := setup(t, worldOptions{users: users})
	s := w.spec()
	s.Providers, s.Outage, s.Hold = []imclient.Provider{imclient.ProviderTencent}, 10*time.Second, 200*time.Millisecond
	s.FirstRetry = firstRetry
	s.Rate, s.Range, s.Page, s.Workers = 2, 2500, 2500, 1 // a page of accounts is 25 calls
	cutOff, good := s, s
	cutOff.Process, cutOff.Base, cutOff.Page = "cut-off", deadAddress(t), 500 // and so few calls in vain
	good.Process = "good"
	e := w.engine(good)
	run := w.start(e, tencentApp, imclient.KindAccounts)
	w.eventually("the good one asks", func() bool { return w.calls() > 0 })
	away := w.engine(cutOff)
	run = w.wait(e, run)
	w.ended(run, repo.RunSucceeded)
	if run.Users != users {
		t.Errorf("counters %+v", run.Counters)
	}
	if len(w.log.lines("no answer; the range waits")) == 0 {
		t.Errorf("the engine that is cut off had no range:\n%s", w.log.tail())
	}
	since, open := away.lane(run).breaker.Outage()
	if !open || time.Since(since) < s.Outage {
		t.Errorf("the engine that is cut off knows of it: %t, since %s", open, since)
	}
	w.truthful(accountTables, e.app(tencentApp), userIDs(users))
}

// deadAddress is where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// TestOutage_poisonAmongAnswers: two batches of a page are never answered, the others
// always are. That is no outage: attempts are used up, and the run comes to an end.
func TestOutage_poisonAmongAnswers(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1000})
	s := w.spec()
	s.Page, s.Range, s.Batch, s.FirstRetry, s.Hold = 1000, 1000, 100, time.Millisecond, 2*time.Second
	e := w.engine(s)
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503, IDs: []string{userID(150), userID(650)}})
	run := w.backfill(e, openIMApp, imclient.KindAccounts)
	w.ended(run, repo.RunFailed)
	if strings.Contains(run.Error, "no answer since") || !strings.Contains(run.Error, "503") {
		t.Errorf("the run's error is %q", run.Error)
	}
	// An attempt in which the two take all probes counts for none, so there may be
	// any number more.
	if n := w.count(`SELECT max(attempt) FROM syncer.sync_range WHERE run_id = $1`, run.ID); n < maxAttempts {
		t.Errorf("the range was tried %d times, want at least %d", n, maxAttempts)
	}
}
