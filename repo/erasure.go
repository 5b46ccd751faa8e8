package repo

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
	"syncer/repo/userstable"
)

// Salt keys the hashes by which erased users are recorded. Without it they cannot be
// compared with user ids.
type Salt string

// Hash returns the hash by which an erased user is recorded.
func (s Salt) Hash(userID string) []byte { return s.mac("user\x00" + userID) }

// ID identifies the salt, without revealing it.
func (s Salt) ID() []byte { return s.mac("salt\x00")[:8] }

func (s Salt) mac(text string) []byte {
	h := hmac.New(sha256.New, []byte(s))
	h.Write([]byte(text))
	return h.Sum(nil)
}

// ErrSalt reports that users were excluded under a salt that the configuration does not
// have, so that it is not known who they are.
var ErrSalt = errors.New("users are excluded from sweeps (syncer forget --exclude), but [history] erasure_salt is not the one that they were excluded with, so syncer cannot tell who they are: configure that salt; docs/privacy.md says what to do if it is lost")

// known returns ErrSalt unless all ids are that of s.
func (s Salt) known(ids [][]byte) error {
	if len(ids) == 0 {
		return nil
	}
	own := s.ID()
	for _, id := range ids {
		if !bytes.Equal(id, own) {
			return ErrSalt
		}
	}
	return nil
}

// Check returns ErrSalt if users of the range's app are excluded under another salt.
func (s Salt) Check(r *Range) error { return s.known(r.saltIDs) }

// Skip removes the users whom sweeps skip from ids, in place. Nothing is hashed if the app
// has none.
func (s Salt) Skip(r *Range, ids []string) []string {
	if len(r.excluded) == 0 {
		return ids
	}
	return slices.DeleteFunc(ids, func(id string) bool {
		_, excluded := r.excluded[string(s.Hash(id))]
		return excluded
	})
}

// erasedHash is a user in the table erasure.
type erasedHash struct{ User, SaltID []byte }

// without returns the ids without those of erased users.
func (s Salt) without(erased []erasedHash, ids []string) ([]string, error) {
	if len(erased) == 0 {
		return ids, nil
	}
	hashes, salts := make([][]byte, len(erased)), make([][]byte, len(erased))
	for i, e := range erased {
		hashes[i], salts[i] = e.User, e.SaltID
	}
	if s.known(salts) != nil {
		return nil, fmt.Errorf("%w, who may be on the list: start again", ErrErased)
	}
	set := setOf(hashes)
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, is := set[string(s.Hash(id))]
		return is
	}), nil
}

func setOf(hashes [][]byte) map[string]struct{} {
	if len(hashes) == 0 {
		return nil
	}
	set := make(map[string]struct{}, len(hashes))
	for _, h := range hashes {
		set[string(h)] = struct{}{}
	}
	return set
}

const excludedSaltsSQL = `
SELECT DISTINCT salt_id
FROM syncer.erasure
WHERE excluded`

// CheckSalt returns ErrSalt if users of any app are excluded under another salt.
func (s *Store) CheckSalt(ctx context.Context, salt Salt) error {
	ids, err := pg.Collect(ctx, s, pgx.RowTo[[]byte], excludedSaltsSQL)
	if err != nil {
		return fmt.Errorf("look which users are excluded: %w", s.ExplainRefusal(ctx, err))
	}
	return salt.known(ids)
}

const isExcludedSQL = `
SELECT EXISTS (SELECT FROM syncer.erasure WHERE app_id = $1 AND user_hash = $2 AND excluded)`

// IsExcluded reports whether sweeps of an app skip a user.
func (s *Store) IsExcluded(ctx context.Context, appID int16, salt Salt, userID string) (excluded bool, err error) {
	if err := s.QueryRow(ctx, isExcludedSQL, appID, salt.Hash(userID)).Scan(&excluded); err != nil {
		return false, fmt.Errorf("look whether the user is excluded: %w", s.ExplainRefusal(ctx, err))
	}
	return excluded, nil
}

// Erasure is the erasure of one user of one app.
type Erasure struct {
	App     App
	UserID  string
	Salt    Salt
	Exclude bool // sweeps skip the user from then on
	DryRun  bool // nothing is changed
}

// Erased is what an erasure changed or, in a dry run, would change.
type Erased struct {
	Places    []ErasedPlace // those with rows
	Cancelled []int64       // runs that were running, of whose ranges the user's id was a bound
	Ended     []int64       // closed ones, which cannot be resumed any more
}

