package jobs

import (
	"context"
	"fmt"

	"syncer/imclient"
	"syncer/repo"
)

// usersRead is how many rows of a users table are read at once when all of it
// is gone through: two short columns each.
const usersRead = 20_000

// reconcile finds out who left the users table since the previous complete run.
// It is the last thing done in a run, and only when the users that the run met
// are not those of the run before: see repo.ErrUnreconciled.
func (e *Engine) reconcile(ctx context.Context, r *repo.Range) (err error) {
	ctx, span := e.spansOf(r.Run).begin(ctx, "reconcile")
	defer func() { end(span, err) }()
	app := e.apps[r.Run.AppID]
	next := usersOf(app.Users)
	var removed int64
	switch r.Run.Kind {
	case imclient.KindPresence:
		removed, err = e.store.Presence().Reconcile(ctx, r, next)
	case imclient.KindAccounts:
		removed, err = e.store.Accounts().Reconcile(ctx, r, next)
	default:
		err = fmt.Errorf("unknown kind %q of run %d", r.Run.Kind, r.Run.ID)
	}
	if err != nil {
		return err
	}
	if removed > 0 {
		e.log.Info().Str("app", app.Name).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).
			Int64("removed", removed).Msg("users left the users table")
	}
	return nil
}

// usersOf goes through a users table: each call gives the ids of the next rows
// that have one, until there are none left.
func usersOf(users *repo.Users) func(context.Context) ([]string, error) {
	var after *string
	atEnd := false
	return func(ctx context.Context) ([]string, error) {
		var ids []string
		for len(ids) == 0 && !atEnd {
			page, err := users.Page(ctx, after, nil, usersRead)
			if err != nil {
				return nil, err
			}
			ids, after = page.IDs, new(page.LastKey)
			atEnd = page.Rows < usersRead
		}
		return ids, nil
	}
}
