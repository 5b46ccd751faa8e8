package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"syncer/internal/dev/pgcluster"
)

// server starts a Postgres server of the test's own, that loses nothing it has
// committed.
func server(t testing.TB, settings map[string]string) *pgcluster.Cluster {
	t.Helper()
	all := map[string]string{"synchronous_commit": "on", "max_connections": "60", "shared_buffers": "32MB"}
	for name, value := range settings {
		all[name] = value
	}
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{Settings: all})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster
}

// oneDaemon is a fleet of one daemon with a tick a second, whose sweeps take about
// a second.
func oneDaemon(t *testing.T, o worldOptions) *fleet {
	t.Helper()
	o.users = 2000
	if o.config == "" {
		o.config = everySecond
	}
	f := newFleet(t, fleetOptions{limit: 40, rate: 25, page: 100, worldOptions: o})
	t.Cleanup(func() {
		for _, p := range f.processes {
			if t.Failed() {
				t.Log(p.spoken())
			}
		}
	})
	return f
}

// amid waits until a sweep is going that has begun to write and is not through,
// in the middle of its calls and pages.
func (f *fleet) amid() {
	f.t.Helper()
	f.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run AS u JOIN syncer.app USING (app_id) WHERE status = 'running' AND name = 'main'
		AND (SELECT sum(users) BETWEEN 300 AND 1700 FROM syncer.sync_range AS r WHERE r.run_id = u.run_id)`)
}

// atWork starts a daemon, lets it sweep once, and users change, and returns it when it
// is in the middle of the next sweep.
func (f *fleet) atWork() *process {
	f.t.Helper()
	f.grow(1)
	f.swept()
	f.change()
	f.amid()
	return f.processes[0]
}

// swept waits until a sweep that began after this call has gone through.
func (f *fleet) swept() {
	f.t.Helper()
	last := f.text(`SELECT coalesce(max(run_id), 0) FROM syncer.sync_run`)
	f.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run JOIN syncer.app USING (app_id)
		WHERE run_id > $1 AND status IN ('succeeded', 'partial') AND name = 'main'`, last)
}

// ready waits until a daemon says that it is ready.
func (f *fleet) ready(p *process) {
	f.t.Helper()
	f.eventually("it is ready", func() bool {
		status, _ := f.get(p.admin() + "/readyz")
		return status == http.StatusOK
	})
}

// unready waits until a daemon says that it is not ready, and why. It lives on.
func (f *fleet) unready(p *process, why string) {
	f.t.Helper()
	f.eventually("it is not ready: "+why, func() bool {
		status, reason := f.get(p.admin() + "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(reason, why)
	})
	if status, body := f.get(p.admin() + "/healthz"); status != http.StatusOK {
		f.t.Errorf("/healthz: %d %s", status, body)
	}
}

// spoken is what a process has warned of, or worse.
func (p *process) spoken() string {
	var b strings.Builder
	for line := range strings.Lines(p.stderr.String()) {
		if !strings.Contains(line, `"level":"debug"`) && !strings.Contains(line, `"level":"info"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// quiet checks that a process has warned of no more than so many things after what
// it had before.
func (p *process) quiet(before string, most int) {
	p.world.t.Helper()
	after := strings.TrimPrefix(p.spoken(), before)
	if n := strings.Count(after, "\n"); n > most {
		p.world.t.Errorf("%d warnings, want no more than %d:\n%s", n, most, after)
	}
}

// survived stops the daemons, lets the last run end, and checks that what is
// stored is what was served, that no run is left and that nothing panicked.
func (f *fleet) survived() {
	f.t.Helper()
	f.stop()
	f.finish()
	for _, p := range f.processes {
		if strings.Contains(p.stderr.String(), "panic") {
			f.t.Errorf("a panic:\n%s", p.stderr.String())
		}
	}
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'running' OR status = 'failed' AND error IS NULL`)
	f.kept(40)
}

// TestPostgresRestarts: the server is restarted amid sweeps, as if it had crashed
// and in good order, and stays away for some seconds.
func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	testRestarts(t, pgcluster.Immediate)
}

func testRestarts(t *testing.T, modes ...pgcluster.StopMode) {
	cluster := server(t, nil)
	f := oneDaemon(t, worldOptions{dbURL: cluster.URL("postgres"), patience: time.Duration(len(modes)) * patience})
	f.grow(1)
	p := f.processes[0]
	f.swept()
	for _, mode := range modes {
		f.change()
		f.amid()
		if err := cluster.Restart(t.Context(), mode); err != nil {
			t.Fatal(err)
		}
		f.db.Reset()
		f.swept()
	}
	f.change()
	f.amid()
	cluster.StopServer(pgcluster.Fast)
	spoken, away := p.spoken(), time.Now()
	f.unready(p, "connection refused")
	f.eventually("it has been away for 5 s", func() bool { return time.Since(away) > 5*time.Second })
	p.quiet(spoken, 1)
	if err := cluster.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.db.Reset()
	f.ready(p)
	f.swept()
	f.eventually("the end of the outage is logged", func() bool {
		begun := strings.Count(p.stderr.String(), "no connection to the database; work waits until it answers")
		return begun > 0 && strings.Count(p.stderr.String(), "the database answers again") == begun
	})
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.survived()
}

// TestPostgresSilent: what the database says is lost.
func TestPostgresSilent(t *testing.T) {
	t.Parallel()
	testSilent(t, worldOptions{}, toClient)
}

// testSilent loses, without a word, what goes over the connections there are,
// amid a sweep; new ones are good. Every wait for an answer that never comes has an
// end, and the sweep goes on.
func testSilent(t *testing.T, o worldOptions, lost direction) {
	f := oneDaemon(t, o)
	proxy, url := through(t, f.dbURL)
	f.write("database_url", url)
	p := f.atWork()
	spoken := p.spoken()
	proxy.lose(lost, 0)
	f.swept()
	f.ready(p)
	p.quiet(spoken, 25)
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.survived()
}
