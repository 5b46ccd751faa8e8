package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// keeper does the housekeeping of an engine: signs of life, the clock, taking over
// lost work, noticing work that stalls, maintenance and roll-ups.
type keeper struct {
	*shared
	queue     *queue
	scheduler *scheduler

	heartbeat     heartbeat
	stalls        stalls
	stallRounds   int
	maintainEvery time.Duration
	maintainRetry time.Duration
	gaveWay       int           // times in a row that maintenance gave way
	maintained    chan struct{} // closed once the tables were maintained
	loops         sync.WaitGroup
	cancel        context.CancelFunc
}

func newKeeper(s *shared, q *queue, scheduler *scheduler) *keeper {
	return &keeper{
		shared: s, queue: q, scheduler: scheduler,
		stallRounds: stallRounds(s.config.RescueAfter), maintainEvery: maintainEvery, maintainRetry: maintainRetry,
		maintained: make(chan struct{}),
	}
}

// start starts the loops. Maintenance and roll-ups may take long and have loops of
// their own; without a partition, rows go to the default one.
func (k *keeper) start(ctx context.Context) {
	k.config.Metrics.maintained.SetToCurrentTime()
	if err := k.store.CheckClock(ctx); err != nil {
		k.warn(err) // before the first round
		k.recent.note("housekeeping", err)
	}
	ctx, k.cancel = context.WithCancel(context.WithoutCancel(ctx))
	// Six signs of life within RescueAfter: work counts as lost after four are
	// missing, and is found in the next round.
	k.heartbeat.beat()
	k.loops.Go(func() { k.repeat(ctx, k.config.RescueAfter/6, k.heartbeat.of(k.housekeeping)) })
	if !k.store.PollOnly() {
		k.loops.Go(func() { k.repeat(ctx, announceEvery, k.queue.announce) })
	}
	k.loops.Go(func() { k.keepMaintained(ctx) })
	k.loops.Go(func() { k.keepRolledUp(ctx) })
}

// stop ends the loops. An outage that is over does not stay on record.
func (k *keeper) stop() {
	k.cancel()
	k.loops.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := k.recordOutages(ctx); err != nil {
		k.log.Debug().Err(err).Msg("record of outages")
	}
}

// awaitMaintained waits for the first maintenance, so that a process that lives
// for a moment, as a small backfill does, maintains the tables too.
func (k *keeper) awaitMaintained(ctx context.Context) {
	select {
	case <-k.maintained:
	case <-ctx.Done():
	}
}

// housekeeping is one round. On a connection that was cut off it would wait for
// minutes while others work, so it has a deadline, which ends the connection too.
func (k *keeper) housekeeping(ctx context.Context) error {
	k.warnings.flush(false)
	ctx, cancel := context.WithTimeout(ctx, k.config.RescueAfter/3)
	defer cancel()
	answered := k.store.ReadClock(ctx)
	if answered == nil {
		k.warnings.answered()
	}
	err := errors.Join(answered, k.store.CheckClock(ctx), k.store.Beat(ctx), k.rescue(ctx), k.watchWork(ctx), k.recordOutages(ctx), k.checkApps(ctx))
	k.recent.note("housekeeping", err)
	return err
}

// checkApps compares the apps with the database's.
func (k *keeper) checkApps(ctx context.Context) error {
	err := k.store.CheckApps(ctx)
	if errors.Is(err, repo.ErrAppLost) {
		select {
		case k.lost <- err:
		default: // reported already
		}
	}
	return err
}

// repeat calls do every so often until the context ends. A failure, or a panic, is
// logged.
func (k *keeper) repeat(ctx context.Context, every time.Duration, do func(context.Context) error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := imclient.Guard(func() error { return do(ctx) }); err != nil && ctx.Err() == nil {
			k.warn(err)
		}
	}
}

func (k *keeper) warn(err error) {
	k.warnings.warn("", "housekeeping failed; it will be tried again", err, nil)
}

// staleBefore returns the time before which a sign of life is too old.
func (s *shared) staleBefore() time.Time {
	return s.store.Now().Add(-s.config.RescueAfter * 2 / 3)
}

// rescue takes over ranges whose workers gave no sign of life.
func (k *keeper) rescue(ctx context.Context) error {
	if k.isStopping() {
		return nil
	}
	appIDs := make([]int16, 0, len(k.apps))
	for id := range k.apps {
		appIDs = append(appIDs, id)
	}
	rescued, err := k.store.Rescue(ctx, appIDs, k.staleBefore(), k.queue.enqueue(ctx))
	if err == nil && rescued > 0 {
		k.config.Metrics.rescued.Add(float64(rescued))
		k.log.Warn().Int("ranges", rescued).Msg("took over work whose worker gave no sign of life")
	}
	return err
}

// recordOutages records the APIs that do not answer this process, for the commands
// that show runs.
func (k *keeper) recordOutages(ctx context.Context) error {
	var errs []error
	for _, l := range k.lanes {
		since, newest := l.breaker.Failing()
		quota := l.app.quota(l.queue.Kind)
		if quota == nil || newest == nil && !l.failing {
			continue
		}
		err := quota.Failing(ctx, k.store.Now().Add(-time.Since(since)), newest)
		if err == nil {
			l.failing = newest != nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// keepRolledUp keeps the daily roll-ups up to date until the context ends. The
// first roll-up of a long history takes minutes; reports use the history meanwhile.
func (k *keeper) keepRolledUp(ctx context.Context) {
	if err := imclient.Guard(func() error { return k.rollUp(ctx) }); err != nil && ctx.Err() == nil {
		k.warnings.warn("", "rolling up failed; it will be tried again", err, nil)
	}
	k.repeat(ctx, k.maintainEvery, k.rollUp)
}

func (k *keeper) rollUp(ctx context.Context) error {
	var before time.Time
	if k.config.Retention > 0 {
		before = k.store.Now().Add(-k.config.Retention)
	}
	return k.store.RollUp(ctx, k.config.ReportZone, before)
}
