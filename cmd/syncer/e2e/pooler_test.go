//go:build pooler

package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

const runsSQL = `SELECT concat_ws(' ', status, users, removed) FROM syncer.sync_run ORDER BY run_id`

// TestPoolerFleet: two daemons and a backfill work through a PgBouncer that has
// fewer sessions than each of them has connections. One of them is killed amid its
// range, and PgBouncer is restarted amid a run.
func TestPoolerFleet(t *testing.T) {
	t.Parallel()
	const users, limit = 4000, 60
	f, b := pooled(t, fleetOptions{limit: limit, rate: 20, page: 100, worldOptions: worldOptions{users: users, config: noJobs}})
	f.grow(2)
	killed, other := f.processes[0], f.processes[1]
	f.backfill().wait(exitPartial)
	f.wantSQL("0", `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'`)

	f.change()
	f.exec(`DELETE FROM public.users WHERE id > 3950`) // who leaves goes to a temporary table
	run := f.backfill()
	f.holds(killed)
	killed.kill()
	run.wait(exitPartial)

	f.change()
	run = f.backfill()
	f.holds(other)
	b.stop()
	b.start()
	run.wait(exitPartial)
	f.processes = f.processes[1:]
	f.stop()
	want := []string{"partial 4000 0", "partial 3950 50", "partial 3950 0"}
	if diff := cmp.Diff(want, query(f.world, pgx.RowTo[string], runsSQL)); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	f.wantSQL("50", `SELECT count(*) FROM syncer.presence_history WHERE state = 'removed'`)
	f.exec(`DELETE FROM syncer.presence_history WHERE user_id > 'u03950'`) // whom truthful does not look for
	f.kept(limit)
	if other.pages() == 0 {
		t.Error("the daemon that lives wrote no page")
	}
}

// TestPoolerTicks: daemons without notifications do every tick all the same.
func TestPoolerTicks(t *testing.T) {
	t.Parallel()
	const limit = 80
	f, _ := pooled(t, fleetOptions{limit: limit, rate: 60, page: 100, worldOptions: worldOptions{users: 1000, config: everySecond}})
	f.grow(2)
	f.sweepOften(3)
	f.stop()
	f.finish()
	f.everyTick()
	f.kept(limit)
}

// TestPoolerFrozen: a process freezes while it writes a page. The session that it
// has at that time, and no other, is ended, and the range is not locked for longer
// than rescue_after.
func TestPoolerFrozen(t *testing.T) {
	t.Parallel()
	f, _ := pooled(t, frozenFleet)
	f.freezesWriting()
}

// TestPoolerReading: what reads and grants goes through PgBouncer again and again,
// whatever others left in its sessions.
func TestPoolerReading(t *testing.T) {
	t.Parallel()
	f, _ := pooled(t, fleetOptions{limit: 100, rate: 75, page: 100, worldOptions: worldOptions{users: 500, config: noJobs}})
	f.backfill().wait(exitPartial)
	f.exec(`CREATE ROLE pooler_reader`)
	t.Cleanup(func() { f.exec(`DROP OWNED BY pooler_reader; DROP ROLE pooler_reader`) })
	for _, args := range [][]string{
		{"report", "all", "--format", "json"}, {"runs"}, {"runs", "show", "1"}, {"explain", "--app", "main", "u00001"},
		{"grant-reader", "pooler_reader"}, {"config", "check", "--connect"},
	} {
		for range 2 * poolSize {
			if stdout, _ := f.run(exitDone, args...); stdout == "" {
				t.Errorf("syncer %v says nothing", args)
			}
		}
	}
}

// TestPoolerUsers: a users table behind a PgBouncer, tables that are not.
func TestPoolerUsers(t *testing.T) {
	t.Parallel()
	const limit = 100
	f := newFleet(t, fleetOptions{limit: limit, rate: 75, page: 100, worldOptions: worldOptions{users: 1000, config: noJobs}})
	f.env = append(f.env, "SYNCER_USERS_URL="+f.bounce("").url)
	f.backfill().wait(exitPartial)
	f.change()
	f.exec(`DELETE FROM public.users WHERE id > 900`)
	f.backfill().wait(exitPartial)
	want := []string{"partial 1000 0", "partial 900 99"} // the backend does not know one of the 100
	if diff := cmp.Diff(want, query(f.world, pgx.RowTo[string], runsSQL)); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	f.exec(`DELETE FROM syncer.presence_history WHERE user_id > 'u00900'`) // whom truthful does not look for
	f.kept(limit)
}

// TestPoolerUndeclared: an undeclared pooler is reported with the setting, also
// where the pooler swallows what it does not know; and migrations do not begin.
func TestPoolerUndeclared(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{
		"refuses": "",
		"ignores": "ignore_startup_parameters = search_path,syncer.poll_only,syncer.migrate,idle_in_transaction_session_timeout," +
			"tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,tcp_user_timeout",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{users: 10, config: noJobs})
			b := w.bounce(settings)
			pooled := "SYNCER_DATABASE_URL_FILE=" + w.dir + "/pooled_url"
			w.write("pooled_url", b.url)
			_, stderr := w.run(exitFailed, pooled, "migrate", "up")
			wantText(t, stderr, "a connection pooler is between here and the database, but migrations need Postgres itself: give its address with SYNCER_DATABASE_URL")
			w.wantSQL("0", `SELECT count(*) FROM pg_namespace WHERE nspname = 'syncer'`)
			w.wantSQL("0", `SELECT count(*) FROM pg_class WHERE relname = 'syncer_migration'`)
			w.run(exitDone, "migrate", "up")
			for _, args := range [][]string{{"run"}, {"backfill"}, {"runs"}, {"report", "runs"}, {"config", "check", "--connect"}} {
				stdout, stderr := w.run(exitFailed, append([]string{pooled}, args...)...)
				if want := "set [database] poll_only = true"; !strings.Contains(stdout+stderr, want) {
					t.Errorf("syncer %v does not say %q:\n%s%s", args, want, stdout, stderr)
				}
			}
			w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run`)
		})
	}
}
