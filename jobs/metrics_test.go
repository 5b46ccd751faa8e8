package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
	"syncer/internal/imsim"
	"syncer/internal/schedule"
	"syncer/repo"
)

// steadyMetrics are the metrics that tell of no time that passes, beside histograms'
// counts.
var steadyMetrics = []string{
	"syncer_ready", "syncer_state_known", "syncer_runs_total", "syncer_range_failures_total",
	"syncer_users_observed_total", "syncer_changes_total", "syncer_user_failures_total", "syncer_retries_total",
	"syncer_page_ask_duration_seconds_count", "syncer_page_save_duration_seconds_count",
	"syncer_api_calls_total", "syncer_api_call_duration_seconds_count",
	"syncer_users", "syncer_failing_users", "syncer_removals_held_back", "syncer_gaps", "syncer_gap_open_seconds", "syncer_run_running_seconds", "syncer_run_suspect",
	"syncer_quota_limit_calls_per_second", "syncer_db_pool_max_connections",
	"syncer_last_success_timestamp_seconds", "syncer_schedule_lag_seconds", "syncer_schedule_interval_seconds",
}

// TestMetrics: a run with an API error and two users who fail, as metrics tell it;
// no user's id is among them.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 400})
	s := w.spec()
	s.Page, s.Providers = 200, []imclient.Provider{imclient.ProviderTencent}
	e := w.engine(s)
	e.Schedule(nil)
	var down error
	e.registry.MustRegister(&State{Engine: e.Engine, Ready: func(context.Context) error { return down }})
	w.fault(imsim.Fault{Kind: imsim.FaultStatus, Status: 503, Times: 1})
	w.fault(imsim.Fault{Kind: imsim.FaultUserCode, IDs: []string{userID(7), userID(300)}})
	run := w.backfill(e, imclient.ProviderTencent, imclient.KindPresence)
	w.ended(run, repo.RunPartial)
	const of = `{app="tencent",kind="presence"} `
	want := lines(
		`syncer_api_call_duration_seconds_count{api="query_online_status",app="tencent"} 3`,
		`syncer_api_calls_total{api="query_online_status",app="tencent",class="ok"} 2`,
		`syncer_api_calls_total{api="query_online_status",app="tencent",class="transient"} 1`,
		`syncer_changes_total`+of+`398`,
		`syncer_failing_users`+of+`2`,
		`syncer_gap_open_seconds`+of+`0`,
		`syncer_gaps`+of+`0`,
		`syncer_page_ask_duration_seconds_count`+of+`2`,
		`syncer_page_save_duration_seconds_count`+of+`2`,
		`syncer_quota_limit_calls_per_second`+of+`5000`,
		`syncer_range_failures_total{app="tencent",class="fatal",kind="presence"} 0`,
		`syncer_range_failures_total{app="tencent",class="throttled",kind="presence"} 0`,
		`syncer_range_failures_total{app="tencent",class="transient",kind="presence"} 0`,
		`syncer_range_failures_total{app="tencent",class="users_table",kind="presence"} 0`,
		`syncer_removals_held_back`+of+`0`,
		`syncer_retries_total`+of+`1`,
		`syncer_run_running_seconds`+of+`0`,
		`syncer_run_suspect`+of+`0`,
		`syncer_runs_total{app="tencent",kind="presence",result="partial",sync_job="backfill"} 1`,
		`syncer_user_failures_total`+of+`2`,
		`syncer_users`+of+`400`,
		`syncer_users_observed_total`+of+`400`,
	)
	presence := func() (text string) {
		for line := range strings.Lines(e.metrics(steadyMetrics...)) {
			if !strings.Contains(line, `kind="accounts"`) && strings.Contains(line, "app=") {
				text += line
			}
		}
		return text
	}
	// A backfill is over for those who wait for it a moment before it is counted.
	w.eventually("the run is counted", func() bool { return strings.Contains(presence(), "syncer_runs_total{") })
	if diff := cmp.Diff(want, presence()); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("syncer_db_pool_max_connections 6\nsyncer_ready 1\nsyncer_state_known 1\n",
		e.metrics("syncer_db_pool_max_connections", "syncer_ready", "syncer_state_known")); diff != "" {
		t.Errorf("metrics of the process (-want +got):\n%s", diff)
	}
	down = errors.New("the database is away")
	if diff := cmp.Diff("syncer_ready 0\nsyncer_state_known 0\n", e.metrics("syncer_ready", "syncer_state_known", "syncer_users", "syncer_gaps")); diff != "" {
		t.Errorf("metrics without the database (-want +got):\n%s", diff)
	}
	down = nil
	w.exec(`ALTER TABLE syncer.api_quota RENAME TO elsewhere`)
	for range 2 {
		if diff := cmp.Diff("syncer_ready 1\nsyncer_state_known 0\n", e.metrics("syncer_ready", "syncer_state_known", "syncer_users", "syncer_gaps")); diff != "" {
			t.Errorf("metrics without a table (-want +got):\n%s", diff)
		}
	}
	if n := len(w.log.lines("metrics of apps and jobs cannot be read")); n != 1 {
		t.Errorf("it is logged %d times, want once", n)
	}
}

