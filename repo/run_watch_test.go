package repo_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
	"syncer/repo"
)

// TestWatchApps: a run that went through, a gap, and a run that is going.
func TestWatchApps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.sweep(t, b.every(time.Minute))
	b.clock.pass(time.Hour)
	b.sweep(t, b.every(time.Minute))
	b.start(t, b.every(time.Minute))
	since, maxGap := b.clock.Now(), 3*time.Minute
	got, err := b.store.WatchApps(t.Context(), []int16{b.app.ID})
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.AppWatch{
		{AppID: b.app.ID, Kind: imclient.KindAccounts},
		{AppID: b.app.ID, Kind: imclient.KindPresence, RunningSince: &since, Gaps: 1, ObservedUntil: &since, MaxGap: &maxGap},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("apps (-want +got):\n%s", diff)
	}
}

// TestWatchJobs: failed and skipped runs are no success, and each job is reported by
// itself, in the order asked for.
func TestWatchJobs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.sweep(t, b.every(time.Minute))
	b.clock.pass(4 * time.Minute)
	b.finish(t, b.startedRange(t, b.every(time.Minute)), "connection refused")
	first, done := at(0), at(60)
	job := b.every(time.Minute).Job
	got, err := b.store.WatchJobs(t.Context(), []repo.AppJob{
		{AppID: b.app.ID, Kind: imclient.KindPresence, Job: "never"},
		{AppID: b.app.ID, Kind: imclient.KindPresence, Job: job},
		{AppID: b.app.ID, Kind: imclient.KindAccounts, Job: job},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []repo.JobWatch{{}, {FirstTick: &first, LastTick: &first, LastDoneAt: &done}, {}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

// TestWatchQuotas: the reported rate is the one by which calls are spaced, all the
// way through a recovery.
func TestWatchQuotas(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	quotas := []*repo.Quota{
		b.store.Quota(b.app.ID, imclient.KindAccounts, 90),
		b.store.Quota(b.app.ID, imclient.KindPresence, 200),
	}
	watch := func() []repo.QuotaWatch {
		t.Helper()
		got, err := b.store.WatchQuotas(t.Context(), quotas)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	unused := repo.QuotaWatch{AppID: b.app.ID, Kind: imclient.KindAccounts, Limit: 90, Rate: 90}
	want := []repo.QuotaWatch{unused, {AppID: b.app.ID, Kind: imclient.KindPresence, Limit: 200, Rate: 200}}
	if diff := cmp.Diff(want, watch()); diff != "" {
		t.Errorf("before any call (-want +got):\n%s", diff)
	}
	throttle(t, quotas[1], time.Minute)
	want[1].Rate, want[1].Pause = 100, time.Minute
	if diff := cmp.Diff(want, watch()); diff != "" {
		t.Errorf("in a pause (-want +got):\n%s", diff)
	}
	for range 9 {
		b.clock.pass(1500 * time.Millisecond)
		wantRate(t, quotas[1], watch()[1].Rate)
	}
}
