package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	kills = flag.Int("kills", 5, "how many processes TestChaos kills")
	seed  = flag.Uint64("seed", 0, "what TestChaos does, and when; 0: another thing each time")
)

// chaos kills the processes of a fleet, at moments of its choice.
type chaos struct {
	*fleet
	*rand.Rand
	env      []string
	all      []*process // that were ever started
	backfill *process   // the newest one; nil: none yet
	killed   map[string]int
	swept    string // the newest run when users changed last
}

// TestChaos: two daemons, and now and then a backfill, sweep users who keep
// changing. Again and again one of them is killed, wherever it is, and another one
// started. No transition is lost or doubled, all runs end by themselves, the limit
// is kept, and nothing is left behind. `make chaos` does so a hundred times.
func TestChaos(t *testing.T) {
	t.Parallel()
	const users, limit = 2000, 60
	chosen := *seed
	if chosen == 0 {
		chosen = rand.Uint64()
	}
	t.Logf("-seed %d", chosen)
	f := newFleet(t, fleetOptions{limit: limit, rate: 40, page: 100, worldOptions: worldOptions{
		users: users, config: everySecond, patience: patience + time.Duration(*kills)*killTime,
	}})
	c := &chaos{fleet: f, Rand: rand.New(rand.NewPCG(chosen, 0)), env: f.env, killed: make(map[string]int), swept: "0"}
	begun := time.Now()
	for range 2 {
		f.processes = append(f.processes, c.begin("run"))
	}
	c.eventually("the first sweep is over", func() bool { return c.text(sweeps) != "0" })
	most := time.Duration(*kills) * killTime
	for c.count() < *kills && time.Since(begun) < most {
		c.mayBackfill()
		c.pass(killTime / 3)
		strike := c.strikes()[c.IntN(len(c.strikes()))]
		if strike.strike() {
			c.killed[strike.when]++
		}
	}
	c.settle()
	c.t.Logf("%d kills in %s: %v; at last all at once", c.count(), time.Since(begun).Round(time.Second), c.killed)
	c.t.Logf("runs: %v", query(f.world, pgx.RowTo[string], `SELECT count(*) || ' ' || trigger || ' ' || status FROM syncer.sync_run GROUP BY trigger, status ORDER BY 1`))
	pages, taken := c.worked()
	c.t.Logf("%d changes of users, %d pages written, %d ranges or plans taken over, at most %d calls in a second of the %d allowed, by %d processes",
		len(f.changes), pages, taken, f.presenceStats().MaxPerSecond, limit, len(c.all))
	f.kept(limit)
	c.nothingLeft(users)
}

// killTime is what one kill may take, all in all: on a busy machine there are fewer,
// not later ones.
const killTime = 5 * time.Second

// reach is how long is waited for a process to come to where it is to be killed.
const reach = 5 * time.Second

// strike is a moment at which a process can be killed.
type strike struct {
	when string
	// strike kills a process at that moment, and reports whether it could.
	strike func() bool
}

func (c *chaos) strikes() []strike {
	return []strike{
		{"at any time", c.anyTime},
		{"starting up", c.startingUp},
		{"planning", func() bool {
			c.within(func() bool { return c.text(running) == "0" })
			return c.amid("sync_range", "SHARE", "%INSERT INTO syncer.sync_range%")
		}},
		{"calling", c.calling},
		{"writing a page", func() bool { return c.amid("presence_snapshot", "SHARE", "%UPDATE syncer.presence_snapshot%") }},
		{"closing a run", func() bool { return c.amid("presence_count", "SHARE", "%presence_count%") }},
		{"maintaining", func() bool {
			c.begin("run")
			return c.amid("presence_rollup", "ACCESS EXCLUSIVE", "%roll_up_presence%")
		}},
		{"stopping", c.stopping},
	}
}

const running = `SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`

// begin starts a process, and does not wait for it to work.
func (c *chaos) begin(args ...string) *process {
	c.t.Helper()
	p := c.start(append(slices.Clone(c.env), args...)...)
	c.all = append(c.all, p)
	return p
}