// ErasedPlace is a table, or a column with messages, and how many rows of it were changed.
type ErasedPlace struct {
	Place string
	Rows  int64
}

const lockMaintenanceSQL = `
SELECT syncer.lock_for_maintenance($1)`

// The runs whose ranges have one of the names $2 as a key.
const boundRunsSQL = `
SELECT u.run_id, u.status = 'running'
FROM syncer.sync_run AS u
WHERE u.app_id = $1
  AND (u.plan_cursor = ANY ($2) OR EXISTS (
      SELECT FROM syncer.sync_range AS r
      WHERE r.run_id = u.run_id AND (r.lower_key = ANY ($2) OR r.upper_key = ANY ($2) OR r.cursor_key = ANY ($2))))
ORDER BY u.run_id`

const dropBoundRangesSQL = `
WITH ranges AS (
    DELETE FROM syncer.sync_range
    WHERE run_id = ANY ($1)
)
UPDATE syncer.sync_run
SET plan_cursor = NULL
WHERE run_id = ANY ($1)`

const eraseUserSQL = `
SELECT place, changed
FROM syncer.erase_user($1, $2)
WHERE changed > 0`

const countErasureSQL = `
UPDATE syncer.sync_run
SET erasures = erasures + 1
WHERE app_id = $1 AND status = 'running'`

const recordErasureSQL = `
INSERT INTO syncer.erasure AS e (app_id, user_hash, salt_id, erased_at, excluded)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (app_id, user_hash) DO UPDATE
SET erased_at = excluded.erased_at, salt_id = excluded.salt_id, excluded = e.excluded OR excluded.excluded`

// errStarted reports that a run was started while the others were locked.
var errStarted = errors.New("runs of the app come and go too fast")

// Erase removes a user of an app from all tables, in one transaction, and records that. It
// does not look at the users table. Pages of running runs that were read before and are not
// written yet are dropped, and read again: see ErrErased.
func (s *Store) Erase(ctx context.Context, e Erasure) (Erased, error) {
	var erased Erased
	var err error
	for range 5 {
		err = s.InTx(ctx, func(tx *pg.Tx) (err error) {
			erased, err = s.erase(ctx, tx, e)
			if err == nil && e.DryRun {
				return errDryRun
			}
			return err
		})
		if !errors.Is(err, errStarted) {
			break
		}
	}
	if err != nil && !errors.Is(err, errDryRun) {
		return Erased{}, fmt.Errorf("erase a user of app %s: %w", e.App.Name, s.ExplainRefusal(ctx, err))
	}
	return erased, nil
}

func (s *Store) erase(ctx context.Context, tx *pg.Tx, e Erasure) (erased Erased, err error) {
	// Rows on their way from one table to another would be missed: from the default
	// partition to a new one, or from a history to the roll-up.
	for _, table := range []string{"presence_history", "presence_rollup"} {
		if err := s.awaitMaintenance(ctx, tx, table); err != nil {
			return erased, err
		}
	}
	if err := lockApps(ctx, tx, e.App.ID); err != nil {
		return erased, err
	}
	names := storedNames(e.UserID)
	if err := s.dropBounds(ctx, tx, e.App.ID, names, &erased); err != nil {
		return erased, err
	}
	erased.Places, err = pg.Collect(ctx, tx.Patient(), pgx.RowToStructByPos[ErasedPlace], eraseUserSQL, e.App.ID, names)
	if err != nil {
		return erased, err
	}
	if _, err := tx.Exec(ctx, countErasureSQL, e.App.ID); err != nil {
		return erased, err
	}
	_, err = tx.Exec(ctx, recordErasureSQL, e.App.ID, e.Salt.Hash(e.UserID), e.Salt.ID(), s.Now(), e.Exclude)
	return erased, err
}

// awaitMaintenance waits until no other session maintains a table, and keeps others from it
// until the end of the transaction. Those who read and write it do not wait.
func (s *Store) awaitMaintenance(ctx context.Context, tx *pg.Tx, table string) error {
	const tries = 150 // of 0.8 s: a first roll-up takes minutes
	name := pgx.Identifier{s.Schema(), table}.Sanitize()
	for range tries {
		var locked bool
		if err := tx.QueryRow(ctx, lockMaintenanceSQL, name).Scan(&locked); err != nil || locked {
			return err
		}
	}
	return s.inUse(ctx)
}

