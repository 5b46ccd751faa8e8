package main

import (
	"context"
	"fmt"
)

// checkedUsers is how many users are compared one by one at most.
const checkedUsers = 1_000_000

const historyRowsSQL = `
SELECT (SELECT count(*) FROM syncer.presence_history WHERE run_id = ANY ($1))
     + (SELECT count(*) FROM syncer.account_history WHERE run_id = ANY ($1))`

const shownSQL = `
SELECT user_id, state::text, platforms::text
FROM syncer.presence_current
WHERE user_id > $1
ORDER BY user_id
LIMIT $2`

const importedSQL = `
SELECT count(*) FILTER (WHERE status = 'imported')
FROM syncer.account_current`

// checkRows is an error unless the runs that were measured left as many rows of
// the history as they say that users changed, and unless what syncer shows is
// what the simulator serves. That is asked of another simulator, so that this
// one's limit does not matter; share is that of the users who change.
func (s *sweeps) checkRows(ctx context.Context, share float64) error {
	var rows int64
	if err := s.db.QueryRow(ctx, historyRowsSQL, s.runs).Scan(&rows); err != nil {
		return err
	}
	if rows != s.change {
		return fmt.Errorf("the runs say that %d users changed, and the history has %d rows of them", s.change, rows)
	}
	if s.kind != "presence" {
		return s.checkImported(ctx, share)
	}
	sim, err := s.simulate(ctx, limits{presence: noLimit, accounts: noLimit, change: share})
	if err != nil {
		return err
	}
	if err := sim.setRound(ctx, s.round); err != nil {
		return err
	}
	if err := s.compare(ctx, sim); err != nil {
		return err
	}
	return sim.Stop()
}

// shown is a row of presence_current.
type shown struct{ id, state, platforms string }

// compare asks a simulator about the users and compares what syncer shows.
func (w *world) compare(ctx context.Context, sim *simulator) error {
	client, err := newPlainClient(sim.url, w.began)
	if err != nil {
		return err
	}
	want := min(w.users, checkedUsers)
	after, compared := "", 0
	for compared < want {
		page, err := w.shown(ctx, after, min(10_000, want-compared))
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return fmt.Errorf("syncer shows %d users and should show %d", compared, w.users)
		}
		for len(page) > 0 {
			part := page[:min(batch, len(page))]
			page = page[len(part):]
			if err := compareBatch(ctx, client, part); err != nil {
				return err
			}
			after = part[len(part)-1].id
			compared += len(part)
		}
	}
	return nil
}

func (w *world) shown(ctx context.Context, after string, limit int) ([]shown, error) {
	rows, err := w.db.Query(ctx, shownSQL, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []shown
	for rows.Next() {
		var s shown
		if err := rows.Scan(&s.id, &s.state, &s.platforms); err != nil {
			return nil, err
		}
		page = append(page, s)
	}
	return page, rows.Err()
}

func compareBatch(ctx context.Context, client *plainClient, part []shown) error {
	ids := make([]string, len(part))
	for i, s := range part {
		ids[i] = s.id
	}
	body, err := client.ask(ctx, ids)
	if err != nil {
		return err
	}
	answers, err := decode(body, len(ids))
	if err != nil {
		return err
	}
	for i, a := range answers {
		if served := (shown{a.UserID, a.state(), a.platforms()}); part[i] != served {
			return fmt.Errorf("syncer shows %v, and the simulator serves %v", part[i], served)
		}
	}
	return nil
}

// checkImported compares how many users are imported with how many should be:
// everybody was, and each round a share of them is no longer. A user changes at
// one time of 1/share rounds.
func (s *sweeps) checkImported(ctx context.Context, share float64) error {
	var imported int64
	if err := s.db.QueryRow(ctx, importedSQL).Scan(&imported); err != nil {
		return err
	}
	left := float64(int64(s.users)-imported) / float64(s.users)
	if want := share * float64(s.round); left < want/2 || left > want*2 {
		return fmt.Errorf("%d of %d users are imported after %d rounds in which a share of %g changed", imported, s.users, s.round, share)
	}
	return nil
}
