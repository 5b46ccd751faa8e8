package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/repo/userstable"
)

// Listed reads the users of a run that is limited to a list, by keyset like the
// users table; the key is the user id itself.
type Listed struct {
	store *Store
	runID int64
}

// Listed gives the listed users of a run.
func (s *Store) Listed(runID int64) *Listed { return &Listed{store: s, runID: runID} }

const cutListedSQL = `
SELECT user_id
FROM syncer.sync_run_user
WHERE run_id = $1 AND user_id > $2
ORDER BY user_id
OFFSET $3 LIMIT 1`

// Cut gives the id of the n-th user after one; ok is false when fewer are left.
func (l *Listed) Cut(ctx context.Context, after *string, n int) (key string, ok bool, err error) {
	err = l.store.QueryRow(ctx, cutListedSQL, l.runID, fromStart(after), n-1).Scan(&key)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("cut the listed users of run %d: %w", l.runID, err)
	}
	return key, true, nil
}

const listedPageSQL = `
SELECT user_id
FROM syncer.sync_run_user
WHERE run_id = $1 AND user_id > $2 AND ($3::text IS NULL OR user_id <= $3)
ORDER BY user_id
LIMIT $4`

// Page gives at most limit users after one and up to another.
func (l *Listed) Page(ctx context.Context, after, upto *string, limit int) (userstable.Page, error) {
	rows, err := l.store.Query(ctx, listedPageSQL, l.runID, fromStart(after), upto, limit+1)
	if err != nil {
		return userstable.Page{}, fmt.Errorf("read the listed users of run %d: %w", l.runID, err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return userstable.Page{}, fmt.Errorf("read the listed users of run %d: %w", l.runID, err)
	}
	page := userstable.Page{More: len(ids) > limit}
	page.IDs = ids[:min(len(ids), limit)]
	if page.Rows = len(page.IDs); page.Rows > 0 {
		page.LastKey = page.IDs[page.Rows-1]
	}
	return page, nil
}

// Order returns "": the order of a list never changes.
func (l *Listed) Order() string { return "" }

// fromStart: every id that is in the list sorts after the empty string.
func fromStart(after *string) string {
	if after == nil {
		return ""
	}
	return *after
}