func lines(all ...string) string { return strings.Join(all, "\n") + "\n" }

// TestMetrics_schedule: all outcomes of a job are there before its first run, a
// run that fails is counted with the class of its error, and the lag begins.
func TestMetrics_schedule(t *testing.T) {
	t.Parallel()
	w := setup(t, worldOptions{users: 50})
	s := w.spec()
	s.Providers = []imclient.Provider{imclient.ProviderOpenIM}
	e := w.engine(s)
	e.registry.MustRegister(&State{Engine: e.Engine, Ready: func(context.Context) error { return nil }})
	job := e.job("p", openIMApp, 24*time.Hour, false)
	e.Schedule([]Job{job})
	const of, p = `{app="openim",kind="presence"`, `,sync_job="p"} `
	want := lines(
		`syncer_runs_total`+of+`,result="failed"`+p+`0`, `syncer_runs_total`+of+`,result="partial"`+p+`0`,
		`syncer_runs_total`+of+`,result="skipped"`+p+`0`, `syncer_runs_total`+of+`,result="succeeded"`+p+`0`,
		`syncer_schedule_interval_seconds`+of+p+`86400`, `syncer_schedule_lag_seconds`+of+p+`0`,
	)
	names := []string{"syncer_runs_total", "syncer_schedule_lag_seconds", "syncer_schedule_interval_seconds", "syncer_last_success_timestamp_seconds"}
	if diff := cmp.Diff(want, e.metrics(names...)); diff != "" {
		t.Errorf("at first (-want +got):\n%s", diff)
	}
	w.fault(imsim.Fault{Kind: imsim.FaultNotAdmin})
	run, err := e.StartTick(w.ctx, job, e.app(openIMApp).ID, e.store.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	w.ended(w.wait(e, run), repo.RunFailed)
	w.eventually("the run is counted", func() bool {
		return strings.Contains(e.metrics("syncer_runs_total"), `result="failed",sync_job="p"} 1`)
	})
	got := e.metrics("syncer_range_failures_total", "syncer_last_success_timestamp_seconds", "syncer_schedule_lag_seconds")
	if !strings.Contains(got, `syncer_range_failures_total{app="openim",class="fatal",kind="presence"} 1`) ||
		strings.Contains(got, "last_success") || strings.HasSuffix(got, "} 0\n") {
		t.Errorf("after a run that failed:\n%s", got)
	}
}

func TestLag(t *testing.T) {
	now := instant(t, "2026-03-01T12:00:00Z")
	tick := func(s string) *time.Time { at := instant(t, s); return &at }
	for name, tc := range map[string]struct {
		watch repo.JobWatch
		want  time.Duration
	}{
		"never due":                 {repo.JobWatch{}, 0},
		"never done":                {repo.JobWatch{FirstTick: tick("2026-03-01T10:00:00Z")}, 2 * time.Hour},
		"in time":                   {repo.JobWatch{FirstTick: tick("2026-02-01T10:00:00Z"), LastTick: tick("2026-03-01T11:50:00Z")}, 0},
		"a tick that just came":     {repo.JobWatch{LastTick: tick("2026-03-01T11:45:00Z")}, 0},
		"two ticks without success": {repo.JobWatch{LastTick: tick("2026-03-01T11:30:00Z")}, 15 * time.Minute},
	} {
		if got := lag(schedule.Every(15*time.Minute), tc.watch, now); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestOpenGap(t *testing.T) {
	now := instant(t, "2026-03-01T12:00:00Z")
	until := instant(t, "2026-03-01T11:50:00Z")
	gap := func(d time.Duration) *time.Duration { return &d }
	for name, tc := range map[string]struct {
		watch     repo.AppWatch
		scheduled time.Duration
		want      time.Duration
	}{
		"never looked":                       {repo.AppWatch{}, time.Minute, 0},
		"within what the run allows":         {repo.AppWatch{ObservedUntil: &until, MaxGap: gap(time.Hour)}, time.Minute, 0},
		"longer than the run allows":         {repo.AppWatch{ObservedUntil: &until, MaxGap: gap(time.Minute)}, time.Hour, 10 * time.Minute},
		"after a backfill, before the tick":  {repo.AppWatch{ObservedUntil: &until}, time.Hour, 0},
		"after a backfill, the tick is late": {repo.AppWatch{ObservedUntil: &until}, time.Minute, 10 * time.Minute},
		"a long run began in time":           {repo.AppWatch{ObservedUntil: &until, MaxGap: gap(time.Minute), RunningSince: &until}, time.Minute, 0},
		"a run began too late":               {repo.AppWatch{ObservedUntil: &until, MaxGap: gap(time.Minute), RunningSince: &now}, time.Minute, 10 * time.Minute},
		"nothing is scheduled":               {repo.AppWatch{ObservedUntil: &until, MaxGap: gap(time.Minute)}, 0, 0},
	} {
		if got := openGap(tc.watch, tc.scheduled, now); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
