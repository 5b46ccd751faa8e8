package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// HintJob is the name under which work on hints is recorded.
const HintJob = "hints"

// HintRun is the run that records the work on hints of one app in one hour, by all
// processes. It is never running and never complete.
type HintRun struct {
	ID    int64
	AppID int16
	Hour  time.Time // its beginning
}

const addHintRunSQL = `
INSERT INTO syncer.sync_run (app_id, job, kind, trigger, tick, started_at, observed_from, status, finished_at, planned)
VALUES ($1, '` + HintJob + `', 'presence', 'hint', $2, $3, $3, 'succeeded', $3, true)
ON CONFLICT DO NOTHING`

const findHintRunSQL = `
SELECT run_id
FROM syncer.sync_run
WHERE app_id = $1 AND kind = 'presence' AND job = '` + HintJob + `' AND tick = $2 AND trigger = 'hint'`

// HintRun returns the hint run of an app for the present hour, and adds it if it is new.
func (s *Store) HintRun(ctx context.Context, appID int16) (HintRun, error) {
	now := s.Now()
	run := HintRun{AppID: appID, Hour: now.UTC().Truncate(time.Hour)}
	var batch pgx.Batch
	batch.Queue(addHintRunSQL, appID, run.Hour, now)
	batch.Queue(findHintRunSQL, appID, run.Hour).QueryRow(func(row pgx.Row) error { return row.Scan(&run.ID) })
	if err := s.RunBatch(ctx, &batch); err != nil {
		return HintRun{}, fmt.Errorf("find the hint run of app %d: %w", appID, err)
	}
	return run, nil
}

// Hinted is what is known before users whom hints name are asked about.
type Hinted[V comparable] struct {
	Known[V]
	// PrevCompleteAt is the start of the newest complete run, nil if there is none.
	PrevCompleteAt *time.Time
	// Sweeping reports that a run is running, in any process.
	Sweeping bool
}

const sweepsSQL = `
SELECT (
    SELECT started_at
    FROM syncer.sync_run
    WHERE app_id = $1 AND kind = $2 AND complete
    ORDER BY started_at DESC
    LIMIT 1
), EXISTS (
    SELECT FROM syncer.sync_run
    WHERE app_id = $1 AND kind = $2 AND status = 'running'
), current_setting('transaction_read_only') = 'on'`

// LoadHinted returns what is known of users, whose ids must be distinct and ascending. The
// runs are read first: a run that completes meanwhile, in which a user failed, must not
// count as the one that saw the user last. It returns pg.ErrReadOnly if nothing could be
// written.
func (v *Values[V]) LoadHinted(ctx context.Context, appID int16, ids []string) (h Hinted[V], err error) {
	var batch pgx.Batch
	batch.Queue(sweepsSQL, appID, v.kind).QueryRow(func(row pgx.Row) error {
		var readOnly bool
		if err := row.Scan(&h.PrevCompleteAt, &h.Sweeping, &readOnly); err != nil || !readOnly {
			return err
		}
		return pg.ErrReadOnly
	})
	found := v.collect(ids, &h.Known)
	var n int
	batch.Queue(v.findSQL, appID, ids).Query(found.snapshots(&n))
	batch.Queue(findFailingSQL, appID, v.kind, ids).Query(found.failures(&n))
	if err := v.store.RunBatch(ctx, &batch); err != nil {
		return Hinted[V]{}, fmt.Errorf("find %d hinted %s snapshots: %w", len(ids), v.kind, err)
	}
	return h, nil
}

// ErrOvertaken reports that a run began after the answers to hints had arrived. It may have
// seen the users since, so the answers are not written.
var ErrOvertaken = errors.New("a run began after the answers")

// While the lock is held no run is started, and other hints of the app wait. It leaves
// foreign keys alone: a roll-up keeps their lock for long.
const lockHintedAppSQL = `
SELECT app_id, name, provider, coalesce(tenant, '')
FROM syncer.app
WHERE app_id = $1
FOR NO KEY UPDATE`

// A run that was started at $3 or later, and may go through users or has.
const startedSinceSQL = `
SELECT EXISTS (
    SELECT FROM syncer.sync_run
    WHERE app_id = $1 AND kind = $2 AND status = 'running' AND started_at >= $3
) OR EXISTS (
    SELECT FROM syncer.sync_run
    WHERE app_id = $1 AND kind = $2 AND observed_until >= $3 AND started_at >= $3
)`

const countHintsSQL = `
UPDATE syncer.sync_run
SET users = users + $4, changed = changed + $5, calls = calls + $6, retries = retries + $7, finished_at = greatest(finished_at, $8)
WHERE run_id = $1 AND app_id = $2 AND tick = $3 AND trigger = 'hint'`

// SaveHinted writes the changes that hints led to, and adds to the counters of their run. It
// returns the number of users changed. It leaves out what SavePage leaves out.
//
// A later run takes a snapshot that is older than its start for seen by it, if it saw no
// difference. So SaveHinted writes nothing, and returns ErrOvertaken, if a run began after
// the first of the answers; StartRun waits while it writes. Its other errors
// include ErrMoved and ErrAppLost, and ErrGone if the run is not on record any more.
func (v *Values[V]) SaveHinted(ctx context.Context, run HintRun, changes []Change[V], made Counters) (changed int64, err error) {
	err = v.store.InTx(ctx, func(tx *pg.Tx) error {
		if changed = 0; len(changes) > 0 {
			if changed, err = v.writeHinted(ctx, tx, run, changes); err != nil {
				return err
			}
		}
		tag, err := tx.Exec(ctx, countHintsSQL, run.ID, run.AppID, run.Hour, made.Users, changed, made.Calls, made.Retries, v.store.Now())
		if err == nil && tag.RowsAffected() == 0 {
			return ErrGone
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, ErrOvertaken) {
		return 0, fmt.Errorf("save what hints of app %d led to: %w", run.AppID, err)
	}
	return changed, err
}

func (v *Values[V]) writeHinted(ctx context.Context, tx *pg.Tx, run HintRun, changes []Change[V]) (changed int64, err error) {
	first := changes[0].ObservedAt
	for i := range changes {
		first = earlier(first, changes[i].ObservedAt)
	}
	if err := v.store.lockKnownApp(ctx, tx, lockHintedAppSQL, run.AppID); err != nil {
		return 0, err
	}
	var batch pgx.Batch
	batch.Queue(startedSinceSQL, run.AppID, v.kind, first).QueryRow(func(row pgx.Row) error {
		var started bool
		if err := row.Scan(&started); err != nil || !started {
			return err
		}
		return ErrOvertaken
	})
	batch.Queue(byKeySQL)
	args := append([]any{run.AppID, run.ID}, changeColumns(changes)...)
	batch.Queue(v.saveSQL, append(args, v.columns(changes)...)...).QueryRow(func(row pgx.Row) error { return row.Scan(&changed) })
	return changed, tx.RunBatch(ctx, &batch)
}
