package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// target is the most that the median of a report or a question may take.
const target = 3 * time.Second

// reports are the arguments of syncer report that are timed, whole process.
var reports = []string{
	"concurrency --format csv",
	"concurrency --from -30d --format csv",
	"active-users --format csv",
	"active-users --tz Europe/Berlin --format csv",
	"sessions --format csv",
	"sessions --from -30d --format csv",
	"sessions --users --format csv",
	"platforms --format csv",
	"accounts --format csv",
	"runs --format csv",
	"gaps --format csv",
	"all --format table",
	"all --format html",
}

func (b *bench) timeReports(ctx context.Context) error {
	program, err := filepath.Abs(b.syncer)
	if err != nil {
		return err
	}
	for _, arguments := range reports {
		times, err := b.times(func() (time.Duration, error) {
			cmd := exec.CommandContext(ctx, program, append([]string{"report"}, strings.Fields(arguments)...)...)
			cmd.Args = append(cmd.Args, "--config", b.config())
			cmd.Dir = b.dir
			cmd.Stderr = b.progress
			for _, variable := range os.Environ() {
				if !strings.HasPrefix(variable, "SYNCER_") && !strings.HasPrefix(variable, "PG") {
					cmd.Env = append(cmd.Env, variable)
				}
			}
			return stopwatch(cmd.Run)
		})
		if err != nil {
			return fmt.Errorf("syncer report %s: %w", arguments, err)
		}
		b.result.add(timing{group: "`syncer report`", what: "`" + arguments + "`", target: target, times: times})
	}
	return nil
}

// queries are what an analyst asks. The roll-up has days of UTC.
var queries = []struct{ what, sql string }{
	{"`presence_current`: users by state", `SELECT state, count(*) FROM presence_current GROUP BY state`},
	{"`presence_concurrency`: a day", `SELECT observed_at, online FROM presence_concurrency WHERE observed_at >= '2026-03-28' AND observed_at < '2026-03-29'`},
	{"`presence_concurrency`: a month", `SELECT observed_at::date, max(online) FROM presence_concurrency WHERE observed_at >= '2026-03-01' GROUP BY 1`},
	{"`presence_session`: a user", `SELECT * FROM presence_session WHERE user_id = 'user00000777'`},
	{"`presence_session`: begun in a day", `SELECT count(*), sum(estimated_seconds) FROM presence_session WHERE started_at >= '2026-03-28' AND started_at < '2026-03-29'`},
	{"`presence_session`: begun in a month", `SELECT count(*), sum(estimated_seconds) FROM presence_session WHERE started_at >= '2026-03-01'`},
	{"`presence_session`: who was online at a moment", `SELECT count(*) FROM presence_session WHERE started_at <= '2026-03-28 12:00+00' AND (ended_at > '2026-03-28 12:00+00' OR ended_at IS NULL)`},
	{"`presence_current`: when each user was last online", `SELECT user_id, last_online_after, last_online_at FROM presence_current`},
	{"`presence_daily`: a user, a month", `SELECT * FROM presence_daily('2026-03-01', '2026-03-30', 'UTC') WHERE user_id = 'user00000777'`},
	{"`presence_daily`: a day", `SELECT day, count(*), sum(online_seconds) FROM presence_daily('2026-03-28', '2026-03-28', 'UTC') GROUP BY day`},
	{"`presence_daily`: a month", `SELECT day, count(*), sum(online_seconds) FROM presence_daily('2026-03-01', '2026-03-30', 'UTC') GROUP BY day`},
	{"`presence_platform_session`: a user", `SELECT * FROM presence_platform_session WHERE user_id = 'user00000777'`},
	{"`presence_platform_daily`: a user, a month", `SELECT * FROM presence_platform_daily('2026-03-01', '2026-03-30', 'UTC') WHERE user_id = 'user00000777'`},
	{"`presence_platform_daily`: a day", `SELECT platform, count(*), sum(online_seconds) FROM presence_platform_daily('2026-03-28', '2026-03-28', 'UTC') GROUP BY platform`},
	{"`active_users`: a day", `SELECT * FROM active_users('2026-03-28', '2026-03-28', 'UTC')`},
	{"`active_users`: a month", `SELECT * FROM active_users('2026-03-01', '2026-03-30', 'UTC')`},
	{"`presence_daily`: a user, a month, in another zone", `SELECT * FROM presence_daily('2026-03-01', '2026-03-30', 'Europe/Berlin') WHERE user_id = 'user00000777'`},
	{"`presence_daily`: a day, in another zone", `SELECT day, count(*), sum(online_seconds) FROM presence_daily('2026-03-28', '2026-03-28', 'Europe/Berlin') GROUP BY day`},
	{"`presence_daily`: a month, in another zone", `SELECT day, count(*), sum(online_seconds) FROM presence_daily('2026-03-01', '2026-03-30', 'Europe/Berlin') GROUP BY day`},
	{"`presence_daily`: a week, in another zone", `SELECT day, count(*), sum(online_seconds) FROM presence_daily('2026-03-22', '2026-03-28', 'Europe/Berlin') GROUP BY day`},
	{"`active_users`: a month, in another zone", `SELECT * FROM active_users('2026-03-01', '2026-03-30', 'Europe/Berlin')`},
	{"`account_coverage`", `SELECT * FROM account_coverage`},
}

// withDefaults are timed again with the settings that Postgres has by itself.
var withDefaults = map[string]bool{
	"`presence_session`: begun in a day":             true,
	"`presence_session`: who was online at a moment": true,
	"`presence_daily`: a day":                        true,
	"`presence_daily`: a day, in another zone":       true,
}