// mayBackfill starts a backfill now and then, unless one is going.
func (c *chaos) mayBackfill() {
	if c.IntN(6) > 0 || c.backfill != nil && c.backfill.lives() {
		return
	}
	c.backfill = c.begin("backfill", "--app", "main", "--job", "presence", "--json")
}

// lives reports whether the process has not ended yet.
func (p *process) lives() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// living are the processes that have not ended.
func (c *chaos) living() (living []*process) {
	for _, p := range c.all {
		if p.lives() {
			living = append(living, p)
		}
	}
	return living
}

// tend is done all the time: users change when a sweep that began after their
// last change is over. So all that was served must be written, whichever process is killed.
func (c *chaos) tend() {
	c.t.Helper()
	if c.text(sweeps+` AND run_id > $1`, c.swept) != "0" {
		c.change()
		c.swept = c.text(`SELECT max(run_id)::text FROM syncer.sync_run`)
	}
	for i, p := range c.processes {
		if p.lives() {
			continue
		}
		if p.cmd.ProcessState.ExitCode() > 0 {
			c.t.Fatalf("a daemon ended by itself\n%s", p.stderr.String())
		}
		c.processes[i] = c.begin("run")
	}
}

// within tends until ok reports true, for as long as a process may take to come to
// where it is waited for.
func (c *chaos) within(ok func() bool) (was bool) {
	c.t.Helper()
	late := time.Now().Add(reach)
	c.eventually("a process comes to where it is waited for", func() bool {
		c.tend()
		was = ok()
		return was || time.Now().After(late)
	})
	return was
}

// pass lets a time pass that is up to d.
func (c *chaos) pass(d time.Duration) {
	c.t.Helper()
	until := time.Now().Add(c.upTo(d))
	c.eventually("the time has passed", func() bool {
		c.tend()
		return time.Now().After(until)
	})
}

func (c *chaos) upTo(d time.Duration) time.Duration { return time.Duration(c.Int64N(int64(d))) }

// kill kills a process, and reports whether it was still there.
func (c *chaos) kill(p *process) bool {
	_ = p.cmd.Process.Kill() // fails when it has just ended
	<-p.gone
	return p.cmd.ProcessState.ExitCode() == -1
}

// count is how many were killed.
func (c *chaos) count() (n int) {
	for times := range maps.Values(c.killed) {
		n += times
	}
	return n
}

func (c *chaos) anyTime() bool {
	living := c.living()
	return len(living) > 0 && c.kill(living[c.IntN(len(living))])
}

// startingUp kills a daemon while it starts, or just after.
func (c *chaos) startingUp() bool {
	p := c.begin("run")
	const start = time.Second
	after := time.NewTimer(c.upTo(start))
	defer after.Stop()
	<-after.C
	return c.kill(p)
}

