package jobs

import (
	"strings"
	"testing"

	"syncer/imclient"
	"syncer/imclient/imsim"
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
	w.fault(imsim.Fault{Kind: imsim.FaultCode, Code: 91000, Times: batchTries + 1, IDs: []string{userID(1)}})
	run := w.backfill(e, app.Provider, imclient.KindPresence)
	w.ended(run, repo.RunSucceeded)
	if run.Users != 2000 || run.Calls != w.calls() || run.Retries < batchTries {
		t.Errorf("counters %+v, the API saw %d calls", run.Counters, w.calls())
	}
	w.truthful(presenceTables, app, userIDs(2000))
	if len(w.log.lines("failed; it will be retried", `"class":"transient"`, `"code":"91000"`)) != 1 {
		t.Errorf("the failure of the range is not logged once:\n%s", w.log.tail())
	}
}

// TestOutage_forGood: a backend that stays away fails the run in the end, with
// its words, and what was written stays.
func TestOutage_forGood(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1000})
	s := w.spec()
	s.Page, s.Range, s.Workers, s.FirstRetry = 500, 500, 1, 1
	e := w.engine(s)
	app := e.app(imclient.ProviderOpenIM)
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503, After: 1})
	run := w.backfill(e, app.Provider, imclient.KindAccounts)
	w.ended(run, repo.RunFailed)
	if !strings.Contains(run.Error, "503") {
		t.Errorf("the run's error is %q", run.Error)
	}
	if run.Users != 500 || run.Calls != w.calls() {
		t.Errorf("counters %+v, the API saw %d calls", run.Counters, w.calls())
	}
	if got := len(w.snapshot(accountTables, app.ID)); got != 500 {
		t.Errorf("%d users have a snapshot, want the 500 of the range that went through", got)
	}
}
