package e2e

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
)

// What must not appear in any output or row.
const (
	tencentKey   = "CANARY-TENCENT-KEY"
	openIMSecret = "CANARY-OPENIM-SECRET"
	hookToken    = "CANARY-HOOK-TOKEN"
	hookSecret   = "CANARY-HOOK-SECRET"
	hookClient   = "203.0.113.7" // the address of a user, in Tencent's hooks
)

// secrets finds those, the canary password of a database, what the simulator
// marks its answers with, UserSigs (zlib in base64) and tokens (JWT).
var secrets = regexp.MustCompile(`CANARY-(TENCENT-KEY|OPENIM-SECRET|HOOK-TOKEN|HOOK-SECRET|PASSWORD)|203\.0\.113\.7|SIM(TOKEN|CONN)|eJ[w-z][A-Za-z0-9*_%-]{20}|eyJ[A-Za-z0-9_-]{10}`)

const tablesSQL = `
SELECT format('SELECT t::text FROM %I.%I AS t', n.nspname, c.relname)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')`

// lookForSecrets looks through all output and every row of every table.
func (w *world) lookForSecrets() {
	w.ctx = context.WithoutCancel(w.ctx)
	patterns := []*regexp.Regexp{secrets}
	if u, err := url.Parse(w.dbURL); err == nil {
		if password, ok := u.User.Password(); ok && len(password) > 12 {
			patterns = append(patterns, regexp.MustCompile(regexp.QuoteMeta(password)))
		}
	}
	for _, pattern := range patterns {
		if found := pattern.FindStringIndex(w.output.String()); found != nil {
			w.t.Errorf("the output holds a secret: %s", w.output.String()[max(0, found[0]-200):found[1]])
		}
		for _, sql := range query(w, pgx.RowTo[string], tablesSQL) {
			for _, row := range query(w, pgx.RowTo[string], sql) {
				if pattern.MatchString(row) {
					w.t.Errorf("%s: the row %s holds a secret", sql, row)
				}
			}
		}
	}
}

