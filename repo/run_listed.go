package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"syncer/internal/pg"
	"syncer/repo/userstable"
)

// Listed reads the users of a run that is limited to a list, by keyset pagination like the
// users table. The key is the user id.
type Listed struct {
	store *Store
	runID int64
}

// Listed returns the listed users of a run.
func (s *Store) Listed(runID int64) *Listed { return &Listed{store: s, runID: runID} }

const cutListedSQL = `
SELECT user_id
FROM syncer.sync_run_user
WHERE run_id = $1 AND user_id > $2
ORDER BY user_id
OFFSET $3 LIMIT 1`

// Cut returns the id of the n-th user after one (nil: from the start). It reports false if
// there are fewer.
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

// Page returns at most limit users after one (nil: from the start) and up to another (nil:
// to the end).
func (l *Listed) Page(ctx context.Context, after, upto *string, limit int) (userstable.Page, error) {
	ids, err := pg.Collect(ctx, l.store, pgx.RowTo[string], listedPageSQL, l.runID, fromStart(after), upto, limit+1)
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

// fromStart returns an id before all listed ones if after is nil.
func fromStart(after *string) string {
	if after == nil {
		return ""
	}
	return *after
}
