package jobs

import (
	"context"
	"errors"
	"time"

	"syncer/imclient"
	"syncer/repo"
)

// maintainEvery is how often the tables are maintained.
const maintainEvery = time.Hour

// maintainRetry is how soon it is tried again after it gave way. The longest
// report is then not followed by the next before maintenance had its turn.
const maintainRetry = time.Minute

// longInUse is after how many retries in a row giving way becomes a warning.
const longInUse = 10

// rangesKept is how long the ranges of a run that did not go through are kept,
// to be resumed or asked about.
const rangesKept = 7 * 24 * time.Hour

// ahead is how far ahead partitions of each period are made. Whoever stops
// maintenance, a missing right or a lock, is to have a week or more to see the
// warnings before rows go to the default partition; more would only be more
// empty tables for every query to look at, and to make anew when the period
// changes.
var ahead = map[string]time.Duration{
	"month": 2 * 31 * 24 * time.Hour,
	"week":  5 * 7 * 24 * time.Hour,
	"day":   14 * 24 * time.Hour,
}

// keepMaintained maintains the tables at once, and again and again until the context
// ends.
func (e *Engine) keepMaintained(ctx context.Context) {
	timer := time.NewTimer(e.maintain(ctx))
	defer timer.Stop()
	close(e.maintained)
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(e.maintain(ctx))
		}
	}
}

// maintain makes partitions ahead and removes what is beyond the retention. It
// returns after how long to do so again. One thing failing, for want of a right
// for instance, keeps none of the others from being done.
func (e *Engine) maintain(ctx context.Context) time.Duration {
	var errs []error
	err := imclient.Guard(func() error {
		now := e.store.Now()
		_, err := e.store.MakePartitions(ctx, e.config.Partition, now.Add(ahead[e.config.Partition]))
		errs = append(errs, err)
		if e.config.Retention > 0 {
			errs = append(errs, e.retain(ctx, now.Add(-e.config.Retention))...)
		}
		_, err = e.store.DropOldRanges(ctx, now.Add(-rangesKept))
		return err
	})
	inUse, failed := false, false
	for _, err := range append(errs, err) {
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, repo.ErrHistoryInUse):
			inUse = true
			if e.gaveWay < longInUse {
				e.log.Info().Err(err).Stringer("again_in", e.maintainRetry).Msg("maintenance gave way")
			} else {
				e.again.warn("", "maintenance has given way for long: partitions are not made or dropped; it will be tried again, and sweeps go on without it", err, nil)
			}
		default:
			failed = true
			warning(e.log, err).Err(err).Msg("maintenance failed; it will be tried again, and sweeps go on without it")
		}
	}
	if !inUse && !failed && ctx.Err() == nil {
		e.config.Metrics.maintained.SetToCurrentTime()
	}
	if !inUse {
		e.gaveWay = 0
		return e.maintainEvery
	}
	e.gaveWay++
	return e.maintainRetry
}

// retain removes what is older than the retention.
func (e *Engine) retain(ctx context.Context, before time.Time) []error {
	partitions, partitionsErr := e.store.DropPartitions(ctx, before)
	runs, runsErr := e.store.DropOldRuns(ctx, before)
	if partitions > 0 || runs > 0 {
		e.log.Info().Int("partitions", partitions).Int64("runs", runs).Msg("dropped history beyond the retention")
	}
	return []error{partitionsErr, runsErr}
}
