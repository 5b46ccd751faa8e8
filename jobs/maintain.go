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

// maintainRetry is how soon maintenance is tried again after it gave way to a
// reader, so that it has its turn before the next long report.
const maintainRetry = time.Minute

// longInUse is the number of retries in a row after which giving way is a warning.
const longInUse = 10

// rangesKept is how long the ranges of a run that did not succeed are kept, so
// that it can be resumed or examined.
const rangesKept = 7 * 24 * time.Hour

// ahead is how far ahead partitions of each period are made. If maintenance is
// stopped, by a missing right or a lock, the operator has a week or more to see the
// warnings before rows go to the default partition. More would only be more empty
// tables for every query to look at, and to rebuild when the period changes.
var ahead = map[string]time.Duration{
	"month": 2 * 31 * 24 * time.Hour,
	"week":  5 * 7 * 24 * time.Hour,
	"day":   14 * 24 * time.Hour,
}

// keepMaintained maintains the tables, at once and then regularly, until the
// context ends.
func (k *keeper) keepMaintained(ctx context.Context) {
	timer := time.NewTimer(k.maintain(ctx))
	defer timer.Stop()
	close(k.maintained)
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(k.maintain(ctx))
		}
	}
}

// maintain makes partitions ahead and removes what is beyond the retention. It
// returns when to do so again. If one part fails, for instance for a missing
// right, the others are done all the same.
func (k *keeper) maintain(ctx context.Context) time.Duration {
	var errs []error
	err := imclient.Guard(func() error {
		now := k.store.Now()
		_, err := k.store.MakePartitions(ctx, k.config.Partition, now.Add(ahead[k.config.Partition]))
		errs = append(errs, err)
		errs = append(errs, k.archiveAndRetain(ctx, now)...)
		_, err = k.store.DropOldRanges(ctx, now.Add(-rangesKept))
		return err
	})
	inUse, failed := false, false
	for _, err := range append(errs, err) {
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, repo.ErrHistoryInUse):
			inUse = true
			if k.gaveWay < longInUse {
				k.log.Info().Err(err).Stringer("again_in", k.maintainRetry).Msg("maintenance gave way")
			} else {
				k.warnings.warn("", "maintenance has given way for long: partitions are not made or dropped; it will be tried again, and sweeps go on without it", err, nil)
			}
		default:
			failed = true
			k.warnings.warn("", "maintenance failed; it will be tried again, and sweeps go on without it", err, nil)
		}
	}
	if !inUse && !failed && ctx.Err() == nil {
		k.config.Metrics.maintained.SetToCurrentTime()
	}
	if !inUse {
		k.gaveWay = 0
		return k.maintainEvery
	}
	k.gaveWay++
	return k.maintainRetry
}

// archiveAndRetain archives what has ended, and removes what is older than the retention. If
// not all could be archived, nothing is removed.
func (k *keeper) archiveAndRetain(ctx context.Context, now time.Time) []error {
	var before time.Time
	if k.config.Retention > 0 {
		before = now.Add(-k.config.Retention)
	}
	if k.config.Archive == nil {
		if before.IsZero() {
			return nil
		}
		return k.retain(ctx, before, before, k.store.DropPartitions)
	}
	until, err := k.config.Archive(ctx, before)
	if err != nil || until.IsZero() || before.IsZero() {
		return []error{err}
	}
	runsBefore := before
	if until.Before(before) {
		runsBefore = until
	}
	return k.retain(ctx, before, runsBefore, k.store.DropArchivedPartitions)
}

// retain drops partitions that end by before, and runs that were closed before runsBefore.
func (k *keeper) retain(ctx context.Context, before, runsBefore time.Time, drop func(context.Context, time.Time) (int, error)) []error {
	partitions, partitionsErr := drop(ctx, before)
	runs, runsErr := k.store.DropOldRuns(ctx, runsBefore)
	if partitions > 0 || runs > 0 {
		k.log.Info().Int("partitions", partitions).Int64("runs", runs).Msg("dropped history beyond the retention")
	}
	return []error{partitionsErr, runsErr}
}
