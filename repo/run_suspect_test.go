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
SELECT range_no, status, lower_key, upper_key, cursor_key, suspect_answers, recheck_after, users, failed, calls, retries, suspect_pages, rejected_answers, error
FROM sync_range
ORDER BY range_no`

// suspectPage is a page from after one key to another whose recheck may not begin
// before a time.
func suspectPage(after, last string, answers int, recheckAfter time.Time) repo.SuspectPage {
	return repo.SuspectPage{After: &after, LastKey: last, Answers: answers, RecheckAfter: recheckAfter, Counters: repo.Counters{Calls: 3, Retries: 1}}
}

func saveSuspect(t testing.TB, b *bench, r *repo.Range, a repo.SuspectPage) (no int) {
	t.Helper()
	no, err := b.store.SaveSuspect(t.Context(), r, a, enqueue)
	if err != nil {
		t.Fatal(err)
	}
	return no
}

// suspect returns what the run records of its suspect pages, now and when it is closed.
func (b *bench) suspect(t testing.TB, runID int64) string {
	t.Helper()
	run := b.find(t, runID)
	return fmt.Sprintf("%s suspect %t, %d pages, %d users", run.Status, run.Suspect, run.SuspectPages, run.RejectedAnswers)
}

func wantText(t testing.TB, what, want, got string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestSaveSuspect follows a page that is suspect three times and then rejected, and
// the rest of its range, which does not wait for it.
func TestSaveSuspect(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	first := page[imclient.Presence]("g")
	first.Users, first.Calls = 10, 1
	save(t, b.store.Presence(), r, first, 0)
	if no := saveSuspect(t, b, r, suspectPage("g", "m", 1, at(20))); no != 2 {
		t.Errorf("the page became range %d, want 2", no)
	}
	wantText(t, "with a suspect page", "running suspect true, 1 pages, 0 users", b.suspect(t, r.Run.ID))
	last := page[imclient.Presence]("z")
	last.Users, last.Calls = 5, 1
	save(t, b.store.Presence(), r, last, 0)
	if b.finish(t, r, "") {
		t.Fatal("the run was closed with a suspect page")
	}

	job := b.rangeJob(t, r.Run.ID, 2)
	_, err := b.store.ClaimRange(t.Context(), r.Run.ID, 2, job, noon)
	if early, ok := errors.AsType[*repo.EarlyError](err); !ok || !early.RecheckAfter.Equal(at(20)) {
		t.Errorf("claimed before its time: %v, want an EarlyError until %s", err, clockTime(at(20)))
	}
	b.clock.pass(20 * time.Second)
	second := b.claim(t, r.Run.ID, 2)
	if second.SuspectAnswers != 1 || second.Lower == nil || *second.Lower != "g" || second.Upper == nil || *second.Upper != "m" {
		t.Errorf("claimed %+v, want suspect_answers 1 from g to m", second)
	}
	if _, err := b.store.ClaimRange(t.Context(), r.Run.ID, 2, job, noon); !errors.Is(err, repo.ErrHeld) {
		t.Errorf("claimed twice: %v, want ErrHeld", err)
	}
	saveSuspect(t, b, second, suspectPage("g", "m", 2, at(40)))
	if b.finish(t, second, "") {
		t.Fatal("the run was closed with a suspect page")
	}
	wantText(t, "suspect again", "running suspect true, 1 pages, 0 users", b.suspect(t, r.Run.ID))
	b.clock.pass(20 * time.Second)
	third := b.claim(t, r.Run.ID, 3)
	given := suspectPage("g", "m", 3, time.Time{})
	given.Reason, given.Rejected, given.Users, given.Failed = "70 of 80 users went offline", 99, 100, 100
	saveSuspect(t, b, third, given)
	if !b.finish(t, third, "") {
		t.Error("the last suspect page did not close the run")
	}
	wantText(t, "given up", "partial suspect false, 1 pages, 99 users", b.suspect(t, r.Run.ID))
	wantLines(t, b.conn, "run", `SELECT complete, users, failed, calls, retries, error FROM sync_run`,
		"false 115 100 11 3 suspect answers about 99 users were rejected: 70 of 80 users went offline; the users keep their last known value")
}

// TestSaveSuspect_ranges shows the rows that a suspect page leaves.
func TestSaveSuspect_ranges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	saveSuspect(t, b, r, repo.SuspectPage{LastKey: "g", Answers: 1, RecheckAfter: at(20), Counters: repo.Counters{Calls: 2}})
	given := suspectPage("g", "m", 3, time.Time{})
	given.Reason, given.Rejected, given.Users, given.Failed = "gone", 99, 100, 100
	saveSuspect(t, b, r, given)
	wantLines(t, b.conn, "ranges", suspectSQL,
		"1 running - - m 0 - 0 0 5 1 2 0 -",
		"2 pending - g - 1 12:00:20 0 0 0 0 0 0 -",
		"3 done g m m 3 - 100 100 0 0 0 99 gone")
	wantLines(t, b.conn, "planned", `SELECT plan_ranges FROM sync_run`, "3")
}

// A suspect page that is written after all clears the run.
func TestSaveSuspect_settled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	for i, upper := range []string{"g", "m"} {
		saveSuspect(t, b, r, suspectPage(fmt.Sprint(i), upper, 1, noon))
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
	wantLines(t, b.conn, "run", `SELECT status, complete, users, suspect, suspect_pages, rejected_answers, error FROM sync_run`, "succeeded true 20 false 2 0 -")
}

// Many pages given up: the reasons of three are said.
func TestSaveSuspect_reasons(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		saveSuspect(t, b, r, repo.SuspectPage{LastKey: name, Answers: 3, Reason: "page " + name, Rejected: 10, Counters: repo.Counters{Users: 10, Failed: 10}})
	}
	b.finish(t, r, "")
	wantText(t, "error", "suspect answers about 50 users were rejected: page a; page b; page c; and 2 pages more; the users keep their last known value", b.find(t, r.Run.ID).Error)
}

// Nothing is left of a page set aside by a claim that is not the newest, nor of
// one that could not be enqueued.
func TestSaveSuspect_allOrNothing(t *testing.T) {
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
				a := suspectPage("a", "g", 1, at(20))
				a.Reason = reason
				if _, err := b.store.SaveSuspect(t.Context(), r, a, enqueue); !errors.Is(err, repo.ErrGone) {
					t.Errorf("SaveSuspect: %v, want ErrGone", err)
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
		if _, err := b.store.SaveSuspect(t.Context(), r, suspectPage("a", "g", 1, at(20)), refuse); !errors.Is(err, broken) {
			t.Errorf("SaveSuspect: %v, want %v", err, broken)
		}
		if diff := cmp.Diff(before, everything(t, b)); diff != "" {
			t.Errorf("tables (-before +after):\n%s", diff)
		}
	})
}

// Ranges that are planned while pages are set aside get numbers of their own.
func TestSaveSuspect_whilePlanning(t *testing.T) {
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
			if _, err := b.store.SaveSuspect(t.Context(), r, suspectPage("", fmt.Sprintf("0%02d", i), 1, noon), enqueue); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "ranges", `SELECT plan_ranges, planned, (SELECT count(*) FROM sync_range), (SELECT max(range_no) FROM sync_range), (SELECT count(*) FROM sync_range WHERE suspect_answers = 1) FROM sync_run`,
		fmt.Sprintf("%d true %[1]d %[1]d %d", 2*each+2, each))
}

// A run with suspect pages is suspect again when it is resumed, and not while
// it is closed.
func TestResumeWithSuspects(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	saveSuspect(t, b, r, suspectPage("a", "g", 2, at(20)))
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
	if again.SuspectAnswers != 2 {
		t.Errorf("suspect_answers %d after the resumption, want 2", again.SuspectAnswers)
	}
	if !b.finish(t, again, "") {
		t.Error("the last range did not close the run")
	}
	wantText(t, "done", "succeeded suspect false, 1 pages, 0 users", b.suspect(t, r.Run.ID))
}
