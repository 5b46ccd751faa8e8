package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// edit replaces lines of the configuration: old, new, old, new, …
func (w *world) edit(pairs ...string) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, "config.toml"))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			w.t.Fatalf("the configuration lacks %q", pairs[i])
		}
	}
	w.write("config.toml", strings.NewReplacer(pairs...).Replace(string(text)))
}

// TestReload: amid a run, SIGHUP changes rate, schedule and level; nothing is
// asked or written twice, or left out. A configuration with a mistake changes
// nothing, and what needs a restart is named.
func TestReload(t *testing.T) {
	t.Parallel()
	const limit = 200
	w := newWorld(t, worldOptions{users: slowUsers, limits: imsim.Tencent{PresenceRate: limit}, config: fmt.Sprintf(ticking, "7200h", true)})
	slow := `secret   = "` + openIMSecret + `"`
	w.edit(slow, slow+"\npresence_rate = 1", "page_users   = 500", "page_users   = 100")
	w.run(exitDone, "migrate", "up")
	p := w.daemon()
	w.begun()

	w.edit("presence_rate = 1\n", "presence_rate = 180\n", "@every 7200h", "@every 1s", `level = "debug"`, `level = "info"`)
	p.signal(syscall.SIGHUP)
	p.said(`"changed":["log.level","apps.chat.openim.presence_rate","jobs.presence.schedule"],`)
	w.waitSQL("succeeded 5000 5000 catch_up", `SELECT concat_ws(' ', status, users, changed, trigger) FROM syncer.sync_run ORDER BY run_id LIMIT 1`)
	w.wantSQL("180", `SELECT rate FROM syncer.api_quota JOIN syncer.app USING (app_id) WHERE name = 'chat' AND api = 'presence'`)
	const ticks = `SELECT count(*) >= $1 FROM syncer.sync_run WHERE trigger = 'cron' AND status = 'succeeded'`
	w.waitSQL("true", ticks, 2)

	w.edit("@every 1s", "@every never")
	p.signal(syscall.SIGHUP)
	p.said("the configuration is not reloaded; the previous one stays in force")
	before := query(w, pgx.RowTo[int64], `SELECT count(*) FROM syncer.sync_run WHERE status = 'succeeded'`)[0]
	w.waitSQL("true", ticks, before+2)

	w.edit("@every never", "@every 1s", "[log]", "max_conns = 9\n[log]", "[sweep]", moreApp+"[sweep]")
	p.signal(syscall.SIGHUP)
	p.said(`"settings":["database.max_conns","apps.more"],"time"`)
	p.said(`"changed":[],`)

	// Another deployment under an app's name is refused; nothing else changes either.
	elsewhere := strings.Replace(w.simURL, "127.0.0.1", "localhost", 1)
	w.edit(w.simURL, elsewhere, `level = "info"`, `level = "debug"`)
	p.signal(syscall.SIGHUP)
	p.said("and is at " + elsewhere + " in the configuration now")
	w.edit(elsewhere, w.simURL, `level = "debug"`, `level = "info"`)

	// A job that is no longer there is named: its ticks stop.
	w.edit("[[jobs]]\nname     = \"presence\"", "[[jobs]]\nname     = \"other\"")
	p.signal(syscall.SIGHUP)
	p.said(`"job":"presence","time"`)
	p.said(`"changed":["jobs.presence","jobs.other"],`)
	p.stop()

	log := p.stderr.String()
	for text, want := range map[string]int{
		"the configuration is not reloaded": 2, `jobs[0].schedule`: 1, "need a restart": 2, // at each reload after the change
		"the job is removed: the configuration no longer has it, and its ticks stop": 1,
	} {
		if n := strings.Count(log, text); n != want {
			t.Errorf("the log says %d times %q, want %d", n, text, want)
		}
	}
	if _, later, _ := strings.Cut(log, "not reloaded"); strings.Contains(later, `"level":"debug"`) {
		t.Errorf("at level info the log has lines for debugging:\n%s", later)
	}
	w.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status IN ('failed', 'partial', 'cancelled')`)
	w.wantSQL("5000", `SELECT count(*) FROM syncer.presence_history`)
	w.wantSQL("1", `SELECT count(DISTINCT app_id) FROM syncer.sync_run`)
	stats := w.sim.Stats().APIs[imsim.PathOpenIMPresence]
	if stats.MaxPerSecond > limit || stats.RateLimited > 0 {
		t.Errorf("the presence API saw %+v, the limit is %d", stats, limit)
	}
}

const moreApp = `[[apps]]
name     = "more"
provider = "openim"
[apps.openim]
base_url = "http://127.0.0.1:1"
secret   = "none"
`
