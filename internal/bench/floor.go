package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// floorPage is how many users the floor reads and writes at once.
const floorPage = 5000

// The floor is the least that a sweep can be: one goroutine reads the ids and
// the snapshots side by side, decodes answers that are in memory already, and
// writes what differs by two statements in one transaction a page. It asks
// nobody, keeps no run, and would lose its place if it were stopped.

const floorUsersSQL = `
SELECT id
FROM public.users
WHERE id > $1
ORDER BY id
LIMIT $2`

const floorSnapshotsSQL = `
SELECT user_id, state::text, platforms::text, since, since_after, asked_at
FROM syncer.presence_snapshot
WHERE app_id = $1 AND user_id > $2 AND user_id <= $3
ORDER BY user_id`

const floorUpdateSQL = `
UPDATE syncer.presence_snapshot AS s
SET state = c.state::syncer.presence_state, platforms = c.platforms::jsonb, changed_at = $2, asked_at = $2,
    since = c.since, since_after = c.since_after, run_id = 0
FROM unnest($3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[]) AS c (user_id, state, platforms, since, since_after)
WHERE s.app_id = $1 AND s.user_id = c.user_id`

const floorInsertSQL = `
INSERT INTO syncer.presence_history (app_id, user_id, prev_state, prev_since, prev_since_after, state, platforms, not_before, observed_at, run_id)
SELECT $1, c.user_id, c.prev_state::syncer.presence_state, c.prev_since, c.prev_since_after, c.state::syncer.presence_state, c.platforms::jsonb, c.not_before, $2, 0
FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::text[], $9::timestamptz[])
    AS c (user_id, prev_state, prev_since, prev_since_after, state, platforms, not_before)`

// floor sweeps once and returns how long it took; the bodies are the answers
// about all users, in the order of their ids.
func (w *world) floor(ctx context.Context, appID int16, bodies [][]byte) (took time.Duration, changed int, err error) {
	began := time.Now()
	for after := ""; ; {
		rows, err := w.db.Query(ctx, floorUsersSQL, after, floorPage)
		if err != nil {
			return 0, 0, err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return 0, 0, err
		}
		if len(ids) == 0 {
			return time.Since(began), changed, nil
		}
		var answers []userAnswer
		for left := len(ids); left > 0; left -= batch {
			part, err := decode(bodies[0], min(batch, left))
			if err != nil {
				return 0, 0, err
			}
			answers, bodies = append(answers, part...), bodies[1:]
		}
		n, err := w.floorPage(ctx, appID, after, answers, began)
		if err != nil {
			return 0, 0, err
		}
		changed += n
		after = ids[len(ids)-1]
	}
}

// changes are the columns of what a page writes.
type changes struct {
	ids, states, platforms, prevStates []string
	since, prevSince, notBefore        []time.Time
	prevSinceAfter, sinceAfter         []*time.Time
}

// floorPage compares a page's answers with its snapshots and writes what
// differs.
func (w *world) floorPage(ctx context.Context, appID int16, after string, answers []userAnswer, at time.Time) (changed int, err error) {
	rows, err := w.db.Query(ctx, floorSnapshotsSQL, appID, after, answers[len(answers)-1].UserID)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var c changes
	for i := 0; rows.Next(); i++ {
		var id, state, platforms string
		var since, askedAt time.Time
		var sinceAfter *time.Time
		if err := rows.Scan(&id, &state, &platforms, &since, &sinceAfter, &askedAt); err != nil {
			return 0, err
		}
		if i >= len(answers) || answers[i].UserID != id {
			return 0, fmt.Errorf("the snapshot of %s is not where its answer is", id)
		}
		newState, newPlatforms := answers[i].state(), answers[i].platforms()
		if newState == state && newPlatforms == platforms {
			continue
		}
		c.ids, c.states, c.platforms, c.prevStates = append(c.ids, id), append(c.states, newState), append(c.platforms, newPlatforms), append(c.prevStates, state)
		c.prevSince, c.prevSinceAfter, c.notBefore = append(c.prevSince, since), append(c.prevSinceAfter, sinceAfter), append(c.notBefore, askedAt)
		if newState != state {
			since, sinceAfter = at, &askedAt
		}
		c.since, c.sinceAfter = append(c.since, since), append(c.sinceAfter, sinceAfter)
	}
	if err := rows.Err(); err != nil || len(c.ids) == 0 {
		return 0, err
	}
	// What is sent as one batch is one transaction.
	var both pgx.Batch
	both.Queue(floorUpdateSQL, appID, at, c.ids, c.states, c.platforms, c.since, c.sinceAfter)
	both.Queue(floorInsertSQL, appID, at, c.ids, c.prevStates, c.prevSince, c.prevSinceAfter, c.states, c.platforms, c.notBefore)
	return len(c.ids), w.db.SendBatch(ctx, &both).Close()
}

// bodies asks about all users and keeps the answers as they came.
func (w *world) bodies(ctx context.Context, client *plainClient) ([][]byte, error) {
	var all [][]byte
	for after := ""; ; {
		rows, err := w.db.Query(ctx, floorUsersSQL, after, floorPage)
		if err != nil {
			return nil, err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(ids) == 0 {
			return all, err
		}
		after = ids[len(ids)-1]
		for len(ids) > 0 {
			part := ids[:min(batch, len(ids))]
			ids = ids[len(part):]
			body, err := client.ask(ctx, part)
			if err != nil {
				return nil, err
			}
			all = append(all, body)
		}
	}
}

const appIDSQL = `
SELECT app_id
FROM syncer.app
WHERE name = $1`

// byKey keeps Postgres from reading the whole of the snapshots to find those of
// a page.
var byKey = []string{"SET enable_hashjoin = off", "SET enable_mergejoin = off", "SET enable_seqscan = off", "SET enable_bitmapscan = off"}

// floors measures the floor several times, after a first time that does not
// count. It returns users a second, and the round that it came to.
func (w *world) floors(ctx context.Context, name string, sim *simulator, times int) (rates []float64, round int, err error) {
	var appID int16
	if err := w.db.QueryRow(ctx, appIDSQL, appName).Scan(&appID); err != nil {
		return nil, 0, err
	}
	client, err := newPlainClient(sim.url, time.Now())
	if err != nil {
		return nil, 0, err
	}
	if err := w.exec(ctx, byKey...); err != nil {
		return nil, 0, err
	}
	for i := range 1 + times {
		round++
		if err := sim.setRound(ctx, round); err != nil {
			return nil, 0, err
		}
		bodies, err := w.bodies(ctx, client)
		if err != nil {
			return nil, 0, err
		}
		took, changed, err := w.floor(ctx, appID, bodies)
		if err != nil {
			return nil, 0, fmt.Errorf("floor: %w", err)
		}
		if i == 0 {
			continue
		}
		rate := float64(w.users) / took.Seconds()
		w.say(name, "floor %d of %d: %s users/s, %s changed", i, times, thousands(rate), thousands(float64(changed)))
		rates = append(rates, rate)
	}
	return rates, round, w.exec(ctx, "RESET ALL", "SET search_path = syncer")
}
