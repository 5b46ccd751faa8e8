package jobs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/repo"
)

// TestFailures_goOn: a run that does not record failures anew writes those that
// are new or of another code, counts all, and forgets those who succeed.
func TestFailures_goOn(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 20})
	w.rounds.UnknownShare = 0
	e := w.engine(w.spec())
	app := e.app(tencentApp)
	fault := w.fault(imsim.Fault{Kind: imsim.FaultUserCode, IDs: userIDs(6), Code: 70107})
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunPartial)
	recorded := func() map[string]string {
		got := map[string]string{}
		for _, row := range query(w, pgx.RowTo[string], `SELECT user_id || ' ' || code || ' ' || times FROM syncer.user_failure WHERE app_id = $1`, app.ID) {
			got[row] = ""
		}
		return got
	}
	rows := func(texts ...string) map[string]string {
		want := map[string]string{}
		for _, text := range texts {
			want[text] = ""
		}
		return want
	}
	u := userIDs(8)
	if diff := cmp.Diff(rows(u[0]+" 70107 1", u[1]+" 70107 1", u[2]+" 70107 1", u[3]+" 70107 1", u[4]+" 70107 1", u[5]+" 70107 1"), recorded()); diff != "" {
		t.Fatalf("failures of the backfill (-want +got):\n%s", diff)
	}
	w.sim.ClearFault(fault)
	w.fault(imsim.Fault{Kind: imsim.FaultUserCode, IDs: u[2:4], Code: 70107})
	w.fault(imsim.Fault{Kind: imsim.FaultDrop, IDs: u[4:7]})
	run, err := e.StartTick(w.ctx, Job{Name: "presence", Kind: imclient.KindPresence}, app.ID, e.store.Now())
	if err != nil {
		t.Fatal(err)
	}
	run = w.wait(e, run)
	w.ended(run, repo.RunPartial)
	if run.Failed != 5 || run.RecordFailures {
		t.Errorf("the tick's run has %d failed and records all: %t; want 5 and false", run.Failed, run.RecordFailures)
	}
	if diff := cmp.Diff(rows(u[2]+" 70107 1", u[3]+" 70107 1", u[4]+" missing 1", u[5]+" missing 1", u[6]+" missing 1"), recorded()); diff != "" {
		t.Errorf("failures of the tick (-want +got):\n%s", diff)
	}
	w.ended(w.backfill(e, tencentApp, imclient.KindPresence), repo.RunPartial)
	if diff := cmp.Diff(rows(u[2]+" 70107 2", u[3]+" 70107 2", u[4]+" missing 2", u[5]+" missing 2", u[6]+" missing 2"), recorded()); diff != "" {
		t.Errorf("failures of another backfill (-want +got):\n%s", diff)
	}
}
