package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/leash"
)

// sweep is one run and what it took, from the end of the run before: waiting is
// part of the cost.
type sweep struct {
	syncRun
	syncer, postgres, simulator time.Duration // CPU time
	walBytes                    int64
	peak                        int64 // bytes of memory that syncer had resident at most
	firstCall                   time.Duration
	process                     time.Duration // from the start of syncer backfill to its end
	stats                       apiStats
}

// syncRun is a row of sync_run.
type syncRun struct {
	RunID      int64
	Status     string
	StartedAt  time.Time
	FinishedAt time.Time
	Users      int64
	Changed    int64
	Calls      int64
	Problem    string
}

func (r syncRun) seconds() float64 { return r.FinishedAt.Sub(r.StartedAt).Seconds() }

// rate is users a second.
func (r syncRun) rate() float64 { return float64(r.Users) / r.seconds() }

// perUser is CPU time in microseconds.
func (s sweep) perUser(cpu time.Duration) float64 {
	return float64(cpu) / float64(time.Microsecond) / float64(s.Users)
}

// the first run of a kind that was started after a time and is closed
const closedRunSQL = `
SELECT run_id, status, started_at, finished_at, users, changed, calls, coalesce(error, '') AS problem
FROM syncer.sync_run
WHERE started_at > $1 AND kind = $2 AND status NOT IN ('running', 'skipped')
ORDER BY started_at
LIMIT 1`

const openRunSQL = `
SELECT EXISTS (SELECT FROM syncer.sync_run WHERE status = 'running')`

// closedRun finds the first run that was started after a time, if it is closed.
// One that did not succeed is an error.
func (w *world) closedRun(ctx context.Context, since time.Time, kind string) (syncRun, bool, error) {
	rows, err := w.db.Query(ctx, closedRunSQL, since, kind)
	if err != nil {
		return syncRun{}, false, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[syncRun])
	if errors.Is(err, pgx.ErrNoRows) {
		return syncRun{}, false, nil
	}
	if err == nil && (r.Status != "succeeded" || r.Users != int64(w.users)) {
		err = fmt.Errorf("run %d: %s, %d users of %d: %s", r.RunID, r.Status, r.Users, w.users, r.Problem)
	}
	return r, true, err
}

// backfill loads all users by syncer backfill at a rate.
func (w *world) backfill(ctx context.Context, sim *simulator, kind string, rate int) (sweep, error) {
	var s sweep
	config, err := w.configure("backfill", settings{apps: []app{{name: appName, url: sim.url, presence: rate, accounts: rate}}})
	if err != nil {
		return s, err
	}
	began := time.Now()
	cmd := w.leash.Command(ctx, w.syncer, "backfill", "--job", kind, "--json", "--config", config)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return s, fmt.Errorf("syncer backfill: %w", err)
	}
	peak := watchPeak(cmd.Process.Pid)
	err = cmd.Wait()
	s.process = time.Since(began)
	s.peak = peak()
	if err != nil {
		return s, fmt.Errorf("syncer backfill: %w\n%s", err, &out)
	}
	s.syncer = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	var found bool
	if s.syncRun, found, err = w.closedRun(ctx, began, kind); err == nil && !found {
		err = errors.New("the backfill left no run")
	}
	return s, err
}

// sweeps is a daemon that sweeps again and again.
type sweeps struct {
	*world
	name   string // of the scenario
	kind   string
	sim    *simulator
	daemon *leash.Process
	admin  string // its address
	every  time.Duration
	round  int
	runs   []int64 // that were measured, and how many users had changed in them
	change int64
}

// adminAddress finds the daemon's line about its HTTP server in its log.
var adminAddress = regexp.MustCompile(`"address":"([^"]+)"`)

// startSweeps starts the daemon and lets the first run, which is not measured,
// go by.
func (w *world) startSweeps(ctx context.Context, name, kind string, sim *simulator, rate int, every time.Duration) (*sweeps, error) {
	s := &sweeps{world: w, name: name, kind: kind, sim: sim, every: every}
	var err error
	if s.daemon, s.admin, err = w.startDaemon(ctx, name, settings{apps: []app{{name: appName, url: sim.url, presence: rate, accounts: rate}}, kind: kind, every: every}); err != nil {
		return nil, err
	}
	return s, s.settle(ctx)
}

// startDaemon starts syncer run.
func (w *world) startDaemon(ctx context.Context, name string, conf settings) (daemon *leash.Process, admin string, err error) {
	config, err := w.configure(name, conf)
	if err != nil {
		return nil, "", err
	}
	w.started++
	if daemon, err = w.leash.Start(fmt.Sprintf("%s-%d.log", name, w.started), w.syncer, "run", "--config", config); err != nil {
		return nil, "", err
	}
	w.atEnd(daemon.Stop)
	admin, err = awaitOutput(ctx, daemon, adminAddress)
	return daemon, "http://" + admin, err
}

// interval is whole seconds, a little longer than a sweep takes at a rate.
func interval(users, perSecond int) time.Duration {
	ideal := float64(users) / float64(perSecond)
	return max(1, time.Duration(1.15*ideal+0.9)) * time.Second
}

// settle waits for a run that begins from now on.
func (s *sweeps) settle(ctx context.Context) error {
	_, _, err := s.await(ctx, time.Now())
	return err
}

