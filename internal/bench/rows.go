package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// checkedUsers is how many users are compared one by one at most.
const checkedUsers = 1_000_000

const historyRowsSQL = `
SELECT (SELECT count(*) FROM syncer.presence_history WHERE run_id = ANY ($1))
     + (SELECT count(*) FROM syncer.account_history WHERE run_id = ANY ($1))`

const shownSQL = `
SELECT user_id, state::text, platforms::text
FROM syncer.presence_current
WHERE user_id <= $1
ORDER BY user_id`

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
	return s.compareRound(ctx, share, s.round)
}

// compareRound compares with another simulator in the same round.
func (w *world) compareRound(ctx context.Context, share float64, round int) error {
	sim, err := w.simulate(ctx, limits{presence: noLimit, accounts: noLimit, change: share})
	if err != nil {
		return err
	}
	if err := sim.setRound(ctx, round); err != nil {
		return err
	}
	return errors.Join(w.compare(ctx, sim), sim.Stop())
}

// shown is a row of presence_current.
type shown struct{ id, state, platforms string }

// compare asks a simulator about the users and compares what syncer shows.
func (w *world) compare(ctx context.Context, sim *simulator) error {
	client, err := newPlainClient(sim.url, time.Now())
	if err != nil {
		return err
	}
	rows, err := w.db.Query(ctx, shownSQL, fmt.Sprintf("user-%08d", checkedUsers))
	if err != nil {
		return err
	}
	defer rows.Close()
	compared := 0
	var part []shown
	for rows.Next() {
		var s shown
		if err := rows.Scan(&s.id, &s.state, &s.platforms); err != nil {
			return err
		}
		if part = append(part, s); len(part) < batch {
			continue
		}
		if err := compareBatch(ctx, client, part); err != nil {
			return err
		}
		compared += len(part)
		part = part[:0]
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(part) > 0 {
		if err := compareBatch(ctx, client, part); err != nil {
			return err
		}
	}
	if compared += len(part); compared != min(w.users, checkedUsers) {
		return fmt.Errorf("syncer shows %d of the first %d users", compared, min(w.users, checkedUsers))
	}
	return nil
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
