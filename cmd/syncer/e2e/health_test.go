package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"syncer/internal/dev/pgcluster"
	"syncer/internal/imsim"
)

// get asks a daemon for its health or readiness.
func (w *world) get(url string) (status int, body string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, soon)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestDatabaseRestart: while the database is gone a daemon is alive but not
// ready; when it is back, the daemon goes on by itself.
func TestDatabaseRestart(t *testing.T) {
	t.Parallel()
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, worldOptions{dbURL: cluster.URL("postgres"), users: 3000, config: fmt.Sprintf(ticking, "1s", false)})
	w.run(exitDone, "migrate", "up")
	p := w.daemon("SYNCER_SWEEP_PAGE_USERS=100")
	ready := func(want int) func() bool {
		return func() bool { status, _ := w.get(p.admin() + "/readyz"); return status == want }
	}
	w.eventually("it is ready", ready(http.StatusOK))
	w.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE status = 'succeeded'`)

	cluster.StopServer(pgcluster.Immediate)
	w.eventually("it is not ready", ready(http.StatusServiceUnavailable))
	if status, body := w.get(p.admin() + "/healthz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz without the database: %d %s", status, body)
	}
	p.said("it will be tried again")
	if err := cluster.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is ready again", ready(http.StatusOK))
	w.db.Reset()
	w.waitSQL("true", `SELECT count(*) > 1 FROM syncer.sync_run WHERE status = 'succeeded' AND started_at > pg_postmaster_start_time()`)
	p.stop()
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status NOT IN ('succeeded', 'skipped', 'running')`)
	w.wantSQL("0", `SELECT count(*) FROM (SELECT FROM syncer.presence_history GROUP BY user_id HAVING count(*) > 1) AS twice`)
}

// TestPortTaken: a daemon that cannot serve says so, and ends.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{config: noJobs})
	w.run(exitDone, "migrate", "up")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, stderr := w.run(exitFailed, "SYNCER_HTTP_LISTEN="+l.Addr().String(), "run")
	wantText(t, stderr, `"message":"listen for health, readiness and metrics: `, "address already in use", `\ncheck [http] listen (\"\" turns it off)"}`)
	w.daemon("SYNCER_HTTP_LISTEN=").stop()
}

// TestMetrics: a daemon's counters are there from the start, for each app.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 500, config: fmt.Sprintf(ticking, "1s", false)})
	w.run(exitDone, "migrate", "up")
	p := w.daemon("SYNCER_SWEEP_COLLAPSE_DELAY=100ms")
	w.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE status = 'succeeded'`)
	status, body := w.get(p.admin() + "/metrics")
	wantText(t, body, "go_goroutines ", "\nsyncer_build_info{goversion=\"go", "process_resident_memory_bytes ",
		"\nsyncer_suspect_pages_total{app=\"chat\"} 0\n", "\nsyncer_suspect_pages_total{app=\"main\"} 0\n",
		"\nsyncer_contradicted_users_total{app=\"chat\"} 0\n", "\nsyncer_contradicted_users_total{app=\"main\"} 0\n")
	if status != http.StatusOK {
		t.Errorf("/metrics: %d", status)
	}
	wantText(t, body, "\nsyncer_ready 1\n", "\nsyncer_state_known 1\n", "\nsyncer_users{app=\"", "\nsyncer_api_calls_total{api=\"",
		"\nsyncer_last_success_timestamp_seconds{app=\"", "\nsyncer_schedule_interval_seconds{app=\"", "\nsyncer_quota_limit_calls_per_second{app=\"")
	if id := regexp.MustCompile(`u0\d{4}`).FindString(body); id != "" {
		t.Errorf("/metrics holds the user id %s", id)
	}
	if _, err := w.sim.AddFault(imsim.Fault{Kind: imsim.FaultOffline, Path: imsim.PathOpenIMPresence}); err != nil {
		t.Fatal(err)
	}
	w.eventually("users were contradicted", func() bool {
		_, body := w.get(p.admin() + "/metrics")
		return !strings.Contains(body, "\nsyncer_contradicted_users_total{app=\"chat\"} 0\n")
	})
	w.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE status = 'partial' AND complete AND failed > 0`)
}
