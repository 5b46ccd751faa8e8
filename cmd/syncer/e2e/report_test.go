package e2e

import (
	"crypto/rand"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// seeded is a world with the history of testdata/report.sql, that is read as of
// its end.
func seeded(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, worldOptions{})
	w.run(exitDone, "migrate", "up")
	w.seed("report.sql")
	w.write("database_url", w.withParameter("syncer.as_of", "2026-10-27T00:00:00Z"))
	return w
}

// withParameter is the database's URL with a setting of the session in it.
func (w *world) withParameter(name, value string) string {
	w.t.Helper()
	u, err := url.Parse(w.dbURL)
	if err != nil {
		w.t.Fatal(err)
	}
	query := u.Query()
	query.Set(name, value)
	u.RawQuery = query.Encode()
	return u.String()
}

// TestReportStops checks that a signal ends each report while its statement runs, and the
// statement with it.
func TestReportStops(t *testing.T) {
	w := seeded(t)
	tx, err := w.db.Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(w.ctx, "LOCK TABLE syncer.app, syncer.sync_run, syncer.presence_history IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(w.ctx) })
	const waiting = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'syncer report' AND wait_event_type = 'Lock'`
	var all []*process
	for _, name := range reportNames {
		all = append(all, w.start("report", name))
	}
	w.waitSQL(strconv.Itoa(len(all)), waiting)
	for i, p := range all {
		p.signal([]syscall.Signal{syscall.SIGINT, syscall.SIGTERM}[i%2])
	}
	for _, p := range all {
		stdout, stderr := p.wait(exitFailed)
		if diff := cmp.Diff("syncer: stopped\n", stdout+stderr); diff != "" {
			t.Errorf("%v prints (-want +got):\n%s", p.args, diff)
		}
	}
	w.waitSQL("0", waiting) // the queries have ended too, though the tables are still locked
}

// newRole makes a role without rights, whose name wants quoting.
func (w *world) newRole() string {
	w.t.Helper()
	role := `Reader"` + strings.ToLower(rand.Text()[:10])
	quoted := pgx.Identifier{role}.Sanitize()
	w.exec("CREATE ROLE " + quoted)
	w.t.Cleanup(func() {
		w.exec("DROP OWNED BY " + quoted)
		w.exec("DROP ROLE " + quoted)
	})
	return role
}

// TestReader holds that the error of a role without any right names those it lacks, that
// grant-reader grants them, all that reports and their readers need, and none
// to write or to see the queue.
func TestReader(t *testing.T) {
	w := seeded(t)
	role := w.newRole()
	owner := w.withParameter("syncer.as_of", "2026-10-27T00:00:00Z")
	reader := owner + "&role=" + url.QueryEscape(role)
	asReader := "SYNCER_DATABASE_URL=" + reader
	w.write("config.toml", "[[apps]]\nname = \"main\"\n")

	_, stderr := w.run(exitFailed, asReader, "report", "runs")
	if !strings.Contains(stderr, "permission denied for schema syncer") || !strings.Contains(stderr, "\tsyncer grant-reader "+role+"\n") {
		t.Errorf("refused with: %s", stderr)
	}
	for range 2 { // again changes nothing
		stdout, _ := w.run(exitDone, "SYNCER_DATABASE_URL="+owner, "grant-reader", "--tune", role)
		if want := "for its next sessions: ALTER ROLE "; !strings.Contains(stdout, want) {
			t.Errorf("grant-reader --tune says: %s", stdout)
		}
	}
	const settingsSQL = `SELECT unnest(s.setconfig) FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase
WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = $1) AND d.datname = current_database() ORDER BY 1`
	if diff := cmp.Diff([]string{"jit=off", "work_mem=64MB"}, query(w, pgx.RowTo[string], settingsSQL, role)); diff != "" {
		t.Errorf("settings of the role (-want +got):\n%s", diff)
	}
	for _, name := range reportNames {
		args := []string{"report", name, "--format", "json"}
		want, _ := w.run(exitDone, append([]string{"SYNCER_DATABASE_URL=" + owner}, args...)...)
		got, _ := w.run(exitDone, append([]string{asReader}, args...)...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s as owner (-) and as reader (+):\n%s", name, diff)
		}
	}
	w.run(exitDone, asReader, "runs")
	w.run(exitDone, asReader, "runs", "show", "1")
	_, stderr = w.run(exitFailed, asReader, "grant-reader", w.newRole())
	if !strings.Contains(stderr, "only the owner of schema syncer may grant this") {
		t.Errorf("granting as reader says: %s", stderr)
	}

	wantReader(w, reader, role)
}

// wantReader checks the privileges of a role that grant-reader has granted, which connects
// with url.
func wantReader(w *world, url, role string) {
	t := w.t
	t.Helper()
	conn, err := pgx.Connect(w.ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(w.ctx)
	relations := func(sql string) []string {
		t.Helper()
		return query(w, pgx.RowTo[string], sql, role)
	}
	// What there is to read, in the schema itself and in what it is made of.
	for _, name := range relations(`SELECT relname::text FROM pg_class WHERE relnamespace = 'syncer'::regnamespace AND relkind = 'v' AND has_table_privilege($1, oid, 'SELECT') ORDER BY 1`) {
		if _, err := conn.Exec(w.ctx, "SELECT * FROM syncer."+name); err != nil {
			t.Errorf("view %s: %v", name, err)
		}
	}
	for _, call := range []string{
		"presence_daily('2026-10-24', '2026-10-26', 'UTC')", "presence_platform_daily('2026-10-24', '2026-10-26', 'UTC')", "app_named('main')", "active_users('2026-10-24', '2026-10-26', 'Europe/Berlin')",
	} {
		if _, err := conn.Exec(w.ctx, "SELECT * FROM syncer."+call); err != nil {
			t.Errorf("function %s: %v", call, err)
		}
	}
	writable := relations(`
SELECT relname::text
FROM pg_class
WHERE relnamespace = 'syncer'::regnamespace AND relkind IN ('r', 'p', 'v')
  AND (has_table_privilege($1, oid, 'INSERT') OR has_table_privilege($1, oid, 'UPDATE') OR has_table_privilege($1, oid, 'DELETE') OR has_table_privilege($1, oid, 'TRUNCATE'))`)
	if len(writable) > 0 {
		t.Errorf("a reader may write %v", writable)
	}
	private := relations(`
SELECT relname::text
FROM pg_class
WHERE relnamespace = 'syncer'::regnamespace AND has_table_privilege($1, oid, 'SELECT')
  AND relname LIKE 'river%' AND relkind IN ('r', 'p')`)
	if len(private) > 0 {
		t.Errorf("a reader may read %v", private)
	}
	unreadable := relations(`
SELECT relname::text
FROM pg_class
WHERE relnamespace = 'syncer'::regnamespace AND relkind = 'v' AND NOT has_table_privilege($1, oid, 'SELECT')`)
	if len(unreadable) > 0 {
		t.Errorf("a reader may not read %v", unreadable)
	}
	if _, err := conn.Exec(w.ctx, "CREATE TABLE syncer.mine (n int)"); err == nil {
		t.Error("a reader may create tables")
	}
}
