package jobs

import (
	"testing"
	"time"

	"syncer/imclient"
	"syncer/imclient/imsim"
	"syncer/repo"
)

// TestLostRelease: a worker fails and cannot even give its range back, because
// the database is away at that moment. Its process lives on and gives signs of
// life for its other work, but must not keep that range from everybody for ever.
func TestLostRelease(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 1500})
	s := w.spec()
	s.Range, s.Page, s.RescueAfter = 500, 500, 3*time.Second
	e := w.engine(s)
	w.exec(`
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the disk is full'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON syncer.sync_range FOR EACH ROW
WHEN (old.status = 'running' AND new.status = 'pending') EXECUTE FUNCTION public.refuse()`)
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 500, Times: batchTries, IDs: []string{userID(1)}})
	run := w.start(e, imclient.ProviderTencent, imclient.KindAccounts)
	w.eventually("a range could not be given back", func() bool {
		return len(w.log.lines("could not give the range back", "the disk is full")) > 0
	})
	w.exec(`DROP TRIGGER refuse ON syncer.sync_range`)
	w.ended(w.wait(e, run), repo.RunSucceeded)
	w.truthful(accountTables, e.app(imclient.ProviderTencent), userIDs(1500))
}
