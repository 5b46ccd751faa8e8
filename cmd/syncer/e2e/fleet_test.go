package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/internal/imsim"
)

// fleet is a world in which many processes sweep the presence of one app, in so
// many ranges that each finds work: two pages a range.
type fleet struct {
	*world
	env       []string
	processes []*process
	changes   []time.Time // when SetRound was called
}

// fleetOptions say how large a fleet's world is. The limit is the backend's;
// the fleet keeps to the rate, and what is between them is for calls that are
// held up on a busy machine, and arrive together with later ones.
type fleetOptions struct {
	worldOptions
	limit, rate int
	page        int // users of a page and, up to 500, of a call
}

func newFleet(t *testing.T, o fleetOptions) *fleet {
	t.Helper()
	// The history of a user that the backend forgets has more than was served.
	o.rounds = &imsim.Rounds{Seed: 3, PresenceShare: 0.3, UnknownShare: 0.02}
	o.limits = imsim.Tencent{PresenceRate: o.limit}
	f := &fleet{world: newWorld(t, o.worldOptions), env: []string{
		fmt.Sprintf("SYNCER_SWEEP_RANGE_USERS=%d", 2*o.page), fmt.Sprintf("SYNCER_SWEEP_PAGE_USERS=%d", o.page), "SYNCER_SWEEP_WORKERS=2",
		fmt.Sprintf("SYNCER_APPS_MAIN_TENCENT_PRESENCE_RATE=%d", o.rate),
		// All may log off between two sweeps here.
		"SYNCER_SWEEP_COLLAPSE_RATIO=1",
	}}
	f.world.run(exitDone, "migrate", "up")
	return f
}

// grow starts daemons until there are n.
func (f *fleet) grow(n int) {
	f.t.Helper()
	for len(f.processes) < n {
		f.processes = append(f.processes, f.daemon(f.env...))
	}
}

// backfill starts a sweep of the fleet's users.
func (f *fleet) backfill() *process {
	f.t.Helper()
	return f.start(append(slices.Clone(f.env), "backfill", "--app", "main", "--job", "presence", "--json")...)
}

// change lets users change, and remembers when.
func (f *fleet) change() {
	f.changes = append(f.changes, time.Now())
	f.rounds.SetRound(len(f.changes))
}

// stop ends all processes in good order.
func (f *fleet) stop() {
	f.t.Helper()
	for _, p := range f.processes {
		p.stop()
	}
}

// pages is how many pages a process has written.
func (p *process) pages() int { return strings.Count(p.stderr.String(), `"message":"page written"`) }

