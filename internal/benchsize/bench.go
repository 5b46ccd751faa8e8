package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"syncer/internal/dev/lab"
	"syncer/internal/dev/pgcluster"
	"syncer/internal/imsim"
	"syncer/internal/pg"
	"syncer/repo"
)

// bench is one measurement. Run it once.
type bench struct {
	options
	progress io.Writer

	url    string
	db     *pgx.Conn
	life   *lab.Simulation
	people *imsim.Rounds
	tick   time.Time
	ends   []func() error
	result result
}

// shares are how many percent of the users change from one sweep to the next.
var shares = []int{0, 1, 5, 20}

// every is the time between two sweeps; it is simulated, and must only be longer
// than a sweep really takes.
const every = 10 * time.Minute

// run measures everything, writes the page and cleans up, whatever happens in
// between.
func (b *bench) run(ctx context.Context, stdout io.Writer) error {
	err := b.measure(ctx)
	for _, end := range slices.Backward(b.ends) {
		err = errors.Join(err, end())
	}
	if err != nil {
		return err
	}
	text := b.result.markdown(b.options)
	if _, err := io.WriteString(stdout, text); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.output), 0o755); err != nil {
		return err
	}
	return os.WriteFile(b.output, []byte(text), 0o644)
}

func (b *bench) measure(ctx context.Context) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"starting Postgres and the backends", b.start},
		{fmt.Sprintf("first sweeps of %d users in each of two apps", b.users), b.first},
		{"sweeps with changes", b.sweep},
		{"rolling two days up", b.rollUp},
		{"adding runs", b.addRuns},
		{"reading sizes", b.sizes},
	}
	for _, step := range steps {
		fmt.Fprintf(b.progress, "%s … ", step.what)
		began := time.Now()
		if err := step.do(ctx); err != nil {
			fmt.Fprintln(b.progress)
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Fprintf(b.progress, "%.0f s\n", time.Since(began).Seconds())
	}
	return nil
}

// The write-ahead log is that of a server with Postgres' own settings: whole pages
// after each checkpoint, which come when we say so. Without fsync, which changes no
// size.
var settings = map[string]string{"full_page_writes": "on", "max_wal_size": "16GB", "checkpoint_timeout": "1h"}