// await waits for the first run that is started after a time, and tells how
// long after its start the first call came. Everybody has the machine's clock.
func (s *sweeps) await(ctx context.Context, since time.Time) (r syncRun, firstCall time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute+10*s.every, errors.New("the daemon does not sweep"))
	defer cancel()
	var called time.Time
	for tick := 0; ; tick++ {
		if called.IsZero() {
			stats, err := s.sim.stats(ctx)
			if err != nil {
				return r, 0, err
			}
			if stats.Calls > 0 {
				called = time.Now()
			}
		}
		if tick%5 == 0 {
			r, found, err := s.closedRun(ctx, since, s.kind)
			if err != nil || found {
				return r, called.Sub(r.StartedAt), err
			}
		}
		if err := pause(ctx, 10*time.Millisecond, s.daemon, s.sim.Process); err != nil {
			return r, 0, errors.Join(context.Cause(ctx), err)
		}
	}
}

// next lets the population change and measures the next run.
func (s *sweeps) next(ctx context.Context) (sweep, error) {
	for {
		s.round++
		if err := s.sim.setRound(ctx, s.round); err != nil {
			return sweep{}, err
		}
		began := time.Now()
		var open bool
		if err := s.db.QueryRow(ctx, openRunSQL).Scan(&open); err != nil {
			return sweep{}, err
		}
		if !open {
			return s.measureNext(ctx, began)
		}
		// It may have met both rounds.
		if _, _, err := s.await(ctx, began); err != nil {
			return sweep{}, err
		}
	}
}

func (s *sweeps) measureNext(ctx context.Context, began time.Time) (sweep, error) {
	if err := errors.Join(s.sim.reset(ctx), resetPeak(s.daemon.PID())); err != nil {
		return sweep{}, err
	}
	before, err := s.taken(ctx)
	if err != nil {
		return sweep{}, err
	}
	r, firstCall, err := s.await(ctx, began)
	if err != nil {
		return sweep{}, err
	}
	after, err := s.taken(ctx)
	if err != nil {
		return sweep{}, err
	}
	after.syncer -= before.syncer
	after.postgres -= before.postgres
	after.simulator -= before.simulator
	after.walBytes -= before.walBytes
	after.syncRun, after.firstCall = r, firstCall
	if after.stats, err = s.sim.stats(ctx); err != nil {
		return sweep{}, err
	}
	s.runs, s.change = append(s.runs, r.RunID), s.change+r.Changed
	return after, nil
}

// taken is what everybody has taken so far.
func (s *sweeps) taken(ctx context.Context) (t sweep, err error) {
	for _, read := range []func() error{
		func() (err error) { t.syncer, err = processCPU(s.daemon.PID()); return err },
		func() (err error) { t.simulator, err = processCPU(s.sim.PID()); return err },
		func() (err error) { t.postgres, err = familyCPU(s.server); return err },
		func() (err error) { t.peak, err = peakMemory(s.daemon.PID()); return err },
		func() (err error) { t.walBytes, err = s.walPosition(ctx); return err },
	} {
		if err := read(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// measured is next, so many times.
func (s *sweeps) measured(ctx context.Context, times int) ([]sweep, error) {
	var all []sweep
	for i := range times {
		m, err := s.next(ctx)
		if err != nil {
			return all, err
		}
		s.say(s.name, "run %d of %d: %s users/s, %s changed, %d refused; CPU of syncer %s, Postgres %s, simulator %s", i+1, times,
			thousands(m.rate()), thousands(float64(m.Changed)), m.stats.RateLimited, m.syncer, m.postgres, m.simulator)
		all = append(all, m)
	}
	return all, nil
}

// of collects a figure of each sweep.
func of(all []sweep, figure func(sweep) float64) []float64 {
	var values []float64
	for _, s := range all {
		values = append(values, figure(s))
	}
	return values
}

// finish stops the daemon, compares what was written with what is served and
// with what the runs say, and stops the simulator.
func (s *sweeps) finish(ctx context.Context, share float64) error {
	if err := s.daemon.Stop(); err != nil {
		return err
	}
	return errors.Join(s.checkRows(ctx, share), s.sim.Stop())
}

// Profiles.

// profileSeconds is how long a CPU profile takes, if the sweep takes as long.
const profileSeconds = 8

// profiledShare is how many users change in sweeps that are profiled.
const profiledShare = 0.05

// profile takes a CPU profile while the daemon sweeps once more, as it did
// before, and one of its memory after that.
func (s *sweeps) profile(ctx context.Context, before []sweep, share float64) error {
	if share != profiledShare || !s.profiles {
		return nil
	}
	s.round++
	if err := errors.Join(s.sim.setRound(ctx, s.round), s.sim.reset(ctx)); err != nil {
		return err
	}
	began := time.Now()
	for stats := (apiStats{}); stats.Calls == 0; {
		var err error
		if stats, err = s.sim.stats(ctx); err != nil {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond, s.daemon); err != nil {
			return err
		}
	}
	length := max(1, min(profileSeconds, int(before[len(before)-1].seconds())))
	if err := s.fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", length), s.name+"-cpu.pprof"); err != nil {
		return err
	}
	if _, _, err := s.await(ctx, began); err != nil {
		return err
	}
	return s.fetch(ctx, "/debug/pprof/heap", s.name+"-heap.pprof")
}

// fetch writes something of the daemon's into the folder of the results.
func (s *sweeps) fetch(ctx context.Context, path, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.admin+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, content)
	}
	return os.WriteFile(filepath.Join(s.out, file), content, 0o644)
}
