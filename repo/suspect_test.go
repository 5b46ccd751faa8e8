package repo_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"syncer/imclient"
	"syncer/repo"
)

const suspectSQL = `
SELECT range_no, status, lower_key, upper_key, cursor_key, suspicion, ask_after, users, failed, calls, retries, suspected, disbelieved, error
FROM sync_range
ORDER BY range_no`

// aside is a page from after one key to another that is in doubt until a time.
func aside(after, last string, suspicion int, askAfter time.Time) repo.Aside {
	return repo.Aside{After: &after, LastKey: last, Suspicion: suspicion, AskAfter: askAfter, Counters: repo.Counters{Calls: 3, Retries: 1}}
}

func setAside(t testing.TB, b *bench, r *repo.Range, a repo.Aside) (no int) {
	t.Helper()
	no, err := b.store.SetAside(t.Context(), r, a, enqueue)
	if err != nil {
		t.Fatal(err)
	}
	return no
}

// suspect tells what the run says of itself, now and when it is closed.
func (b *bench) suspect(t testing.TB, runID int64) string {
	t.Helper()
	run := b.find(t, runID)
	return fmt.Sprintf("%s suspect %t, %d pages, %d users", run.Status, run.Suspect, run.Suspected, run.Disbelieved)
}

func wantText(t testing.TB, what, want, got string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestSetAside follows a page that is doubted three times and then given up, and
// the rest of its range, which does not wait for it.
func TestSetAside(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	first := page[imclient.Presence]("g")
	first.Users, first.Calls = 10, 1
	save(t, b.store.Presence(), r, first, 0)
	if no := setAside(t, b, r, aside("g", "m", 1, at(20))); no != 2 {
		t.Errorf("the page became range %d, want 2", no)
	}
	wantText(t, "with a page in doubt", "running suspect true, 1 pages, 0 users", b.suspect(t, r.Run.ID))
	last := page[imclient.Presence]("z")
	last.Users, last.Calls = 5, 1
	save(t, b.store.Presence(), r, last, 0)
	if b.finish(t, r, "") {
		t.Fatal("the run was closed with a page in doubt")
	}

	job := b.rangeJob(t, r.Run.ID, 2)
	_, err := b.store.ClaimRange(t.Context(), r.Run.ID, 2, job, noon)
	if early, ok := errors.AsType[*repo.EarlyError](err); !ok || !early.AskAfter.Equal(at(20)) {
		t.Errorf("claimed before its time: %v, want an EarlyError until %s", err, clockTime(at(20)))
	}
	b.clock.pass(20 * time.Second)
	second := b.claim(t, r.Run.ID, 2)
	if second.Suspicion != 1 || second.Lower == nil || *second.Lower != "g" || second.Upper == nil || *second.Upper != "m" {
		t.Errorf("claimed %+v, want suspicion 1 from g to m", second)
	}
	if _, err := b.store.ClaimRange(t.Context(), r.Run.ID, 2, job, noon); !errors.Is(err, repo.ErrHeld) {
		t.Errorf("claimed twice: %v, want ErrHeld", err)
	}
	setAside(t, b, second, aside("g", "m", 2, at(40)))
	if b.finish(t, second, "") {
		t.Fatal("the run was closed with a page in doubt")
	}
	wantText(t, "in doubt again", "running suspect true, 1 pages, 0 users", b.suspect(t, r.Run.ID))
	b.clock.pass(20 * time.Second)
	third := b.claim(t, r.Run.ID, 3)
	given := aside("g", "m", 3, time.Time{})
	given.Reason, given.Disbelieved, given.Users, given.Failed = "70 of 80 users went offline", 99, 100, 100
	setAside(t, b, third, given)
	if !b.finish(t, third, "") {
		t.Error("the last page that was in doubt did not close the run")
	}
	wantText(t, "given up", "partial suspect false, 1 pages, 99 users", b.suspect(t, r.Run.ID))
	wantLines(t, b.conn, "run", `SELECT complete, users, failed, calls, retries, error FROM sync_run`,
		"false 115 100 11 3 answers about 99 users were not believed: 70 of 80 users went offline; they keep their last known value")
}

// TestSetAside_ranges shows the rows that a page in doubt leaves.
func TestSetAside_ranges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	setAside(t, b, r, repo.Aside{LastKey: "g", Suspicion: 1, AskAfter: at(20), Counters: repo.Counters{Calls: 2}})
	given := aside("g", "m", 3, time.Time{})
	given.Reason, given.Disbelieved, given.Users, given.Failed = "gone", 99, 100, 100
	setAside(t, b, r, given)
	wantLines(t, b.conn, "ranges", suspectSQL,
		"1 running - - m 0 - 0 0 5 1 2 0 -",
		"2 pending - g - 1 12:00:20 0 0 0 0 0 0 -",
		"3 done g m m 3 - 100 100 0 0 0 99 gone")
	wantLines(t, b.conn, "planned", `SELECT plan_ranges FROM sync_run`, "3")
}

// A page that is believed after all clears the run.
func TestSetAside_settled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	for i, upper := range []string{"g", "m"} {
		setAside(t, b, r, aside(fmt.Sprint(i), upper, 1, noon))
	}
	for _, no := range []int{2, 3} {
		again := b.claim(t, r.Run.ID, no)
		p := page[imclient.Presence]([]string{"g", "m"}[no-2])
		p.Users = 10
		save(t, b.store.Presence(), again, p, 0)
		b.finish(t, again, "")
		wantText(t, fmt.Sprintf("after range %d", no), fmt.Sprintf("running suspect %t, 2 pages, 0 users", no == 2), b.suspect(t, r.Run.ID))
	}
	if !b.finish(t, r, "") {
		t.Error("the run was not closed")
	}
	wantLines(t, b.conn, "run", `SELECT status, complete, users, suspect, suspected, disbelieved, error FROM sync_run`, "succeeded true 20 false 2 0 -")
}