// holds waits until a process holds a range of the running run, with some of
// its pages still to come.
func (f *fleet) holds(p *process) {
	f.t.Helper()
	f.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_range JOIN syncer.sync_run AS u USING (run_id)
		WHERE u.status = 'running' AND sync_range.status = 'running' AND owner LIKE '%-' || $1 || '-%'`, p.pid())
}

// pid is a process' number, which is part of the name under which it holds ranges.
func (p *process) pid() string { return fmt.Sprint(p.cmd.Process.Pid) }

// clockError is how far apart the times of the simulator and those that syncer
// writes may be: it reads the database's clock over a connection on a busy
// machine, and only a mistake of seconds is looked for.
const clockError = time.Second

// bracketed checks that each transition in the history happened within its
// bracket: users change only when the test lets them, so the last change before
// the first answer with the new value is the one.
func (f *fleet) bracketed() {
	f.t.Helper()
	type row struct {
		UserID                string
		NotBefore, ObservedAt time.Time
	}
	rows := query(f.world, pgx.RowToStructByPos[row], `SELECT user_id, not_before, observed_at
		FROM syncer.presence_history WHERE prev_state IS NOT NULL ORDER BY user_id, observed_at`)
	if len(rows) == 0 {
		f.t.Error("no user has changed")
	}
	seen := map[string]int{}
	for _, r := range rows {
		seen[r.UserID]++
		served := f.sim.Served(imsim.TencentPresence, r.UserID)
		if seen[r.UserID] >= len(served) {
			f.t.Errorf("%s: more transitions than the %d values served", r.UserID, len(served))
			continue
		}
		before, after := served[seen[r.UserID]-1], served[seen[r.UserID]]
		// The value changed after `before` was served last, and before `after` was served first.
		if r.NotBefore.After(before.LastServed.Add(clockError)) || r.ObservedAt.Before(after.FirstAsked.Add(-clockError)) {
			f.t.Errorf("%s: %s → %s is said to have happened between %s and %s; served until %s and from %s",
				r.UserID, before, after, r.NotBefore, r.ObservedAt, before.LastServed, after.FirstServed)
		}
		changed := slices.ContainsFunc(f.changes, func(c time.Time) bool {
			return c.After(r.NotBefore.Add(-clockError)) && c.Before(r.ObservedAt.Add(clockError))
		})
		if !changed {
			f.t.Errorf("%s: the user did not change between %s and %s", r.UserID, r.NotBefore, r.ObservedAt)
		}
	}
}

// kept checks what the backend saw, and that no user is missing or doubled in what
// was written.
func (f *fleet) kept(limit int) {
	f.t.Helper()
	f.inLimit(limit)
	f.truthful()
	f.bracketed()
}

// inLimit checks what the backend saw: never more than the limit in any one
// second, nothing refused.
func (f *fleet) inLimit(limit int) {
	f.t.Helper()
	got := f.presenceStats()
	if got.MaxPerSecond > limit || got.RateLimited > 0 || got.Unauthorised > 0 || got.DuplicateCalls > 0 || got.RepeatedNonces > 0 {
		f.t.Errorf("the presence API saw %+v, the limit is %d", got, limit)
	}
}

// presenceStats is what the backend saw of the fleet's calls.
func (f *fleet) presenceStats() imsim.APIStats {
	return f.sim.Stats().APIs[imsim.PathQueryOnlineStatus]
}

// sweeps are runs that went through.
const sweeps = `SELECT count(*) FROM syncer.sync_run WHERE status IN ('succeeded', 'partial')`

// everyTick checks that every tick since the first has one run, possibly a skipped
// one, and that none was started before its time.
func (f *fleet) everyTick() {
	f.t.Helper()
	f.wantSQL("true", `SELECT max(tick) - min(tick) = (count(*) - 1) * interval '1 second' FROM syncer.sync_run`)
	f.wantSQL("0", `SELECT count(*) FROM (SELECT FROM syncer.sync_run GROUP BY tick HAVING count(*) > 1) AS twice`)
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE tick IS NULL OR started_at < tick OR status IN ('failed', 'cancelled')`)
}

// shares logs how the work was distributed.
func (f *fleet) shares() string {
	var pages []int
	for _, p := range f.processes {
		pages = append(pages, p.pages())
	}
	return fmt.Sprint(pages)
}

// TestFleet: four daemons share the ticks, the work and the limit.
func TestFleet(t *testing.T) {
	t.Parallel()
	testFleet(t, 4, fleetOptions{limit: 80, rate: 60, page: 100, worldOptions: worldOptions{users: 4000, config: everySecond}})
}

// sweepOften lets users change after each of n sweeps, and ends with a sweep of
// all of that.
func (f *fleet) sweepOften(n int) {
	f.t.Helper()
	for range n {
		done := f.text(sweeps)
		f.eventually("a sweep has ended", func() bool { return f.text(sweeps) != done })
		f.change()
	}
	last := f.text(`SELECT max(run_id) FROM syncer.sync_run`)
	f.waitSQL("true", `SELECT count(*) > 0 FROM syncer.sync_run WHERE run_id > $1 AND status IN ('succeeded', 'partial')`, last)
}

