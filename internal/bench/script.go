package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// The script is what one would write without syncer: it reads the users in
// pages of 500, asks about each page, one after the other, and upserts every
// user of it by one statement. It keeps no history, and writes users who did
// not change too.

const scriptTableSQL = `
CREATE TABLE public.script_presence (
    user_id    text COLLATE "C" PRIMARY KEY,
    state      text NOT NULL,
    platforms  jsonb NOT NULL,
    updated_at timestamptz NOT NULL
)`

const scriptUpsertSQL = `
INSERT INTO public.script_presence (user_id, state, platforms, updated_at)
SELECT user_id, state, platforms::jsonb, now()
FROM unnest($1::text[], $2::text[], $3::text[]) AS n (user_id, state, platforms)
ON CONFLICT (user_id) DO UPDATE
SET state = excluded.state, platforms = excluded.platforms, updated_at = excluded.updated_at`

// runScript goes through all users once.
func (w *world) runScript(ctx context.Context, client *plainClient) error {
	for after := ""; ; {
		rows, err := w.db.Query(ctx, floorUsersSQL, after, batch)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(ids) == 0 {
			return err
		}
		after = ids[len(ids)-1]
		body, err := client.ask(ctx, ids)
		if err != nil {
			return err
		}
		answers, err := decode(body, len(ids))
		if err != nil {
			return err
		}
		states, platforms := make([]string, len(ids)), make([]string, len(ids))
		for i, a := range answers {
			ids[i], states[i], platforms[i] = a.UserID, a.state(), a.platforms()
		}
		if _, err := w.db.Exec(ctx, scriptUpsertSQL, ids, states, platforms); err != nil {
			return err
		}
	}
}

// script measures the script, after a first time that does not count: then all
// users are new.
func (b *bench) script(ctx context.Context) error {
	const name, share = "script", 0.05
	w, err := b.loaded(ctx, b.users)
	if err != nil {
		return err
	}
	sim, err := b.simulate(ctx, limits{presence: noLimit, accounts: noLimit, change: share})
	if err != nil {
		return err
	}
	client, err := newPlainClient(sim.url, time.Now())
	if err != nil {
		return err
	}
	if err := w.exec(ctx, scriptTableSQL); err != nil {
		return err
	}
	var rates, cpu, wal []float64
	for i := range 1 + b.times(often) {
		if err := sim.setRound(ctx, i); err != nil {
			return err
		}
		postgres, err := familyCPU(b.server)
		if err != nil {
			return err
		}
		position, err := w.walPosition(ctx)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := w.runScript(ctx, client); err != nil {
			return err
		}
		rate := float64(w.users) / time.Since(began).Seconds()
		after, err := familyCPU(b.server)
		if err != nil {
			return err
		}
		end, err := w.walPosition(ctx)
		if err != nil {
			return err
		}
		if i == 0 {
			continue
		}
		b.say(name, "run %d of %d: %s users/s", i, b.times(often), thousands(rate))
		rates, wal = append(rates, rate), append(wal, float64(end-position)/float64(w.users))
		cpu = append(cpu, float64(after-postgres)/float64(time.Microsecond)/float64(w.users))
	}
	b.result.add(name, "users/s", target{}, thousands, rates...)
	b.result.add(name, "CPU of Postgres per user", target{}, microseconds, cpu...)
	b.result.add(name, "WAL per user", target{}, bytesPerUser, wal...)
	if syncer, ok := b.result.find("unlimited-5pct", usersPerSecond); ok {
		b.result.add(name, "unlimited-5pct's users/s to these", target{}, twoPlaces, syncer/median(rates))
	}
	return w.exec(ctx, "DROP TABLE public.script_presence")
}
