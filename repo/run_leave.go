package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
)

// Population identifies the users of some rows by their number and a hash of their ids,
// which shows that no user left without a row for each. A user of several rows counts for
// each.
type Population struct {
	Users int64
	Hash  int64 // sum of the ids' hashes, modulo 2^62
}

// populationHash limits hashes so that the sum of two does not overflow a bigint. XOR would
// not see users of two rows.
const populationHash = 1<<62 - 1

// Add adds a user of some rows.
func (p *Population) Add(id string, rows int) {
	p.Users += int64(rows)
	p.Hash = (p.Hash + int64(rows)*hashOf(id)) & populationHash
}

func hashOf(id string) int64 {
	// FNV-1a, which mixes the last bytes little, and the finalizer of SplitMix64.
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return int64(h^h>>31) & populationHash
}

// lapsesSQL are the users whom the API has rejected for too long: the columns of
// lapseColumns.
const lapsesSQL = `unnest($3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[])
        AS l (user_id, prev_changed_at, not_before, asked_at, observed_at)`

const createUsersSQL = `
CREATE TEMPORARY TABLE sync_users (user_id text COLLATE "C" NOT NULL, hash bigint NOT NULL) ON COMMIT DROP`

const analyzeUsersSQL = `ANALYZE pg_temp.sync_users`

// The users of app $1 with a snapshot who were not in the users table when it was read,
// from $3 on. A later snapshot is newer than that.
const leftUsersTableSQL = `s.app_id = $1 AND s.changed_at < $3
      AND NOT EXISTS (SELECT FROM pg_temp.sync_users AS u WHERE u.user_id = s.user_id)`

// When such a user was last known to have the value: in the previous complete run ($4),
// if the snapshot is older and the API did not reject the user. A hint may have changed the
// snapshot of a rejected user since.
const lastKnownSQL = `least($3, coalesce((
                  SELECT greatest(f.known_at, s.asked_at)
                  FROM syncer.user_failure AS f
                  WHERE f.app_id = $1 AND f.kind = $5 AND f.user_id = s.user_id
              ), CASE WHEN s.changed_at <= $4 THEN $4 ELSE s.asked_at END))`

// The number of users that the complete run before run $2 knew; NULL if there was none.
const prevKnownSQL = `(
    SELECT coalesce(prev.known_users, prev.users - prev.failed)
    FROM syncer.sync_run AS u
    JOIN syncer.sync_run AS prev ON prev.app_id = u.app_id AND prev.kind = u.kind AND prev.complete
    WHERE u.run_id = $2
    ORDER BY prev.started_at DESC
    LIMIT 1
)`

const setReconciledSQL = `
UPDATE syncer.sync_run
SET reconciled = true, removed = removed + $2, known_users = $3, known_hash = $4, held_back = $5, error = nullif($6, '')
WHERE run_id = $1`

// Leavers are the users with a snapshot who are not in the users table.
type Leavers struct {
	Users int64
	// Known is the number of users that the previous complete run knew, at least Users.
	// New users do not count: with them, a table replaced by another one would look as if
	// half of its users had stayed.
	Known    int64
	HeldBack string // why they were not removed; "": they were
}

// Reconcile removes the users who left the users table since the previous complete run. It
// compares the whole table, which may be in another database, with the snapshots: next
// returns the ids of its next part, none at its end. If hold returns a reason, no user is
// removed: the run will end as partial, with the reason as its error, and not be complete.
// r is the run's last open range. Reconcile returns ErrGone if r has another owner.
func (v *Values[V]) Reconcile(ctx context.Context, r *Range, next func(context.Context) ([]string, error), hold func(Leavers) string) (Leavers, error) {
	var leavers Leavers
	readFrom := v.store.Now()
	err := v.store.InTxOnce(ctx, func(tx *pg.Tx) error {
		// Before the locks, because it takes long.
		if err := copyUsers(ctx, tx, next); err != nil {
			return err
		}
		readUntil := v.store.Now()
		var batch pgx.Batch
		fence(&batch, r, forProgress, new(bool))
		if err := tx.RunBatch(ctx, &batch); err != nil {
			return err
		}
		leavers = Leavers{}
		if err := tx.Patient().QueryRow(ctx, v.leaversSQL, r.Run.AppID, r.Run.ID, readFrom).
			Scan(&leavers.Users, &leavers.Known); err != nil {
			return fmt.Errorf("count the users who left: %w", err)
		}
		if leavers.Users > 0 {
			leavers.HeldBack = hold(leavers)
		}
		if leavers.HeldBack != "" {
			_, err := tx.Exec(ctx, setReconciledSQL, r.Run.ID, 0, nil, 0, leavers.Users, leavers.HeldBack)
			return err
		}
		if leavers.Users > 0 {
			tag, err := tx.Patient().Exec(ctx, v.removeSQL, r.Run.AppID, r.Run.ID, readFrom, r.Run.PrevCompleteAt, v.kind, readUntil)
			if err != nil {
				return fmt.Errorf("remove the users who left: %w", err)
			}
			leavers.Users = tag.RowsAffected()
		}
		var left *int64
		var hash int64
		if err := tx.Patient().QueryRow(ctx, v.countSQL, r.Run.AppID).Scan(&left, &hash); err != nil {
			return fmt.Errorf("count the users left: %w", err)
		}
		_, err := tx.Exec(ctx, setReconciledSQL, r.Run.ID, leavers.Users, left, hash, 0, "")
		return err
	})
	if errors.Is(err, ErrGone) {
		return Leavers{}, ErrGone
	}
	if err != nil {
		return Leavers{}, fmt.Errorf("find out who left the users table in run %d: %w", r.Run.ID, err)
	}
	return leavers, nil
}

func copyUsers(ctx context.Context, tx *pg.Tx, next func(context.Context) ([]string, error)) error {
	if _, err := tx.Exec(ctx, createUsersSQL); err != nil {
		return err
	}
	source := &usersCopy{next: func() ([]string, error) { return next(ctx) }}
	_, err := tx.Patient().CopyFrom(ctx, pgx.Identifier{"pg_temp", "sync_users"}, []string{"user_id", "hash"}, source)
	if source.err != nil {
		return source.err // the database returns only its text
	}
	if err != nil {
		return fmt.Errorf("copy the users table: %w", err)
	}
	// Without statistics the planner would assume a small table.
	_, err = tx.Exec(ctx, analyzeUsersSQL)
	return err
}

// usersCopy feeds a COPY from parts of a users table.
type usersCopy struct {
	next func() ([]string, error)
	part []string
	at   int
	err  error
}

// Next implements pgx.CopyFromSource.
func (c *usersCopy) Next() bool {
	c.at++
	if c.at < len(c.part) {
		return true
	}
	c.part, c.err = c.next()
	c.at = 0
	return c.err == nil && len(c.part) > 0
}

// Values implements pgx.CopyFromSource.
func (c *usersCopy) Values() ([]any, error) { return []any{c.part[c.at], hashOf(c.part[c.at])}, nil }

// Err implements pgx.CopyFromSource.
func (c *usersCopy) Err() error { return c.err }