// advised are the settings that docs/reporting.md recommends.
var advised = []string{"SET jit = off", "SET work_mem = '64MB'"}

func (b *bench) timeQueries(ctx context.Context) error {
	if err := b.exec(ctx, "SET syncer.as_of = '"+asOf+"'"); err != nil {
		return err
	}
	const group = "SQL, with `jit = off`, `work_mem = '64MB'`"
	if err := b.exec(ctx, advised...); err != nil {
		return err
	}
	for _, query := range queries {
		if err := b.timeQuery(ctx, group, query.what, query.sql); err != nil {
			return err
		}
	}
	if err := b.exec(ctx, "RESET jit", "RESET work_mem"); err != nil {
		return err
	}
	for _, query := range queries {
		if !withDefaults[query.what] {
			continue
		}
		if err := b.timeQuery(ctx, "SQL, with Postgres' defaults", query.what, query.sql); err != nil {
			return err
		}
	}
	return nil
}

// timeQuery times a query with the arrival of its rows.
func (b *bench) timeQuery(ctx context.Context, group, what, statement string) error {
	times, err := b.times(func() (time.Duration, error) {
		return stopwatch(func() error {
			rows, err := b.db.Query(ctx, statement, pgx.QueryExecModeExec)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return rows.Err()
		})
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, statement)
	}
	b.result.add(timing{group: group, what: what, target: target, times: times})
	return nil
}

// The sweeps of the last hour, once more and an hour and a minute later: so
// there is nothing in their way.
const sweepsSQL = `
CREATE TEMP TABLE sweep AS
SELECT extract(minute FROM observed_at)::int AS no, app_id, user_id, prev_state, state, platforms,
       not_before + interval '61 minutes' AS not_before, observed_at + interval '61 minutes' AS observed_at,
       prev_since, prev_since_after
FROM presence_history
WHERE observed_at >= timestamptz '2026-03-30 11:00+00' AND observed_at < timestamptz '2026-03-30 12:00+00' AND prev_state IS NOT NULL`

const writeRunSQL = `
INSERT INTO sync_run (app_id, job, kind, trigger, status, started_at, finished_at, complete, observed_from, observed_until)
SELECT 1, 'presence', 'presence', 'cron', 'succeeded', at, at + interval '20 seconds', true, at, at + interval '20 seconds'
FROM (SELECT timestamptz '2026-03-30 12:01+00' + $1::int * interval '1 minute' AS at) AS a
RETURNING run_id`

const writeCountsSQL = `
INSERT INTO presence_count (app_id, run_id, observed_at, state, platform, users)
SELECT app_id, $1, observed_at + interval '61 minutes', state, platform, users
FROM presence_count
WHERE app_id = 1 AND run_id = 1`

const writeTransitionsSQL = `
INSERT INTO presence_history (app_id, user_id, prev_state, state, platforms, not_before, observed_at, run_id, prev_since, prev_since_after)
SELECT app_id, user_id, prev_state, state, platforms, not_before, observed_at, $2, prev_since, prev_since_after
FROM sweep
WHERE no = $1
ORDER BY user_id`

// reportIndexes are there for reports alone.
var reportIndexes = []string{"presence_history_stretch", "presence_history_observed", "presence_count_observed", "sync_run_observed"}

// timeSweeps writes what an hour of sweeps found, with the indexes for reports
// and without them, and takes it back. Turns alternate.
func (b *bench) timeSweeps(ctx context.Context) error {
	if err := b.exec(ctx, sweepsSQL, "ANALYZE sweep"); err != nil {
		return err
	}
	if err := b.db.QueryRow(ctx, "SELECT count(*) FROM sweep").Scan(&b.result.sweepRows); err != nil {
		return err
	}
	var with, without []time.Duration
	var bytesWith, bytesWithout int64
	for i := range 1 + b.repeat {
		took, bytes, err := b.sweeps(ctx)
		if err != nil {
			return err
		}
		tookWithout, fewerBytes, err := b.sweeps(ctx, reportIndexes...)
		if err != nil {
			return err
		}
		if i > 0 {
			with, without = append(with, took), append(without, tookWithout)
			bytesWith, bytesWithout = bytes, fewerBytes
		}
	}
	const group = "writing"
	b.result.add(timing{group: group, what: "an hour of sweeps: runs, counts and transitions", times: with})
	b.result.add(timing{group: group, what: "the same without the indexes for reports", times: without})
	b.result.walWith, b.result.walWithout = bytesWith, bytesWithout
	return nil
}

// sweeps times an hour of sweeps without some indexes, and how much it adds to
// the write-ahead log; all of it is taken back.
func (b *bench) sweeps(ctx context.Context, without ...string) (took time.Duration, bytes int64, err error) {
	tx, err := b.db.Begin(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, index := range without {
		if _, err := tx.Exec(ctx, "DROP INDEX "+index); err != nil {
			return 0, 0, err
		}
	}
	var before, after string
	const position = "SELECT pg_current_wal_insert_lsn()::text"
	if err := tx.QueryRow(ctx, position).Scan(&before); err != nil {
		return 0, 0, err
	}
	took, err = stopwatch(func() error {
		for no := range 60 {
			var run int64
			if err := tx.QueryRow(ctx, writeRunSQL, no).Scan(&run); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, writeCountsSQL, run); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, writeTransitionsSQL, no, run); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	if err := tx.QueryRow(ctx, position).Scan(&after); err != nil {
		return 0, 0, err
	}
	err = tx.QueryRow(ctx, "SELECT ($1::pg_lsn - $2::pg_lsn)::bigint", after, before).Scan(&bytes)
	return took, bytes, err
}