// finish lets a daemon without ticks end the run that was going when the others
// stopped.
func (f *fleet) finish() {
	f.t.Helper()
	last := f.daemon("SYNCER_JOBS_PRESENCE_SCHEDULE=@yearly")
	f.waitSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'running'`)
	last.stop()
}

// everySecond is a job for the fleet's app.
const everySecond = `
[[jobs]]
name     = "presence"
kind     = "presence"
app      = "main"
schedule = "@every 1s"
catch_up = false
`

func testFleet(t *testing.T, n int, o fleetOptions) {
	f := newFleet(t, o)
	f.grow(n)
	f.sweepOften(3)
	f.eventually("every process has written pages", func() bool {
		return !slices.ContainsFunc(f.processes, func(p *process) bool { return p.pages() == 0 })
	})
	f.stop()
	f.finish()
	t.Logf("%d processes: %s calls a second of the %d they may make together, while a sweep goes; pages of each: %s", n,
		f.text(`SELECT round(sum(calls) / extract(epoch FROM sum(finished_at - started_at)), 1)::text FROM syncer.sync_run WHERE status <> 'skipped'`), o.rate, f.shares())
	f.everyTick()
	f.kept(o.limit)
}

// TestFleetLosesProcesses: of four daemons one is killed and one frozen, both
// amid their ranges. The others go on with them. The frozen one wakes while the
// next run is going, the one frozen after it while the same run still is.
func TestFleetLosesProcesses(t *testing.T) {
	t.Parallel()
	const users, limit = 4000, 60
	f := newFleet(t, fleetOptions{limit: limit, rate: 40, page: 100, worldOptions: worldOptions{users: users, config: noJobs}})
	f.grow(4)
	killed, frozen, napping := f.processes[0], f.processes[1], f.processes[2]
	f.backfill().wait(exitPartial)

	f.change()
	run := f.backfill()
	f.holds(killed)
	f.holds(frozen)
	frozen.signal(syscall.SIGSTOP)
	killed.kill()
	run.wait(exitPartial)

	f.change()
	run = f.backfill()
	f.holds(napping)
	napping.signal(syscall.SIGSTOP)
	frozen.signal(syscall.SIGCONT)
	f.waitSQL("0", `SELECT count(*) FROM syncer.sync_range WHERE owner LIKE '%-' || $1 || '-%' AND status = 'running'`, napping.pid())
	napping.signal(syscall.SIGCONT)
	run.wait(exitPartial)

	// Whoever woke up works on.
	f.processes = f.processes[1:]
	before := []int{frozen.pages(), napping.pages()}
	f.change()
	f.backfill().wait(exitPartial)
	f.stop()
	if after := []int{frozen.pages(), napping.pages()}; after[0] == before[0] || after[1] == before[1] {
		t.Errorf("the pages of those who had been frozen went from %v to %v", before, after)
	}
	f.wantSQL("4", sweeps)
	f.kept(limit)
}

// TestFrozenInTransaction: a process freezes while it writes a page. Its
// session holds the range, but not for longer than rescue_after.
func TestFrozenInTransaction(t *testing.T) {
	t.Parallel()
	newFleet(t, frozenFleet).freezesWriting()
}

// frozenFleet is large enough for one to freeze in it.
var frozenFleet = fleetOptions{limit: 100, rate: 75, page: 100, worldOptions: worldOptions{users: 1000, config: noJobs}}

// freezesWriting lets a daemon freeze while it writes a page.
func (f *fleet) freezesWriting() {
	f.t.Helper()
	f.grow(1)
	frozen := f.processes[0]
	f.backfill().wait(exitPartial)
	// Pages come as far as the writing, and have locked their ranges by then.
	block, err := f.db.Begin(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := block.Exec(f.ctx, `SELECT FROM syncer.presence_snapshot FOR UPDATE`); err != nil {
		f.t.Fatal(err)
	}
	f.change()
	run := f.backfill()
	f.waitSQL("true", `SELECT count(*) > 0 FROM pg_stat_activity
		WHERE application_name LIKE 'syncer %-' || $1 || '-%' AND $2 = ANY (pg_blocking_pids(pid))`,
		frozen.pid(), block.Conn().PgConn().PID())
	frozen.signal(syscall.SIGSTOP)
	if err := block.Rollback(f.ctx); err != nil {
		f.t.Fatal(err)
	}
	run.wait(exitPartial)
	frozen.signal(syscall.SIGCONT)
	f.stop()
	if diff := cmp.Diff([]string{"partial 1000", "partial 1000"}, query(f.world, pgx.RowTo[string], `SELECT status || ' ' || users FROM syncer.sync_run`)); diff != "" {
		f.t.Errorf("runs (-want +got):\n%s", diff)
	}
	f.kept(frozenFleet.limit)
}
