package repo_test

import (
	"errors"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// loseApp makes the database forget the bench's app, and all that belongs to it, as a
// failover does in which the app's row had not reached the standby. If name is not "",
// another app then gets the same number from the sequence.
func (b *bench) loseApp(t *testing.T, name string) {
	t.Helper()
	exec(t, b.conn, `DELETE FROM sync_run; DELETE FROM app; ALTER TABLE app ALTER app_id RESTART`)
	if name == "" {
		return
	}
	other, err := b.open(t, "of "+name).EnsureApp(t.Context(), name, imclient.ProviderTencent, "1400000001")
	if err != nil {
		t.Fatal(err)
	}
	if other.ID != b.app.ID {
		t.Fatalf("app %s has number %d, want that of the lost app, %d", name, other.ID, b.app.ID)
	}
}

// TestAppLost: a process whose app is another one in the database, or none, does
// nothing under its number until it has looked the app up anew.
func TestAppLost(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]string{"another app has the number": "other", "no app has it": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			claimed := b.startedRange(t, b.backfill(imclient.KindPresence))
			if err := b.store.CheckApps(t.Context()); err != nil {
				t.Errorf("CheckApps before the loss: %v", err)
			}
			b.loseApp(t, next)
			refused := func(what string, err, want error) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", what, err, want)
				}
			}
			_, err := b.store.StartRun(t.Context(), b.every(time.Minute), enqueuePlan)
			refused("StartRun", err, repo.ErrAppLost)
			_, err = b.store.StartRun(t.Context(), b.backfill(imclient.KindPresence), enqueuePlan)
			refused("StartRun of a backfill", err, repo.ErrAppLost)
			refused("ResumeRun", b.store.ResumeRun(t.Context(), claimed.Run, enqueue), repo.ErrAppLost)
			refused("CheckApps", b.store.CheckApps(t.Context()), repo.ErrAppLost)
			_, err = b.store.Presence().SavePage(t.Context(), claimed, alicePage())
			refused("a page of before", err, repo.ErrGone)
			if next != "" {
				b.workOfOther(t, next, refused)
			}
			wantLines(t, b.conn, "what is known of users", `SELECT (SELECT count(*) FROM presence_snapshot), (SELECT count(*) FROM presence_history)`, "0 0")

			again, err := b.store.EnsureApp(t.Context(), "main", imclient.ProviderTencent, "1400000001")
			if err != nil {
				t.Fatal(err)
			}
			if (again.ID == b.app.ID) != (next == "") {
				t.Errorf("looked up anew, the app has number %d, and had %d before", again.ID, b.app.ID)
			}
			if err := b.store.CheckApps(t.Context()); err != nil {
				t.Errorf("CheckApps after the app was looked up anew: %v", err)
			}
			b.app = again
			if r := b.startedRange(t, b.backfill(imclient.KindPresence)); r.Run.AppID != again.ID {
				t.Errorf("a run of app %d, want %d", r.Run.AppID, again.ID)
			}
		})
	}
}

// workOfOther starts a run of the app that has the lost app's number now, and checks
// that the bench's store is refused all of it.
func (b *bench) workOfOther(t *testing.T, name string, refused func(what string, err, want error)) {
	t.Helper()
	other := b.open(t, "worker of "+name)
	if _, err := other.EnsureApp(t.Context(), name, imclient.ProviderTencent, "1400000001"); err != nil {
		t.Fatal(err)
	}
	runID, err := other.StartRun(t.Context(), b.backfill(imclient.KindPresence), enqueuePlan)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.store.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	refused("ClaimPlan", err, repo.ErrAppLost)
	plan, err := other.ClaimPlan(t.Context(), runID, b.planJob(t, runID))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.AddRange(t.Context(), plan, nil, enqueue); err != nil {
		t.Fatal(err)
	}
	job := b.rangeJob(t, runID, 1)
	_, err = b.store.ClaimRange(t.Context(), runID, 1, job, at(0))
	refused("ClaimRange", err, repo.ErrAppLost)
	if _, err = other.ClaimRange(t.Context(), runID, 1, job, at(0)); err != nil {
		t.Errorf("ClaimRange by a process that has the app: %v", err)
	}
}

// TestAppLost_same: an app that was added again with its name, provider, tenant and
// number is the same app.
func TestAppLost_same(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.loseApp(t, "main")
	if err := b.store.CheckApps(t.Context()); err != nil {
		t.Error(err)
	}
	b.startedRange(t, b.backfill(imclient.KindPresence))
}
