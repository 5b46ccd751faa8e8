package jobs

import (
	"strings"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/jobs/ask"
	"syncer/repo"
)

// TestSecrets: every test looks for secrets when it ends (see lookForSecrets).
// This one provokes them: backends that repeat keys, signatures and tokens in
// their words, in every class of error, and a connection that fails with the
// URL in Go's error. It also checks that looking finds them.
func TestSecrets(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 100})
	s := w.spec()
	s.FirstRetry, s.Timeout = time.Millisecond, 300*time.Millisecond
	e := w.engine(s)
	const seen = ", usersig eJwtzM0KgkAUhuF7me1Ac2Z0RgVaSNAiRTC3blqc9KDF4Mz4E9G9Z9nyfT74Pqw8X3ZBI0uYDAC2WUZqZuc1DYtV, token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.SIMTOKENabcdef012345"
	words := map[imclient.Provider]string{tencentApp: "refused: key " + simKey + seen, openIMApp: "refused: secret " + simSecret + seen}
	for _, tc := range []struct {
		provider imclient.Provider
		status   repo.RunStatus
		fault    imsim.Fault
	}{
		{tencentApp, repo.RunSucceeded, imsim.Fault{Kind: imsim.FaultCode, Code: 91000, Times: ask.Tries}},
		{tencentApp, repo.RunPartial, imsim.Fault{Kind: imsim.FaultPoison, IDs: []string{userID(1)}}},
		{tencentApp, repo.RunFailed, imsim.Fault{Kind: imsim.FaultCode, Code: 70403}},
		{tencentApp, repo.RunSucceeded, imsim.Fault{Kind: imsim.FaultReset, Times: ask.Tries}},
		{tencentApp, repo.RunFailed, imsim.Fault{Kind: imsim.FaultRedirect, Body: "http://elsewhere/?usersig=eJwtzM0KgkAUhuF7me1Ac2Z0RgVaSNAiRTC3blqc9KDF4Mz4E9G9Z9nyfT74Pqw8X3ZBI0uYDAC2WUZqZuc1DYtV"}},
		{openIMApp, repo.RunSucceeded, imsim.Fault{Kind: imsim.FaultCode, Code: 500, Times: ask.Tries}},
		{openIMApp, repo.RunPartial, imsim.Fault{Kind: imsim.FaultPoison, IDs: []string{userID(1)}}},
		{openIMApp, repo.RunFailed, imsim.Fault{Kind: imsim.FaultCode, Code: 1506}},
		{openIMApp, repo.RunSucceeded, imsim.Fault{Kind: imsim.FaultHang, Times: ask.Tries}},
	} {
		tc.fault.Text = words[tc.provider]
		w.fault(tc.fault)
		run := w.backfill(e, tc.provider, imclient.KindAccounts)
		w.sim.ClearFaults()
		if run.Status != tc.status {
			t.Errorf("%s %s %d: the run ended as %s (%s), want %s", tc.provider, tc.fault.Kind, tc.fault.Code, run.Status, run.Error, tc.status)
		}
		if found := secrets.FindString(run.Error); found != "" || tc.status == repo.RunFailed && run.Error == "" {
			t.Errorf("%s %s %d: the run's error is %q", tc.provider, tc.fault.Kind, tc.fault.Code, run.Error)
		}
	}
	for provider, text := range words {
		if got := secrets.FindAllString(text, -1); len(got) != 4 { // the token is found twice
			t.Errorf("%s: of the secrets in %q only %q are found", provider, text, got)
		}
	}
	if !strings.Contains(w.log.String(), "[redacted]") {
		t.Error("the backends' words did not reach the log, so that this proves nothing")
	}
}
