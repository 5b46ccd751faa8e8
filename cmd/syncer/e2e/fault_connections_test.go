package e2e

import (
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestTooManyConnections: others have used up the connections, at the start and
// amid a sweep. The daemon says so, and goes on when there are some again.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	f := oneDaemon(t, worldOptions{})
	// The role may have as few connections as others leave; its rights do not matter.
	role := f.newRole()
	const password = "of-the-limited-role"
	limit := func(connections string) {
		f.exec(`ALTER ROLE ` + pgx.Identifier{role}.Sanitize() + ` LOGIN CONNECTION LIMIT ` + connections + ` PASSWORD '` + password + `'`)
	}
	u, err := url.Parse(f.dbURL)
	if err != nil {
		t.Fatal(err)
	}
	owner := u.User.Username()
	if u, err = url.Parse(f.withParameter("role", owner)); err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, password)
	f.exec(`GRANT ` + pgx.Identifier{owner}.Sanitize() + ` TO ` + pgx.Identifier{role}.Sanitize())
	f.write("database_url", u.String())

	limit("0")
	_, stderr := f.world.run(exitFailed, "run")
	wantText(t, stderr, "database postgres://", "cannot be used", "too many connections for role", "SQLSTATE 53300")
	limit("20")
	p := f.atWork()
	spoken := p.spoken()
	limit("0")
	f.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1`, role)
	f.unready(p, "too many connections for role")
	limit("20")
	f.ready(p)
	f.swept()
	p.quiet(spoken, 20)
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.survived()
}
