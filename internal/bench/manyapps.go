package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"syncer/internal/dev/leash"
)

// crowd is many apps on one daemon, each with users, a quota and a simulator of
// its own.
type crowd struct {
	*world
	sims   []*simulator
	daemon *leash.Process
	ideal  time.Duration // of an app's run, by its quota
	every  time.Duration
	round  int
	posted time.Time // when all simulators were in it
}

// onTime is how long after its tick a run may be done, in ideal times.
const onTime = 1.05

// A tick counts once all apps that are up have had their run, and none of them
// was skipped or failed; lateness is how long after the tick the slowest was
// done.
const ticksSQL = `
SELECT u.tick, count(*), bool_and(u.status = 'succeeded'), max(extract(epoch FROM u.finished_at - u.tick))::float8
FROM syncer.sync_run AS u
JOIN syncer.app AS a USING (app_id)
WHERE u.tick > $1 AND a.name <> $2
GROUP BY u.tick
HAVING bool_and(u.status <> 'running')
ORDER BY u.tick`

// manyApps measures whether apps keep out of each other's way.
func (b *bench) manyApps(ctx context.Context) error {
	const name = "many-apps"
	apps, users := 50, b.users/100
	if b.smoke {
		apps, users = 5, 2000
	}
	c, err := b.startCrowd(ctx, name, apps, users)
	if err != nil {
		return err
	}
	together, err := c.ticks(ctx, name, "", apps)
	if err != nil {
		return err
	}
	if err := c.check(ctx, apps); err != nil {
		return err
	}
	down := appNumber(apps / 2)
	if err := c.sims[apps/2].breakDown(ctx); err != nil {
		return err
	}
	others, err := c.ticks(ctx, name, down, apps-1)
	if err != nil {
		return err
	}
	b.result.add(name, fmt.Sprintf("slowest of %d apps, to its ideal time", apps), atMost(onTime), twoPlaces, together...)
	b.result.add(name, "the same of the others while one is down", atMost(onTime), twoPlaces, others...)
	most := 0
	for i, sim := range c.sims {
		stats, err := sim.stats(ctx)
		if err != nil {
			return err
		}
		if appNumber(i) != down {
			most = max(most, stats.MaxPerSecond)
		}
	}
	b.result.add(name, "most calls of an app in a second", atMost(limitPerApp), thousands, float64(most))
	if b.smoke && most > limitPerApp {
		return fmt.Errorf("%d calls came in a second, and %d are allowed", most, limitPerApp)
	}
	err = c.daemon.Stop()
	for _, sim := range c.sims {
		err = errors.Join(err, sim.Stop())
	}
	return errors.Join(err, b.dropWorld(ctx))
}

// The calls per second of each app, as configured: fifty together are what the
// machine can bear. And the backend's limit, which is a little higher, as in real
// life: with so few calls one that is 10 ms late would already be one too many.
const (
	callsPerApp = 4
	limitPerApp = 5
)

// manyShare is how many users of each change from tick to tick.
const manyShare = 0.01

func appNumber(i int) string { return fmt.Sprintf("app-%02d", i) }

func (b *bench) startCrowd(ctx context.Context, name string, apps, users int) (*crowd, error) {
	w, err := b.newWorld(ctx, apps*users, users)
	if err != nil {
		return nil, err
	}
	c := &crowd{world: w, ideal: time.Duration(users) * time.Second / (callsPerApp * batch)}
	c.every = 2 * c.ideal.Truncate(time.Second)
	load, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit})
	if err != nil {
		return nil, err
	}
	conf, unlimited := settings{kind: "presence", every: max(c.every, 2*time.Second)}, settings{}
	for i := range apps {
		sim, err := b.simulate(ctx, limits{presence: limitPerApp, accounts: noLimit, change: manyShare})
		if err != nil {
			return nil, err
		}
		c.sims = append(c.sims, sim)
		where := fmt.Sprintf("app = %d", i)
		conf.apps = append(conf.apps, app{name: appNumber(i), url: sim.url, presence: callsPerApp, where: where})
		unlimited.apps = append(unlimited.apps, app{name: appNumber(i), url: load.url, presence: anything, where: where})
	}
	config, err := w.configure(name+"-load", unlimited)
	if err != nil {
		return nil, err
	}
	b.say(name, "loading %s users of each of %d apps", thousands(float64(users)), apps)
	if out, err := b.leash.Command(ctx, b.syncer, "backfill", "--job", "presence", "--config", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("syncer backfill: %w\n%s", err, out)
	}
	if err := errors.Join(load.Stop(), w.tidy(ctx)); err != nil {
		return nil, err
	}
	c.daemon, _, err = w.startDaemon(ctx, name, conf)
	return c, err
}

// ticks waits until the apps but one have had their runs of so many ticks, lets
// the population change with each, and returns how late the slowest of each was, in ideal
// times. The first tick does not count: not all was as it is by then.
func (c *crowd) ticks(ctx context.Context, name, without string, apps int) ([]float64, error) {
	since, times, seen := time.Now().Add(c.every), c.bench.times(often), -1
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute+2*time.Duration(times+2)*c.every, errors.New("the apps do not get their sweeps done"))
	defer cancel()
	for {
		late, err := c.lateness(ctx, since, without, apps)
		if err != nil {
			return nil, err
		}
		if len(late) >= times {
			late = late[:times]
			c.say(name, "slowest of %d apps, tick by tick, to its ideal time: %.2f", apps, late)
			return late, nil
		}
		if len(late) > seen {
			seen, c.round = len(late), c.round+1
			for _, sim := range c.sims {
				if err := sim.setRound(ctx, c.round); err != nil {
					return nil, err
				}
			}
			c.posted = time.Now()
		}
		if err := c.pause(ctx); err != nil {
			return nil, err
		}
	}
}

func (c *crowd) pause(ctx context.Context) error {
	processes := []*leash.Process{c.daemon}
	for _, sim := range c.sims {
		processes = append(processes, sim.Process)
	}
	if err := pause(ctx, 200*time.Millisecond, processes...); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}

const sweptSinceSQL = `
SELECT count(DISTINCT app_id)
FROM syncer.sync_run
WHERE started_at > $1 AND status = 'succeeded'`

// check waits until all apps have been swept in the present round, and compares
// what is shown with what is served.
func (c *crowd) check(ctx context.Context, apps int) error {
	waiting, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the apps do not get their sweeps done"))
	defer cancel()
	for {
		var swept int
		if err := c.db.QueryRow(waiting, sweptSinceSQL, c.posted).Scan(&swept); err != nil {
			return errors.Join(context.Cause(waiting), err)
		}
		if swept == apps {
			return c.compareRound(ctx, manyShare, c.round)
		}
		if err := c.pause(waiting); err != nil {
			return err
		}
	}
}

func (c *crowd) lateness(ctx context.Context, since time.Time, without string, apps int) ([]float64, error) {
	rows, err := c.db.Query(ctx, ticksSQL, since, without)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var late []float64
	for rows.Next() {
		var tick time.Time
		var runs int
		var succeeded bool
		var slowest float64
		if err := rows.Scan(&tick, &runs, &succeeded, &slowest); err != nil {
			return nil, err
		}
		if !succeeded {
			// A tick was skipped, because the run before it still went: as late as can be.
			slowest = c.every.Seconds() * 2
		}
		if runs == apps {
			late = append(late, slowest/c.ideal.Seconds())
		}
	}
	return late, rows.Err()
}