// canaryDatabase makes a database that belongs to a role whose password is
// easily found, and returns its URL.
func canaryDatabase(t *testing.T) string {
	t.Helper()
	admin := pgtest.Database(t)
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	database := strings.TrimPrefix(u.Path, "/")
	role := "canary" + database[strings.LastIndex(database, "_"):]
	exec := func(statements ...string) {
		t.Helper()
		ctx := context.Background() // the test's has ended before its clean-up
		conn, err := pgx.Connect(ctx, admin)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'CANARY-PASSWORD'`, role),
		fmt.Sprintf(`GRANT ALL ON DATABASE %s TO %s`, database, role),
		fmt.Sprintf(`GRANT ALL ON SCHEMA public TO %s`, role))
	t.Cleanup(func() { exec("DROP OWNED BY "+role+" CASCADE", "DROP ROLE "+role) })
	u.User = url.UserPassword(role, "CANARY-PASSWORD")
	return u.String()
}

// TestSecrets: whatever goes wrong, no secret, signature or token is in what the
// program prints, at the level debug, or writes. The world looks for them when
// the test ends; here it is seen to it that there was occasion.
func TestSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{dbURL: canaryDatabase(t), users: 1200, change: 0.1, config: noJobs})
	w.run(exitDone, "migrate", "up")
	w.run(exitDone, "config", "check", "--connect")

	// Answers that are wrong in every way, and more than once.
	for _, f := range []imsim.Fault{
		{Kind: imsim.FaultStatus, Status: 502, Body: "<html>bad gateway</html>", Times: 2},
		{Kind: imsim.FaultTruncate, Times: 3},
		{Kind: imsim.FaultReset, Times: 2},
		{Kind: imsim.FaultWrongTypes, Times: 2},
		{Kind: imsim.FaultUnasked, IDs: []string{"stranger"}, Times: 2},
		{Kind: imsim.FaultPoison, IDs: []string{"u00042"}},
	} {
		if _, err := w.sim.AddFault(f); err != nil {
			t.Fatal(err)
		}
	}
	_, stderr := w.run(exitPartial, "backfill")
	wantText(t, stderr, " DBG ")
	w.wantSQL("true", `SELECT sum(retries) > 0 FROM syncer.sync_run`)
	w.wantSQL("true", `SELECT count(*) > 0 FROM syncer.user_failure WHERE user_id = 'u00042'`)
	w.sim.ClearFaults()

	// Signatures and tokens that the backend no longer takes.
	w.rounds.SetRound(1)
	w.sim.RevokeSignatures()
	w.sim.KickTokens()
	// Signatures are dated in seconds: one made in the same second would be void too.
	second := time.Now().Unix()
	w.eventually("the second is over", func() bool { return time.Now().Unix() > second })
	w.run(exitPartial, "backfill")
	for _, what := range []string{"4444", "wrong-CANARY-TENCENT-KEY"} {
		w.run(exitFailed, "SYNCER_APPS_MAIN_TENCENT_SECRET_KEY="+what, "SYNCER_APPS_CHAT_OPENIM_SECRET=wrong-CANARY-OPENIM-SECRET", "backfill")
	}
	w.wantSQL("8", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed' AND error <> ''`)

	// Nobody there: Go's errors hold the whole URL.
	gone := []string{"SYNCER_APPS_MAIN_TENCENT_BASE_URL=http://127.0.0.1:1", "SYNCER_APPS_CHAT_OPENIM_BASE_URL=http://127.0.0.1:1"}
	stdout, _ := w.run(exitFailed, append(gone, "config", "check", "--connect")...)
	wantText(t, stdout, "connection refused")
	w.run(exitDone, append(gone, "app", "moved", "chat")...)
	p := w.start(append(gone, "backfill", "--resume")...)
	p.said("failed; it will be retried")
	p.kill()

	// Databases that cannot be reached or read as a URL.
	for _, url := range []string{
		"postgres://x:CANARY-PASSWORD@127.0.0.1:1/app",
		"postgres://x:CANARY-PASSWORD@127.0.0.1:notaport/app",
		"postgres://x:CANARY-PASSWORD%zz@127.0.0.1:1/app",
		"host=127.0.0.1 port=1 user=x password=CANARY-PASSWORD",
		"host=127.0.0.1 port=1 user=x password='CANARY-PASSWORD",
		strings.Replace(w.dbURL, "CANARY-PASSWORD", "x-CANARY-PASSWORD", 1),
	} {
		for _, args := range [][]string{
			{"SYNCER_DATABASE_URL=" + url, "backfill"}, {"SYNCER_DATABASE_URL=" + url, "run"},
			{"SYNCER_DATABASE_URL=" + url, "migrate", "up"}, {"SYNCER_DATABASE_URL=" + url, "config", "check", "--connect"},
			{"SYNCER_USERS_URL=" + url, "backfill"}, {"SYNCER_USERS_URL=" + url, "config", "check", "--connect"},
		} {
			p := w.start(args...)
			<-p.gone
			if code := p.cmd.ProcessState.ExitCode(); code != exitFailed && code != exitUsage {
				t.Errorf("syncer %v ended with %d", args, code)
			}
		}
	}
}

// TestSecretsAreFound: the search for secrets would find them.
func TestSecretsAreFound(t *testing.T) {
	for _, text := range []string{
		"key " + tencentKey, openIMSecret, "postgres://x:CANARY-PASSWORD@host/db",
		`"token":"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.SIMTOKEN1"`, `"connID":"SIMCONN1"`,
		"?usersig=eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwlCOUmJKSmZxSYmSlVKxUi0AAAD__w",
	} {
		if !secrets.MatchString(text) {
			t.Errorf("the search misses %q", text)
		}
	}
	for _, text := range []string{"syncer-mwrlerjp-35n4yoocdxw8n", `"message":"running"`, "canary"} {
		if found := secrets.FindString(text); found != "" {
			t.Errorf("the search takes %q in %q for a secret", found, text)
		}
	}
}
