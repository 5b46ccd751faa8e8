package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// usersPerSecond is a figure that others are compared with.
const usersPerSecond = "users/s"

// The documented limits of Tencent Chat, in calls per second.
const (
	presenceQuota = 200
	accountsQuota = 100
	accountsBatch = 100
)

// quota is what the app is configured to, limit what the simulator enforces.
// They are the same, unless it is only about whether everything works: then the
// limit is low enough to be met in a small sweep, and leaves room for a machine
// that stutters.
func (b *bench) quota(documented int) (quota, limit int) {
	if b.smoke {
		return 90, 100
	}
	return documented, documented
}

// quotaShare is how much of a quota is to be used.
const quotaShare = 0.99

// firstLoad compares the first load with COPY of the same rows.
func (b *bench) firstLoad(ctx context.Context) error {
	const name = "first-load"
	sim, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit})
	if err != nil {
		return err
	}
	var rates, copyRates, memory, cpu []float64
	for i := range b.times(often) {
		w, err := b.newWorld(ctx, b.users, b.users)
		if err != nil {
			return err
		}
		if err := w.exec(ctx, "CHECKPOINT"); err != nil {
			return err
		}
		load, err := w.backfill(ctx, sim, "presence", anything)
		if err != nil {
			return err
		}
		took, err := w.copyRows(ctx)
		if err != nil {
			return err
		}
		copyRate := float64(w.users) / took.Seconds()
		b.say(name, "run %d of %d: %s users/s, COPY %s", i+1, b.times(often), thousands(load.rate()), thousands(copyRate))
		rates, copyRates = append(rates, load.rate()), append(copyRates, copyRate)
		memory, cpu = append(memory, float64(load.peak)), append(cpu, load.perUser(load.syncer))
	}
	b.result.add(name, usersPerSecond, target{}, thousands, rates...)
	b.result.add(name, "COPY of the same rows, users/s", target{}, thousands, copyRates...)
	b.result.add(name, "first load to COPY", atLeast(0.5), twoPlaces, quotients(rates, copyRates)...)
	b.result.add(name, "CPU of syncer per user", target{}, microseconds, cpu...)
	b.result.add(name, "memory of syncer", target{}, mebibytes, memory...)
	return b.world.compare(ctx, sim)
}

func (b *bench) unlimited1(ctx context.Context) error {
	return b.unlimited(ctx, "unlimited-1pct", 0.01)
}

func (b *bench) unlimited5(ctx context.Context) error {
	return b.unlimited(ctx, "unlimited-5pct", 0.05)
}

// unlimited compares sweeps that nothing holds up with the floor.
func (b *bench) unlimited(ctx context.Context, name string, share float64) error {
	w, err := b.loaded(ctx, b.users)
	if err != nil {
		return err
	}
	sim, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit, change: share})
	if err != nil {
		return err
	}
	floors, round, err := w.floors(ctx, name, sim, b.times(often))
	if err != nil {
		return err
	}
	if err := w.tidy(ctx); err != nil {
		return err
	}
	s, err := w.startSweeps(ctx, name, "presence", sim, anything, interval(b.users, 250_000))
	if err != nil {
		return err
	}
	s.round = round
	all, err := s.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	rates := of(all, func(s sweep) float64 { return s.rate() })
	b.result.add(name, usersPerSecond, target{}, thousands, rates...)
	b.result.add(name, "floor, users/s", target{}, thousands, floors...)
	b.result.add(name, "sweep to floor", atLeast(0.5), twoPlaces, quotients(rates, floors)...)
	s.addCost(all)
	return errors.Join(s.profile(ctx, all, share), s.finish(ctx, share))
}

// addCost adds what sweeps took per user.
func (s *sweeps) addCost(all []sweep) {
	r := &s.result
	r.add(s.name, "CPU of syncer per user", target{}, microseconds, of(all, func(s sweep) float64 { return s.perUser(s.syncer) })...)
	r.add(s.name, "CPU of Postgres per user", target{}, microseconds, of(all, func(s sweep) float64 { return s.perUser(s.postgres) })...)
	r.add(s.name, "CPU of the simulator per user", target{}, microseconds, of(all, func(s sweep) float64 { return s.perUser(s.simulator) })...)
	r.add(s.name, "WAL per user", target{}, bytesPerUser, of(all, func(s sweep) float64 { return float64(s.walBytes) / float64(s.Users) })...)
	r.add(s.name, "memory of syncer", target{}, mebibytes, of(all, func(s sweep) float64 { return float64(s.peak) })...)
}

// addCalls adds how the limit was kept: of that the worst counts, no median.
func (s *sweeps) addCalls(all []sweep, limit int) error {
	refused, most := 0, 0
	for _, m := range all {
		refused, most = refused+m.stats.RateLimited, max(most, m.stats.MaxPerSecond)
	}
	s.result.add(s.name, "calls refused, all runs", atMost(0), thousands, float64(refused))
	s.result.add(s.name, "most calls in a second", atMost(float64(limit)), thousands, float64(most))
	if s.smoke && most > limit {
		return fmt.Errorf("%d calls came in a second, and %d are allowed", most, limit)
	}
	return nil
}