// Many pages given up: the reasons of three are said.
func TestSetAside_reasons(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		setAside(t, b, r, repo.Aside{LastKey: name, Suspicion: 3, Reason: "page " + name, Disbelieved: 10, Counters: repo.Counters{Users: 10, Failed: 10}})
	}
	b.finish(t, r, "")
	wantText(t, "error", "answers about 50 users were not believed: page a; page b; page c; and 2 pages more; they keep their last known value", b.find(t, r.Run.ID).Error)
}

// Nothing is left of a page set aside by a claim that is not the newest, nor of
// one that could not be enqueued.
func TestSetAside_allOrNothing(t *testing.T) {
	t.Parallel()
	everything := func(t *testing.T, b *bench) []string {
		return append(lines(t, b.conn, suspectSQL), lines(t, b.conn, `SELECT status, plan_ranges, suspect FROM sync_run`)...)
	}
	for name, lose := range map[string]func(t *testing.T, b *bench, r *repo.Range){
		"claimed again": func(t *testing.T, b *bench, r *repo.Range) {
			b.clock.pass(2 * time.Minute)
			b.claim(t, r.Run.ID, r.No)
		},
		"the run failed": func(t *testing.T, b *bench, r *repo.Range) {
			if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "bad secret"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			r := b.startedRange(t, b.backfill(imclient.KindPresence))
			lose(t, b, r)
			before := everything(t, b)
			for _, reason := range []string{"", "gone"} {
				a := aside("a", "g", 1, at(20))
				a.Reason = reason
				if _, err := b.store.SetAside(t.Context(), r, a, enqueue); !errors.Is(err, repo.ErrGone) {
					t.Errorf("SetAside: %v, want ErrGone", err)
				}
			}
			if diff := cmp.Diff(before, everything(t, b)); diff != "" {
				t.Errorf("tables (-before +after):\n%s", diff)
			}
		})
	}
	t.Run("not enqueued", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		r := b.startedRange(t, b.backfill(imclient.KindPresence))
		before := everything(t, b)
		broken := errors.New("the queue is broken")
		refuse := func(pgx.Tx, repo.Run, int) (int64, error) { return 0, broken }
		if _, err := b.store.SetAside(t.Context(), r, aside("a", "g", 1, at(20)), refuse); !errors.Is(err, broken) {
			t.Errorf("SetAside: %v, want %v", err, broken)
		}
		if diff := cmp.Diff(before, everything(t, b)); diff != "" {
			t.Errorf("tables (-before +after):\n%s", diff)
		}
	})
}

// Ranges that are planned while pages are set aside get numbers of their own.
func TestSetAside_whilePlanning(t *testing.T) {
	t.Parallel()
	const each = 20
	b := newBench(t)
	runID := b.start(t, b.backfill(imclient.KindPresence))
	plan, err := b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	first := "00"
	if err := b.store.AddRange(t.Context(), plan, &first, enqueue); err != nil {
		t.Fatal(err)
	}
	r := b.claim(t, runID, 1)
	var group errgroup.Group
	group.Go(func() error {
		for i := range each {
			upper := fmt.Sprintf("%02d", i+1)
			if err := b.store.AddRange(t.Context(), plan, &upper, enqueue); err != nil {
				return err
			}
		}
		return b.store.AddRange(t.Context(), plan, nil, enqueue)
	})
	group.Go(func() error {
		for i := range each {
			if _, err := b.store.SetAside(t.Context(), r, aside("", fmt.Sprintf("0%02d", i), 1, noon), enqueue); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "ranges", `SELECT plan_ranges, planned, (SELECT count(*) FROM sync_range), (SELECT max(range_no) FROM sync_range), (SELECT count(*) FROM sync_range WHERE suspicion = 1) FROM sync_run`,
		fmt.Sprintf("%d true %[1]d %[1]d %d", 2*each+2, each))
}

// A run with pages in doubt is suspect again when it is resumed, and not while
// it is closed.
func TestResumeWithDoubts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	setAside(t, b, r, aside("a", "g", 2, at(20)))
	if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunCancelled, "stopped"); err != nil {
		t.Fatal(err)
	}
	wantText(t, "stopped", "cancelled suspect false, 1 pages, 0 users", b.suspect(t, r.Run.ID))
	if err := b.store.ResumeRun(t.Context(), b.find(t, r.Run.ID), enqueue); err != nil {
		t.Fatal(err)
	}
	wantText(t, "resumed", "running suspect true, 1 pages, 0 users", b.suspect(t, r.Run.ID))
	b.finish(t, b.claim(t, r.Run.ID, 1), "")
	b.clock.pass(20 * time.Second)
	again := b.claim(t, r.Run.ID, 2)
	if again.Suspicion != 2 {
		t.Errorf("suspicion %d after the resumption, want 2", again.Suspicion)
	}
	if !b.finish(t, again, "") {
		t.Error("the last range did not close the run")
	}
	wantText(t, "done", "succeeded suspect false, 1 pages, 0 users", b.suspect(t, r.Run.ID))
}