// stopping kills a stopping process that has pages in flight.
func (c *chaos) stopping() bool {
	p := c.sweeping()
	if p == nil {
		return false
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has just ended
	const stop = 50 * time.Millisecond
	after := time.NewTimer(c.upTo(stop))
	defer after.Stop()
	select {
	case <-after.C:
	case <-p.gone:
	}
	return c.kill(p)
}

// calling kills a process that is amid a range, which is most of the time waiting
// for call times and answers.
func (c *chaos) calling() bool {
	p := c.sweeping()
	return p != nil && c.kill(p)
}

// sweeping waits for a process that holds a range.
func (c *chaos) sweeping() (p *process) {
	c.within(func() bool {
		p = c.named(c.text(`SELECT owner FROM syncer.sync_range JOIN syncer.sync_run AS u USING (run_id)
			WHERE u.status = 'running' AND sync_range.status = 'running' ORDER BY random() LIMIT 1`))
		return p != nil
	})
	return p
}

// amid kills a process in the middle of a statement, and of its transaction: one
// that stands still because it needs a table that the test holds.
func (c *chaos) amid(table, mode, statement string) bool {
	c.t.Helper()
	hold, err := c.db.Begin(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		if err := hold.Rollback(c.ctx); err != nil {
			c.t.Fatal(err)
		}
	}()
	if _, err := hold.Exec(c.ctx, fmt.Sprintf(`LOCK TABLE syncer.%s IN %s MODE`, table, mode)); err != nil {
		c.t.Fatal(err)
	}
	var p *process
	found := c.within(func() bool {
		p = c.named(c.text(`SELECT application_name FROM pg_stat_activity
			WHERE datname = current_database() AND $1 = ANY (pg_blocking_pids(pid)) AND query LIKE $2
			ORDER BY random() LIMIT 1`, hold.Conn().PgConn().PID(), statement))
		return p != nil
	})
	return found && c.kill(p)
}

// named returns the living process that has a name, of which its number is a part.
func (c *chaos) named(name string) *process {
	for _, p := range c.living() {
		if strings.Contains(name, "-"+p.pid()+"-") {
			return p
		}
	}
	return nil
}

// settle kills all that is left, at once. A daemon without ticks ends what was
// going.
func (c *chaos) settle() {
	c.t.Helper()
	for _, p := range c.living() {
		_ = p.cmd.Process.Kill()
	}
	for _, p := range c.all {
		<-p.gone
	}
	last := c.daemon(append(slices.Clone(c.env), "SYNCER_JOBS_PRESENCE_SCHEDULE=@yearly")...)
	c.all = append(c.all, last)
	c.waitSQL("0", running)
	// Those that a process was killed with stay until the queue itself releases them
	// up, and then find that there is nothing to do.
	c.waitSQL("0", `SELECT count(*) FROM syncer.river_job WHERE state NOT IN ('completed', 'cancelled', 'discarded', 'running')`)
	last.stop()
}

var takenOver = regexp.MustCompile(`"ranges":(\d+)[^\n]*took over work`)

// worked is how many pages were written and how much was taken over.
func (c *chaos) worked() (pages, taken int) {
	for _, p := range c.all {
		pages += p.pages()
		for _, found := range takenOver.FindAllStringSubmatch(p.stderr.String(), -1) {
			n, err := strconv.Atoi(found[1])
			if err != nil {
				c.t.Fatal(err)
			}
			taken += n
		}
	}
	return pages, taken
}

// nothingLeft checks what is in the database besides histories and snapshots.
func (c *chaos) nothingLeft(users int) {
	c.t.Helper()
	for _, none := range []string{
		// No run failed or is open, no tick has two, none was begun before its time.
		`SELECT count(*) FROM syncer.sync_run WHERE status IN ('failed', 'running')`,
		`SELECT count(*) FROM (SELECT FROM syncer.sync_run WHERE tick IS NOT NULL GROUP BY tick HAVING count(*) > 1) AS twice`,
		`SELECT count(*) FROM syncer.sync_run WHERE started_at < tick`,
		// Each run that went through counted each user once.
		fmt.Sprintf(`SELECT count(*) FROM syncer.sync_run WHERE complete AND users <> %d`, users),
		`SELECT count(*) FROM syncer.sync_run AS u WHERE complete
			AND users - failed <> (SELECT sum(c.users) FROM syncer.presence_count AS c WHERE c.run_id = u.run_id AND platform = 'all')`,
		`SELECT count(*) FROM syncer.presence_count WHERE run_id NOT IN (SELECT run_id FROM syncer.sync_run WHERE complete)`,
		// Their changes are the rows of the history.
		`SELECT count(*) FROM (SELECT run_id, count(*) AS rows FROM syncer.presence_history GROUP BY run_id) AS h
			FULL JOIN (SELECT run_id, changed FROM syncer.sync_run WHERE changed > 0) AS u USING (run_id) WHERE rows IS DISTINCT FROM changed`,
		`SELECT count(*) FROM syncer.sync_range JOIN syncer.sync_run AS u USING (run_id) WHERE u.status IN ('succeeded', 'partial')`,
		`SELECT count(*) FROM syncer.sync_range WHERE status = 'running'`,
		`SELECT count(*) FROM pg_class WHERE relpersistence = 't'`,
		`SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()`,
	} {
		c.wantSQL("0", none)
	}
	c.waitSQL("0", `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'syncer %'`)
	c.wantSQL("0", `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}
