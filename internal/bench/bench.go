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

	"syncer/internal/dev/leash"
	"syncer/internal/dev/pgcluster"
)

// bench is one measurement. Make it with newBench and run it once.
type bench struct {
	options
	progress io.Writer
	began    time.Time

	dir     string // holds configurations and logs
	leash   *leash.Leash
	cluster *pgcluster.Cluster
	// server is the number of Postgres' first process, all others' parent.
	server  int
	ends    []func() error
	started int    // processes so far, which numbers their logs
	world   *world // the newest; nil: none
	result  result
}

// scenario is what is measured on its own.
type scenario struct {
	name, about string
	measure     func(*bench, context.Context) error
}

var scenarios = []scenario{
	{"first-load", "all users are new, no quota; against COPY of the same rows", (*bench).firstLoad},
	{"unlimited-1pct", "1 % of the users changed, no quota; against the floor", (*bench).unlimited1},
	{"unlimited-5pct", "5 % of the users changed, no quota; against the floor", (*bench).unlimited5},
	{"script", "what a straight script does, 5 % changed, no quota", (*bench).script},
	{"steady-1pct", "1 % of the users changed, at Tencent's quota", (*bench).steady1},
	{"steady-5pct", "5 % of the users changed, at Tencent's quota", (*bench).steady5},
	{"busy", "5 % of the users changed, at Tencent's quota, beside programs that take all CPU time they get", (*bench).busy},
	{"wal", "nobody changed: what is written all the same", (*bench).wal},
	{"accounts", "accounts, 1 % changed, at Tencent's quota", (*bench).accounts},
	{"backfill", "a backfill at Tencent's quota, from the start of the process to its end", (*bench).backfill},
	{"memory", "the memory that few users take", (*bench).memory},
	{"ten-million", "ten times the users: time, first call, memory, cost per user", (*bench).tenMillion},
	{"small-apps", "1,000 users every 5 seconds", (*bench).smallApps},
	{"hooks", "the receiver of hooks: against an empty handler, and without Postgres", (*bench).hooks},
	{"many-apps", "50 apps at once, then one of them down", (*bench).manyApps},
	{"web", "lookups over the read API, against bare ones; sweeps at Tencent's quota beside them", (*bench).web},
}

func newBench(o options, progress io.Writer) *bench {
	return &bench{options: o, progress: progress, began: time.Now()}
}

// atEnd puts something off to the clean-up.
func (b *bench) atEnd(do func() error) { b.ends = append(b.ends, do) }

// run measures everything, writes the table and cleans up, whatever happens in
// between. What could not be measured does not keep the rest from being so.
func (b *bench) run(ctx context.Context, stdout io.Writer) error {
	err := b.start(ctx)
	if err == nil {
		err = errors.Join(b.measure(ctx), b.write(stdout))
	}
	return errors.Join(err, b.cleanUp(0))
}

// cleanUp takes back, in the opposite order, what was put off after the first n
// things.
func (b *bench) cleanUp(n int) error {
	var errs []error
	for _, end := range slices.Backward(b.ends[n:]) {
		errs = append(errs, end())
	}
	b.ends = b.ends[:n]
	return errors.Join(errs...)
}

// measure goes through the scenarios. What one of them started does not last
// longer than it, but for its world, if all went well.
func (b *bench) measure(ctx context.Context) error {
	var errs []error
	before := len(b.ends)
	for _, s := range scenarios {
		if len(b.only) > 0 && !slices.Contains(b.only, s.name) {
			continue
		}
		b.say(s.name, "%s", s.about)
		err := s.measure(b, ctx)
		if err == nil {
			err = b.cleanUp(before)
		} else if ctx.Err() != nil {
			return err
		} else {
			b.say(s.name, "failed: %v", err)
			err = errors.Join(err, b.cleanUp(before), b.dropWorld(ctx))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(append(errs, b.result.missing())...)
}

// write prints the table and writes it into the folder of the results.
func (b *bench) write(stdout io.Writer) error {
	fmt.Fprintln(stdout, b.result.text())
	file := filepath.Join(b.out, "bench.md")
	if err := os.WriteFile(file, []byte(b.result.markdown()), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "Written to %s, profiles beside it.\n", file)
	return nil
}

// say tells how it is going.
func (b *bench) say(name, format string, args ...any) {
	fmt.Fprintf(b.progress, "%6s  %-15s%s\n", time.Since(b.began).Round(time.Second), name, fmt.Sprintf(format, args...))
}

// times is how often something is measured, unless -runs says so.
func (b *bench) times(byDefault int) int {
	if b.runs > 0 {
		return b.runs
	}
	return byDefault
}

// often is how often most things are measured, seldom those that take minutes.
const (
	often  = 5
	seldom = 3
)

// start starts the server and what everything else is started with.
func (b *bench) start(ctx context.Context) (err error) {
	for _, program := range []*string{&b.syncer, &b.simulator} {
		if *program, err = filepath.Abs(*program); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "syncer-bench-"); err != nil {
		return err
	}
	b.atEnd(func() error { return os.RemoveAll(b.dir) })
	if b.leash, err = leash.New(b.dir); err != nil {
		return err
	}
	b.atEnd(b.leash.Release)
	bin, err := pgcluster.FindOrInstall(ctx, b.progress)
	if err != nil {
		return err
	}
	if b.cluster, err = pgcluster.Start(ctx, pgcluster.Options{Binaries: bin, Durable: true, Settings: b.settings()}); err != nil {
		return err
	}
	b.atEnd(b.cluster.Stop)
	b.atEnd(func() error { return b.closeWorld(context.WithoutCancel(ctx)) })
	version, err := b.findServer(ctx)
	if err != nil {
		return err
	}
	b.result.about, err = machine(version, b.options, b.settings())
	return err
}

// findServer sets the process of the server, which was started, and returns its version.
func (b *bench) findServer(ctx context.Context) (version string, err error) {
	db, err := pgx.Connect(ctx, b.cluster.URL("postgres"))
	if err != nil {
		return "", err
	}
	defer db.Close(context.WithoutCancel(ctx))
	var pidFile string
	if err := db.QueryRow(ctx, "SELECT current_setting('server_version'), pg_read_file('postmaster.pid')").Scan(&version, &pidFile); err != nil {
		return "", err
	}
	if _, err := fmt.Sscan(pidFile, &b.server); err != nil {
		return "", fmt.Errorf("read the number of the server's process: %w", err)
	}
	return version, nil
}

// settings are those of a small server of its own, for a million users. Each app
// may read its users over four connections.
func (b *bench) settings() map[string]string {
	s := map[string]string{"max_connections": "400", "shared_buffers": "1GB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
	if b.smoke {
		s["shared_buffers"] = "128MB"
	}
	return s
}
