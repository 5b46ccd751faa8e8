package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/internal/dev/pgcluster"
)

// TestPostgresFailover: the primary dies amid a sweep, for good, and its standby
// is promoted. A URL with both hosts leads to whichever takes writes: for the
// daemon's own tables, for notifications of new jobs, without which a sweep would
// take a minute, and for the users table.
// While there is no primary the daemon says so, also when it is to be started.
func TestPostgresFailover(t *testing.T) {
	t.Parallel()
	primary := server(t, nil)
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	promoted, err := pgxpool.New(t.Context(), standby.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(promoted.Close)
	f := oneDaemon(t, worldOptions{dbURL: primary.URL("postgres")})
	// Nothing is acknowledged that the standby does not have.
	f.exec(`ALTER SYSTEM SET synchronous_standby_names = '` + pgcluster.StandbyName + `'`)
	f.exec(`SELECT pg_reload_conf()`)
	both := bothHosts(t, primary.URL("postgres"), standby.URL("postgres"))
	f.write("database_url", both+"&target_session_attrs=read-write")
	f.env = append(f.env, "SYNCER_USERS_URL="+both)
	p := f.atWork()
	primary.StopServer(pgcluster.Immediate)
	f.unready(p, "read only connection")
	_, stderr := f.world.run(exitFailed, "run")
	wantText(t, stderr, "database postgres://", "cannot be used", "read only connection")
	f.write("database_url", standby.URL("postgres"))
	_, stderr = f.world.run(exitFailed, "run")
	wantText(t, stderr, `"message":"the database takes no writes: it is a standby; [database] url must lead to the primary`)

	// The live page only reads.
	pages := f.world.start("SYNCER_WEB_LISTEN=127.0.0.1:0", "SYNCER_WEB_USER_PAGES=true", "web")
	for _, target := range []string{"/", "/app/main", "/v1/presence?app=main&user=u00001"} {
		if status, text := f.world.page(pages.web()+target, ""); status != http.StatusOK || strings.Contains(text, "Postgres ") {
			t.Errorf("%s on a standby: status %d: %s", target, status, text)
		}
	}
	pages.stop()
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.db = promoted
	f.ready(p)
	f.swept()
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.wantSQL("true", `SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'syncer users'`)
	f.survived()
}

// bothHosts returns the URL of a database that is on either of two servers.
func bothHosts(t *testing.T, a, b string) string {
	t.Helper()
	first, err := url.Parse(a)
	if err != nil {
		t.Fatal(err)
	}
	second, err := url.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	first.Host += "," + second.Host
	return first.String()
}
