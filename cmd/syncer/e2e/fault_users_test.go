package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"syncer/internal/dev/pgtest"
)

// TestUsersDatabaseAway: the users of one app are in a database of their own,
// which goes away amid a sweep. The app's runs wait for it and name [users] url,
// without the password; the daemon is ready and its other app goes on.
func TestUsersDatabaseAway(t *testing.T) {
	t.Parallel()
	testUsersAway(t, (*proxy).refuse)
}

func testUsersAway(t *testing.T, away func(*proxy)) {
	f := oneDaemon(t, worldOptions{config: everySecond + othersEverySecond})
	other := pgtest.Database(t)
	users, err := pgxpool.New(f.ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(users.Close)
	if _, err := users.Exec(f.ctx, `CREATE TABLE public.users AS SELECT n AS id, 'u' || lpad(n::text, 5, '0') AS uid FROM generate_series(1, 2000) AS n`); err != nil {
		t.Fatal(err)
	}
	if _, err := users.Exec(f.ctx, `CREATE UNIQUE INDEX ON public.users (id)`); err != nil {
		t.Fatal(err)
	}
	proxy, url := through(t, other)
	f.env = append(f.env, "SYNCER_APPS_MAIN_USERS_URL="+url)
	p := f.atWork()
	spoken := p.spoken()
	away(proxy)
	f.eventually("the daemon says that the users are out of reach", func() bool {
		return strings.Contains(strings.TrimPrefix(p.spoken(), spoken), "no connection to the database that [users] url names")
	})
	others := f.text(othersSwept)
	f.waitSQL("true", `SELECT (`+othersSwept+`) > $1::bigint + 1`, others)
	if status, reason := f.get(p.admin() + "/readyz"); status != http.StatusOK {
		t.Errorf("it is not ready: %s", reason)
	}
	p.quiet(spoken, 20)
	proxy.lose(bothWays, 0)
	f.swept()
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.survived()
}

// othersEverySecond is a small job of the other app.
const othersEverySecond = `
[[jobs]]
name     = "others"
kind     = "accounts"
app      = "chat"
schedule = "@every 1s"
[apps.users]
where = "id <= 100"
`

const othersSwept = `SELECT count(*) FROM syncer.sync_run WHERE job = 'others' AND complete`