func (b *bench) steady1(ctx context.Context) error { return b.steady(ctx, "steady-1pct", 0.01) }
func (b *bench) steady5(ctx context.Context) error { return b.steady(ctx, "steady-5pct", 0.05) }

// steady measures sweeps at the quota.
func (b *bench) steady(ctx context.Context, name string, share float64) error {
	s, limit, err := b.atQuota(ctx, name, b.users, share)
	if err != nil {
		return err
	}
	all, err := s.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	quota, _ := b.quota(presenceQuota)
	b.result.add(name, usersPerSecond, atLeast(quotaShare*float64(quota*batch)), thousands, of(all, func(s sweep) float64 { return s.rate() })...)
	err = s.addCalls(all, limit)
	s.addCost(all)
	return errors.Join(err, s.profile(ctx, all, share), s.finish(ctx, share))
}

// atQuota starts sweeps at the quota for presence.
func (b *bench) atQuota(ctx context.Context, name string, users int, share float64) (s *sweeps, limit int, err error) {
	w, err := b.loaded(ctx, users)
	if err != nil {
		return nil, 0, err
	}
	quota, limit := b.quota(presenceQuota)
	sim, err := b.simulate(ctx, limits{presence: limit, accounts: noLimit, change: share})
	if err != nil {
		return nil, 0, err
	}
	s, err = w.startSweeps(ctx, name, "presence", sim, quota, interval(users, quota*batch))
	return s, limit, err
}

// busy measures whether the quota is kept while others want all CPU time there is.
func (b *bench) busy(ctx context.Context) error {
	const name, share = "busy", 0.05
	s, limit, err := b.atQuota(ctx, name, b.users, share)
	if err != nil {
		return err
	}
	for range runtime.NumCPU() {
		b.started++
		hog, err := b.leash.Start(fmt.Sprintf("hog-%d.log", b.started), "/bin/sh", "-c", "trap 'exit 0' TERM; while :; do :; done")
		if err != nil {
			return err
		}
		b.atEnd(hog.Stop)
	}
	all, err := s.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	b.result.add(name, usersPerSecond, target{}, thousands, of(all, func(s sweep) float64 { return s.rate() })...)
	return errors.Join(s.addCalls(all, limit), s.finish(ctx, share))
}

// backfill measures a whole process at the quota, of which each second counts when a
// person waits for it.
func (b *bench) backfill(ctx context.Context) error {
	const name = "backfill"
	quota, limit := b.quota(presenceQuota)
	sim, err := b.simulate(ctx, limits{presence: limit, accounts: noLimit})
	if err != nil {
		return err
	}
	var took []float64
	var load sweep
	refused := 0
	for i := range b.times(often) {
		w, err := b.newWorld(ctx, b.users*3/10, b.users*3/10)
		if err != nil {
			return err
		}
		if err := errors.Join(w.exec(ctx, "CHECKPOINT"), sim.reset(ctx)); err != nil {
			return err
		}
		if load, err = w.backfill(ctx, sim, "presence", quota); err != nil {
			return err
		}
		stats, err := sim.stats(ctx)
		if err != nil {
			return err
		}
		refused += stats.RateLimited
		b.say(name, "run %d of %d: %.2f s, of which the run took %.2f s; %d refused", i+1, b.times(often), load.process.Seconds(), load.seconds(), stats.RateLimited)
		took = append(took, load.process.Seconds())
	}
	ideal := float64(b.world.users) / float64(quota*batch)
	b.result.add(name, "what the quota allows", target{}, seconds, ideal)
	b.result.add(name, "the process", atMost(1.0667*ideal), seconds, took...)
	b.result.add(name, "calls refused, all runs", atMost(0), thousands, float64(refused))
	return errors.Join(b.world.compareRound(ctx, 0, 0), b.dropWorld(ctx))
}

// wal measures what a sweep writes that finds nothing changed.
func (b *bench) wal(ctx context.Context) error {
	const name = "wal"
	s, _, err := b.atQuota(ctx, name, b.users, 0)
	if err != nil {
		return err
	}
	all, err := s.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	b.result.add(name, "WAL per unchanged user", below(1), bytesPerUser, of(all, func(s sweep) float64 { return float64(s.walBytes) / float64(s.Users-s.Changed) })...)
	return s.finish(ctx, 0)
}

// accounts measures sweeps of the import status at the quota.
func (b *bench) accounts(ctx context.Context) error {
	const name, share = "accounts", 0.01
	w, err := b.newWorld(ctx, b.users/5, b.users/5)
	if err != nil {
		return err
	}
	quota, limit := b.quota(accountsQuota)
	load, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit})
	if err != nil {
		return err
	}
	if _, err := w.backfill(ctx, load, "accounts", anything); err != nil {
		return err
	}
	if err := w.tidy(ctx); err != nil {
		return err
	}
	sim, err := b.simulate(ctx, limits{presence: noLimit, accounts: limit, accountChange: share})
	if err != nil {
		return err
	}
	s, err := w.startSweeps(ctx, name, "accounts", sim, quota, interval(w.users, quota*accountsBatch))
	if err != nil {
		return err
	}
	all, err := s.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	b.result.add(name, usersPerSecond, atLeast(quotaShare*float64(quota*accountsBatch)), thousands, of(all, func(s sweep) float64 { return s.rate() })...)
	err = s.addCalls(all, limit)
	s.addCost(all)
	return errors.Join(err, s.finish(ctx, share), b.dropWorld(ctx))
}

