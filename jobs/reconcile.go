package jobs

import (
	"context"
	"fmt"

	"syncer/repo"
	"syncer/repo/userstable"
)

// usersRead is how many rows are read at once when a whole users table is read:
// two short columns each.
const usersRead = 20_000

// reconcile finds who left the users table since the previous complete run. It is
// the last step of a run, taken only if the users that the run met are not those of
// the run before: see repo.ErrUnreconciled.
func (w *workers) reconcile(ctx context.Context, r *repo.Range) (err error) {
	ctx, span := w.spansOf(r.Run).begin(ctx, "reconcile")
	defer func() { end(span, err) }()
	app := w.apps[r.Run.AppID]
	leavers, err := w.lane(r.Run).kind.reconcile(ctx, w.store, r, usersOf(app.Users), func(l repo.Leavers) string { return w.holdBack(r.Run, l) })
	if err != nil {
		return err
	}
	// Users who are held back are logged when the run is closed.
	if leavers.Users > 0 && leavers.HeldBack == "" {
		w.log.Info().Str("app", app.Name).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).
			Int64("removed", leavers.Users).Msg("users left the users table")
	}
	return nil
}

// holdBack returns why a run may not remove so many users, or "" if it may. A
// users table that was emptied or narrowed by mistake looks as if they had left.
func (w *workers) holdBack(run repo.Run, l repo.Leavers) string {
	ratio := w.config.RemovalRatio
	if run.LetLeave || l.Known < int64(w.config.RemovalMin) || float64(l.Users) <= ratio*float64(l.Known) {
		return ""
	}
	return fmt.Sprintf("no user was removed: %d of %d known users are missing from the users table, a larger share than [sweep] removal_ratio (%g); "+
		"if that is a mistake, mend the users table or [users] where, and the next run is complete again; "+
		"if these users have really left, run: syncer backfill --app %s --job %s --let-leave",
		l.Users, l.Known, ratio, w.apps[run.AppID].Name, run.Kind)
}

// usersOf returns a function that reads a users table: each call returns the ids of
// the next rows that have one, and none at the end.
func usersOf(users *userstable.Table) func(context.Context) ([]string, error) {
	walk := users.Walk("")
	var after *string
	atEnd := false
	return func(ctx context.Context) ([]string, error) {
		var ids []string
		for len(ids) == 0 && !atEnd {
			page, err := walk.Page(ctx, after, nil, usersRead)
			if err != nil {
				return nil, ofUsers(err)
			}
			ids, after = page.IDs, new(page.LastKey)
			atEnd = !page.More
		}
		return ids, nil
	}
}
