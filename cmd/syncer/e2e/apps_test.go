package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// deadBackend returns the address of a backend that takes calls and never answers,
// or one without a listener.
func (w *world) deadBackend(hangs bool) string {
	w.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	if !hangs {
		if err := listener.Close(); err != nil {
			w.t.Fatal(err)
		}
		return "http://" + listener.Addr().String()
	}
	closed := make(chan struct{})
	w.t.Cleanup(func() {
		_ = listener.Close() // ends the loop below
		<-closed
	})
	go func() {
		defer close(closed)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }() // until the caller hangs up
		}
	}()
	return "http://" + listener.Addr().String()
}

// someApps is the configuration of more apps of the simulated Tencent, or of
// another address.
func (w *world) someApps(prefix, baseURL string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[[apps]]\nname = \"%s%d\"\nprovider = \"tencent\"\n[apps.tencent]\nsdk_app_id = 1400000001\nbase_url = %q\nsecret_key = %q\n",
			prefix, i, baseURL, tencentKey)
	}
	return b.String()
}

// addConfig appends to the configuration.
func (w *world) addConfig(text string) {
	w.t.Helper()
	before, err := os.ReadFile(filepath.Join(w.dir, "config.toml"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("config.toml", string(before)+text)
}

// TestApps_outage: while the backends of some apps do not answer, or are not
// there, the runs of all other apps come and go, although there are far fewer
// connections to the database than calls that hang.
func TestApps_outage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{users: 1200})
	w.rounds.UnknownShare = 0
	const apps = 4
	more := w.someApps("live", w.simURL, apps) + w.someApps("hangs", w.deadBackend(true), apps) + w.someApps("refuses", w.deadBackend(false), apps) +
		"[[jobs]]\nname = \"presence\"\nkind = \"presence\"\nschedule = \"@every 2s\"\n"
	w.addConfig(more)
	w.run(exitDone, "migrate", "up")
	w.daemon("SYNCER_DATABASE_MAX_CONNS=2")
	const doneSQL = `
SELECT count(*) FROM (
    SELECT FROM syncer.sync_run JOIN syncer.app USING (app_id)
    WHERE name LIKE 'live%' AND status = 'succeeded' AND users = 1200
    GROUP BY app_id
    HAVING count(*) >= 3
) AS apps`
	w.waitSQL(fmt.Sprint(apps), doneSQL)
	// By then the others are still in their first runs.
	const runsSQL = `
SELECT rtrim(name, '0123456789') || ': ' || status || ', ' || count(DISTINCT name) || ' apps, ' || sum(users) || ' users'
FROM syncer.sync_run JOIN syncer.app USING (app_id)
WHERE (name LIKE 'hangs%' OR name LIKE 'refuses%') AND status <> 'skipped' OR status IN ('failed', 'partial', 'cancelled')
GROUP BY rtrim(name, '0123456789'), status
ORDER BY 1`
	want := []string{"hangs: running, 4 apps, 0 users", "refuses: running, 4 apps, 0 users"}
	if diff := cmp.Diff(want, query(w, pgx.RowTo[string], runsSQL)); diff != "" {
		t.Errorf("runs that did not go through (-want +got):\n%s", diff)
	}
}