// lockApps waits for the pages in flight of an app's running runs, and keeps these from
// going on, and others from starting, until the end of the transaction. It returns
// errStarted if a run has just started. Pages lock the run before the app, so the runs come
// first here too.
func lockApps(ctx context.Context, tx *pg.Tx, appID int16) error {
	before, err := pg.Collect(ctx, tx, pgx.RowTo[int64], openRunsSQL, appID)
	if err != nil {
		return err
	}
	for _, runID := range before {
		if err := lockRun(ctx, tx, runID, forEnd); err != nil && !errors.Is(err, ErrGone) {
			return err
		}
	}
	if _, err := lockApp(ctx, tx, lockAppSQL, appID); err != nil {
		return err
	}
	open, err := pg.Collect(ctx, tx, pgx.RowTo[int64], openRunsSQL, appID)
	if err != nil {
		return err
	}
	for _, runID := range open {
		if !slices.Contains(before, runID) {
			return errStarted
		}
	}
	return nil
}

// dropBounds removes the user from the bounds of ranges. No other bound can take its place,
// so the run ends; a bound in a range of 50,000 users is a rare case.
func (s *Store) dropBounds(ctx context.Context, tx *pg.Tx, appID int16, names []string, erased *Erased) error {
	type boundRun struct {
		ID      int64
		Running bool
	}
	runs, err := pg.Collect(ctx, tx, pgx.RowToStructByPos[boundRun], boundRunsSQL, appID, names)
	if err != nil || len(runs) == 0 {
		return err
	}
	for _, run := range runs {
		if !run.Running {
			erased.Ended = append(erased.Ended, run.ID)
			continue
		}
		if err := s.closeRun(ctx, tx, run.ID, RunCancelled, "a user was erased whose id bounds a range of this run; start it again"); err != nil {
			return err
		}
		erased.Cancelled = append(erased.Cancelled, run.ID)
	}
	_, err = tx.Exec(ctx, dropBoundRangesSQL, slices.Concat(erased.Cancelled, erased.Ended))
	return err
}

// storedNames returns the texts under which the tables have a user.
func storedNames(userID string) []string {
	names := append([]string{userID, failureID(userID)}, userstable.StoredNames(userID)...)
	slices.Sort(names)
	return slices.Compact(names)
}

// ErasureRecord is a row of the table erasure.
type ErasureRecord struct {
	App      string
	UserHash []byte
	SaltID   []byte
	ErasedAt time.Time
	Excluded bool
}

const erasuresSQL = `
SELECT a.name, e.user_hash, e.salt_id, e.erased_at, e.excluded
FROM syncer.erasure AS e
JOIN syncer.app AS a USING (app_id)
WHERE $1::text IS NULL OR a.name = $1
ORDER BY e.erased_at, a.name, e.user_hash`

// Erasures returns the recorded erasures of an app, or of all apps if it is nil.
func (s *Store) Erasures(ctx context.Context, app *string) ([]ErasureRecord, error) {
	records, err := pg.Collect(ctx, s, pgx.RowToStructByPos[ErasureRecord], erasuresSQL, app)
	if err != nil {
		return nil, fmt.Errorf("read the erasures: %w", s.ExplainRefusal(ctx, err))
	}
	return records, nil
}

const storedUsersSQL = `
SELECT syncer.stored_users($1)`

// StoredUsers calls f with the ids of all users of an app in the tables, with some of them
// more than once.
func (s *Store) StoredUsers(ctx context.Context, appID int16, f func(userID string)) error {
	rows, err := s.Patient().Query(ctx, storedUsersSQL, appID)
	if err == nil {
		var id string
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error { f(id); return nil })
	}
	if err != nil {
		return fmt.Errorf("read the ids of all users: %w", s.ExplainRefusal(ctx, err))
	}
	return nil
}

const listErasureSQL = `
INSERT INTO syncer.erasure AS e (app_id, user_hash, salt_id, erased_at, excluded)
SELECT app_id, $2, $3, $4, $5
FROM syncer.app
WHERE name = $1
ON CONFLICT (app_id, user_hash) DO UPDATE
SET erased_at = greatest(e.erased_at, excluded.erased_at), excluded = e.excluded OR excluded.excluded`

// ListErasures adds erasures that were recorded elsewhere, before the database was restored.
func (s *Store) ListErasures(ctx context.Context, records []ErasureRecord) error {
	err := s.InTx(ctx, func(tx *pg.Tx) error {
		for _, r := range records {
			if _, err := tx.Exec(ctx, listErasureSQL, r.App, r.UserHash, r.SaltID, r.ErasedAt, r.Excluded); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("record erasures: %w", s.ExplainRefusal(ctx, err))
	}
	return nil
}