// mostMemory is what syncer may take, however many users there are.
const mostMemory = 64 << 20

// memory measures the memory that few users take; see tenMillion for many.
func (b *bench) memory(ctx context.Context) error {
	const name, share = "memory", 0.01
	s, _, err := b.atQuota(ctx, name, b.users/100, share)
	if err != nil {
		return err
	}
	all, err := s.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	s.result.add(name, fmt.Sprintf("memory of syncer, %s users", thousands(float64(s.users))), below(mostMemory), mebibytes, of(all, func(s sweep) float64 { return float64(s.peak) })...)
	return s.finish(ctx, share)
}

// tenMillion measures whether cost grows in a straight line: ten times the
// users, and a tenth of them.
func (b *bench) tenMillion(ctx context.Context) error {
	const name, share = "ten-million", 0.01
	cpu := func(s sweep) float64 { return s.perUser(s.syncer + s.postgres) }
	few, _, err := b.atQuota(ctx, name, b.users/10, share)
	if err != nil {
		return err
	}
	little, err := few.measured(ctx, b.times(often))
	if err != nil {
		return err
	}
	if err := few.finish(ctx, share); err != nil {
		return err
	}
	s, limit, err := b.atQuota(ctx, name, b.users*10, share)
	if err != nil {
		return err
	}
	all, err := s.measured(ctx, b.times(seldom))
	if err != nil {
		return err
	}
	quota, _ := b.quota(presenceQuota)
	ideal := float64(s.users) / float64(quota*batch)
	r := &b.result
	r.add(name, "a sweep", atMost(1.05*ideal), seconds, of(all, func(s sweep) float64 { return s.seconds() })...)
	r.add(name, "start to first call", below(1), seconds, of(all, func(s sweep) float64 { return s.firstCall.Seconds() })...)
	r.add(name, "memory of syncer", below(mostMemory), mebibytes, of(all, func(s sweep) float64 { return float64(s.peak) })...)
	r.add(name, "CPU of syncer and Postgres per user", target{}, microseconds, of(all, cpu)...)
	r.add(name, fmt.Sprintf("the same, %s users", thousands(float64(few.users))), target{}, microseconds, of(little, cpu)...)
	r.add(name, "the one to the other", atMost(1.3), twoPlaces, median(of(all, cpu))/median(of(little, cpu)))
	return errors.Join(s.addCalls(all, limit), s.finish(ctx, share), b.dropWorld(ctx))
}

// smallApps measures what few users cost who are asked about often.
func (b *bench) smallApps(ctx context.Context) error {
	const name, users = "small-apps", 1000
	every, window := 5*time.Second, time.Minute
	if b.smoke {
		every, window = time.Second, 3*time.Second
	}
	w, err := b.loaded(ctx, users)
	if err != nil {
		return err
	}
	sim, err := b.simulate(ctx, limits{presence: presenceQuota, accounts: noLimit})
	if err != nil {
		return err
	}
	s, err := w.startSweeps(ctx, name, "presence", sim, presenceQuota, every)
	if err != nil {
		return err
	}
	var syncer, postgres []float64
	for i := range b.times(often) {
		before, err := s.taken(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := pause(ctx, window, s.daemon, sim.Process); err != nil {
			return err
		}
		took := time.Since(began)
		after, err := s.taken(ctx)
		if err != nil {
			return err
		}
		runs, err := w.runsSince(ctx, began)
		if err != nil {
			return err
		}
		if least := int(window/every) - 1; runs < least {
			return fmt.Errorf("%d sweeps in %s, want %d at least", runs, window, least)
		}
		share := func(cpu time.Duration) float64 { return float64(cpu) / float64(took) }
		syncer = append(syncer, share(after.syncer-before.syncer))
		postgres = append(postgres, share(after.postgres-before.postgres))
		b.say(name, "minute %d of %d: %d sweeps, syncer %s of a core, Postgres %s", i+1, b.times(often), runs,
			percent(syncer[i]), percent(postgres[i]))
	}
	b.result.add(name, "syncer, of a core", below(0.01), percent, syncer...)
	b.result.add(name, "Postgres, of a core", target{}, percent, postgres...)
	return s.finish(ctx, 0)
}

const runsSinceSQL = `
SELECT count(*)
FROM syncer.sync_run
WHERE started_at >= $1 AND status = 'succeeded'`

func (w *world) runsSince(ctx context.Context, since time.Time) (n int, err error) {
	err = w.db.QueryRow(ctx, runsSinceSQL, since).Scan(&n)
	return n, err
}
