package jobs

import (
	"context"
	"fmt"

	"syncer/imclient"
	"syncer/repo"
	"syncer/repo/userstable"
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
	next, hold := usersOf(app.Users), func(l repo.Leavers) string { return e.holdBack(r.Run, l) }
	var leavers repo.Leavers
	switch r.Run.Kind {
	case imclient.KindPresence:
		leavers, err = e.store.Presence().Reconcile(ctx, r, next, hold)
	case imclient.KindAccounts:
		leavers, err = e.store.Accounts().Reconcile(ctx, r, next, hold)
	default:
		err = fmt.Errorf("unknown kind %q of run %d", r.Run.Kind, r.Run.ID)
	}
	if err != nil {
		return err
	}
	// Users who are held back are told of when the run is closed.
	if leavers.Users > 0 && leavers.HeldBack == "" {
		e.log.Info().Str("app", app.Name).Str("job", r.Run.Job).Int64("run_id", r.Run.ID).
			Int64("removed", leavers.Users).Msg("users left the users table")
	}
	return nil
}

// holdBack returns why a run may not remove so many users, or "" if it may. A
// users table that was emptied or narrowed by mistake looks as if they had left.
func (e *Engine) holdBack(run repo.Run, l repo.Leavers) string {
	ratio := e.config.RemovalRatio
	if run.LetLeave || l.Known < int64(e.config.RemovalMin) || float64(l.Users) <= ratio*float64(l.Known) {
		return ""
	}
	return fmt.Sprintf("no user was removed: %d of %d known users are missing from the users table, a larger share than [sweep] removal_ratio (%g); "+
		"if that is a mistake, mend the users table or [users] where, and the next run is complete again; "+
		"if these users have really left, run: syncer backfill --app %s --job %s --let-leave",
		l.Users, l.Known, ratio, e.apps[run.AppID].Name, run.Kind)
}

// usersOf goes through a users table: each call gives the ids of the next rows
// that have one, until there are none left.
func usersOf(users *userstable.Table) func(context.Context) ([]string, error) {
	walk := users.Walk("")
	var after *string
	atEnd := false
	return func(ctx context.Context) ([]string, error) {
		var ids []string
		for len(ids) == 0 && !atEnd {
			page, err := walk.Page(ctx, after, nil, usersRead)
			if err != nil {
				return nil, err
			}
			ids, after = page.IDs, new(page.LastKey)
			atEnd = !page.More
		}
		return ids, nil
	}
}
