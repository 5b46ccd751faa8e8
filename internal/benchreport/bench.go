package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
	"syncer/internal/pg"
	"syncer/migrations"
	"syncer/repo"
)

// bench is one measurement. Run it once.
type bench struct {
	options
	progress io.Writer

	dir    string // holds the configuration
	url    string // of the database
	db     *pgx.Conn
	ends   []func() error
	result result
}

// schema is where everything lives, and asOf when reports look: a minute after
// the end of the history.
const (
	schema = "syncer"
	asOf   = "2026-03-30T12:01:00Z"
)

// run measures everything, writes the table and cleans up, whatever happens in
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
	if err := os.WriteFile(b.output, []byte(text), 0o644); err != nil {
		return err
	}
	if missed := b.result.missed(); missed > 0 && !b.lenient {
		return fmt.Errorf("%d of the medians are above their target", missed)
	}
	return nil
}

func (b *bench) measure(ctx context.Context) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"starting Postgres", b.start},
		{fmt.Sprintf("making %d days of %d users", b.days, b.users), b.fill},
		{"analyzing and vacuuming", b.vacuum},
		{"rolling up", b.rollUp},
		{"reading sizes", b.sizes},
		{"timing the program's reports", b.timeReports},
		{"timing queries", b.timeQueries},
		{"timing the questions of " + b.page, b.timeQuestions},
		{"timing sweeps with and without the indexes", b.timeSweeps},
	}
	for _, step := range steps {
		fmt.Fprintf(b.progress, "%s … ", step.what)
		began := time.Now()
		if err := step.do(ctx); err != nil {
			fmt.Fprintln(b.progress)
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Fprintln(b.progress, seconds(time.Since(began)))
	}
	return nil
}

// Whoever reads has a server with Postgres' own defaults. The rest is for making
// the history: without fsync and its kin, and without a checkpoint every other
// second.
var settings = map[string]string{"max_wal_size": "16GB", "checkpoint_timeout": "1h"}

const migrationPatience = time.Minute

// start starts the server and makes the schema.
func (b *bench) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "syncer-benchreport-"); err != nil {
		return err
	}
	b.ends = append(b.ends, func() error { return os.RemoveAll(b.dir) })
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
	if err := b.migrate(ctx); err != nil {
		return err
	}
	if b.db, err = pgx.Connect(ctx, b.url); err != nil {
		return err
	}
	b.ends = append(b.ends, func() error { return b.db.Close(context.WithoutCancel(ctx)) })
	if err := b.exec(ctx, "SET search_path = "+schema); err != nil {
		return err
	}
	if err := b.db.QueryRow(ctx, "SHOW server_version").Scan(&b.result.postgres); err != nil {
		return err
	}
	config := fmt.Sprintf("[database]\nurl = %q\n", b.url+"&syncer.as_of="+asOf)
	return os.WriteFile(b.config(), []byte(config), 0o600)
}

func (b *bench) config() string { return filepath.Join(b.dir, "config.toml") }

func (b *bench) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, migrationPatience)
	defer cancel()
	m, err := migrations.Open(ctx, migrations.Config{URL: b.url, Schema: schema})
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = m.Up(ctx)
	return err
}

// exec runs statements one after the other.
func (b *bench) exec(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		if _, err := b.db.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%w\n%s", err, statement)
		}
	}
	return nil
}

//go:embed history.sql
var historySQL string

// fill makes the history, with room to sort in.
func (b *bench) fill(ctx context.Context) error {
	return b.exec(ctx,
		"SET work_mem = '1GB'", "SET maintenance_work_mem = '1GB'", "SET jit = off",
		fmt.Sprintf("SET bench.users = '%d'", b.users), fmt.Sprintf("SET bench.days = '%d'", b.days),
		historySQL,
		"RESET work_mem", "RESET maintenance_work_mem", "RESET jit")
}

func (b *bench) vacuum(ctx context.Context) error { return b.exec(ctx, "VACUUM ANALYZE", "CHECKPOINT") }

const forgetDaySQL = `UPDATE presence_rollup SET until_day = until_day - 1`

// rollUp times the roll-up of the whole history, and that of a day as maintenance
// does it once the day is over.
func (b *bench) rollUp(ctx context.Context) error {
	store, err := repo.Open(ctx, pg.Config{URL: b.url, Schema: schema, MaxConns: 1, Process: "benchreport"})
	if err != nil {
		return err
	}
	defer store.Close()
	rollUp := func() error { return store.RollUp(ctx, time.UTC, time.Time{}) }
	began := time.Now()
	if err := rollUp(); err != nil {
		return err
	}
	b.result.add(timing{group: "roll-up", what: "the whole history, a week a transaction", times: []time.Duration{time.Since(began)}})
	times, err := b.times(func() (time.Duration, error) {
		if err := b.exec(ctx, forgetDaySQL); err != nil {
			return 0, err
		}
		return stopwatch(rollUp)
	})
	if err != nil {
		return err
	}
	b.result.add(timing{group: "roll-up", what: "a day, as maintenance does it after each", times: times})
	return b.exec(ctx, "VACUUM ANALYZE presence_day")
}

// times measures something as often as it is asked for, after a first time that
// does not count.
func (b *bench) times(measure func() (time.Duration, error)) ([]time.Duration, error) {
	var all []time.Duration
	for i := range 1 + b.repeat {
		took, err := measure()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			all = append(all, took)
		}
	}
	return all, nil
}

func stopwatch(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}

const sizesSQL = `
SELECT r.name, r.rows, s.heap, s.indexes
FROM (VALUES
    ('presence_history', (SELECT count(*) FROM presence_history)),
    ('presence_snapshot', (SELECT count(*) FROM presence_snapshot)),
    ('presence_day', (SELECT count(*) FROM presence_day)),
    ('presence_count', (SELECT count(*) FROM presence_count)),
    ('sync_run', (SELECT count(*) FROM sync_run))
) AS r (name, rows)
CROSS JOIN LATERAL (
    SELECT sum(pg_table_size(p.relid))::bigint AS heap, sum(pg_indexes_size(p.relid))::bigint AS indexes
    FROM (SELECT r.name::regclass AS relid UNION SELECT relid FROM pg_partition_tree(r.name::regclass)) AS p
) AS s`

const indexSizesSQL = `
SELECT i.name, sum(pg_relation_size(p.relid))::bigint AS bytes
FROM (VALUES ('presence_history_pkey'), ('presence_history_stretch'), ('presence_history_observed'),
             ('presence_day_pkey'), ('presence_count_observed'), ('sync_run_observed')) AS i (name)
CROSS JOIN LATERAL (SELECT i.name::regclass AS relid UNION SELECT relid FROM pg_partition_tree(i.name::regclass)) AS p
GROUP BY i.name
ORDER BY bytes DESC`

func (b *bench) sizes(ctx context.Context) error {
	rows, err := b.db.Query(ctx, sizesSQL)
	if err != nil {
		return err
	}
	if b.result.tables, err = pgx.CollectRows(rows, pgx.RowToStructByPos[tableSize]); err != nil {
		return err
	}
	if rows, err = b.db.Query(ctx, indexSizesSQL); err != nil {
		return err
	}
	b.result.indexes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[indexSize])
	return err
}