func (b *bench) start(ctx context.Context) error {
	bin, err := pgcluster.FindOrInstall(ctx, b.progress)
	if err != nil {
		return err
	}
	cluster, err := pgcluster.Start(ctx, pgcluster.Options{Binaries: bin, OnDisk: true, Settings: settings})
	if err != nil {
		return err
	}
	b.ends = append(b.ends, cluster.Stop)
	b.url = cluster.URL("postgres")
	if b.db, err = pgx.Connect(ctx, b.url); err != nil {
		return err
	}
	b.ends = append(b.ends, func() error { return b.db.Close(context.WithoutCancel(ctx)) })
	if err := b.db.QueryRow(ctx, "SHOW server_version").Scan(&b.result.postgres); err != nil {
		return err
	}
	// A round is a percent of the users.
	b.people = imsim.NewRounds(1, 0.01)
	b.people.AccountShare, b.people.UnknownShare = 0, 0
	b.tick = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b.life, err = lab.Open(ctx, lab.Config{
		URL: b.url, Users: b.users, Start: b.tick.Add(-time.Minute), Every: every, People: b.people, Log: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	b.ends = append(b.ends, b.life.Close)
	return nil
}

// first sweeps both kinds once: all users are new.
func (b *bench) first(ctx context.Context) error {
	if _, err := b.presence(ctx); err != nil {
		return err
	}
	b.tick = b.tick.Add(every)
	_, err := b.life.Accounts(ctx, b.tick)
	return err
}

// presence sweeps both apps and gives how many users had changed.
func (b *bench) presence(ctx context.Context) (changed int64, err error) {
	b.tick = b.tick.Add(every)
	runs, err := b.life.Presence(ctx, b.tick)
	if err != nil {
		return 0, err
	}
	for _, run := range runs {
		if run.Status != repo.RunSucceeded {
			return 0, fmt.Errorf("run %d ended as %s: %s", run.ID, run.Status, run.Error)
		}
		changed += run.Changed
	}
	return changed, nil
}

const walSQL = `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`

// sweep sweeps some times at each share of changes, from a checkpoint on.
func (b *bench) sweep(ctx context.Context) error {
	for _, share := range shares {
		if _, err := b.db.Exec(ctx, "CHECKPOINT"); err != nil {
			return err
		}
		var before, after int64
		if err := b.db.QueryRow(ctx, walSQL).Scan(&before); err != nil {
			return err
		}
		var all int64
		for range b.sweeps {
			b.people.SetRound(b.people.Round() + share)
			changed, err := b.presence(ctx)
			if err != nil {
				return err
			}
			all += changed
		}
		if err := b.db.QueryRow(ctx, walSQL).Scan(&after); err != nil {
			return err
		}
		b.result.shares = append(b.result.shares, shareSize{percent: share, changed: all, wal: after - before})
	}
	return nil
}

// rollUp lets two more days begin, and rolls those up that are over.
func (b *bench) rollUp(ctx context.Context) error {
	for range 2 {
		b.tick = b.tick.Truncate(24 * time.Hour).Add(24 * time.Hour)
		b.people.SetRound(b.people.Round() + 20)
		if _, err := b.presence(ctx); err != nil {
			return err
		}
	}
	store, err := repo.Open(ctx, pg.Config{URL: b.url, Schema: "syncer", MaxConns: 1, Process: "benchsize"})
	if err != nil {
		return err
	}
	defer store.Close()
	return store.RollUp(ctx, time.UTC, time.Time{})
}

// A thousand times the newest run of each app: of the few runs there have been,
// the size of a row could not be told from that of a page.
const addRunsSQL = `
WITH newest AS (
    SELECT DISTINCT ON (u.app_id) u.*
    FROM syncer.sync_run AS u
    WHERE u.kind = 'presence'
    ORDER BY u.app_id, u.run_id DESC
), counted AS (
    INSERT INTO syncer.presence_count (app_id, run_id, observed_at, state, platform, users)
    SELECT c.app_id, c.run_id + 1000 * n, c.observed_at + n * interval '1 minute', c.state, c.platform, c.users
    FROM syncer.presence_count AS c
    JOIN newest AS u ON u.app_id = c.app_id AND u.run_id = c.run_id
    CROSS JOIN generate_series(1, 1000) AS n
)
INSERT INTO syncer.sync_run (app_id, job, kind, trigger, tick, status, started_at, finished_at, complete, prev_complete_at,
    users, changed, calls, planned, plan_cursor, plan_ranges, plan_job_id, plan_attempt, plan_owner, plan_beat_at,
    observed_from, observed_until, max_gap, known_users, known_hash)
SELECT app_id, job, kind, trigger, tick + n * interval '1 minute', status, started_at + n * interval '1 minute', finished_at + n * interval '1 minute',
    complete, prev_complete_at + n * interval '1 minute',
    users, changed, calls, planned, plan_cursor, plan_ranges, plan_job_id, plan_attempt, plan_owner, plan_beat_at,
    observed_from + n * interval '1 minute', observed_until + n * interval '1 minute', max_gap, known_users, known_hash
FROM newest
CROSS JOIN generate_series(1, 1000) AS n`

func (b *bench) addRuns(ctx context.Context) error {
	_, err := b.db.Exec(ctx, addRunsSQL)
	return err
}

const sizesSQL = `
SELECT r.name, r.rows, s.heap, s.indexes
FROM (VALUES
    ('presence_snapshot', (SELECT count(*) FROM syncer.presence_snapshot)),
    ('presence_history', (SELECT count(*) FROM syncer.presence_history)),
    ('presence_day', (SELECT count(*) FROM syncer.presence_day)),
    ('account_snapshot', (SELECT count(*) FROM syncer.account_snapshot)),
    ('account_history', (SELECT count(*) FROM syncer.account_history)),
    ('presence_count', (SELECT count(*) FROM syncer.presence_count)),
    ('sync_run', (SELECT count(*) FROM syncer.sync_run))
) AS r (name, rows)
CROSS JOIN LATERAL (
    SELECT sum(pg_table_size(p.relid))::bigint AS heap, sum(pg_indexes_size(p.relid))::bigint AS indexes
    FROM (SELECT ('syncer.' || r.name)::regclass AS relid UNION SELECT relid FROM pg_partition_tree(('syncer.' || r.name)::regclass)) AS p
    -- Empty partitions have some pages too.
    WHERE pg_relation_size(p.relid) > 0
) AS s`

func (b *bench) sizes(ctx context.Context) error {
	rows, err := b.db.Query(ctx, sizesSQL)
	if err != nil {
		return err
	}
	b.result.tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[tableSize])
	return err
}
