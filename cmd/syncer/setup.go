package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"syncer/imclient"
	"syncer/internal/archive"
	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/internal/tracing"
	"syncer/jobs"
	"syncer/migrations"
	"syncer/repo"
	"syncer/repo/userstable"
)

func configFlag() cli.Flag {
	return &cli.StringFlag{
		Name:    "config",
		Aliases: []string{"c"},
		Usage:   "configuration `FILE` (default: ./config.toml, then /etc/syncer/config.toml)",
		Sources: cli.EnvVars("SYNCER_CONFIG"),
	}
}

// load reads the configuration that --config names, and sets the format of messages. The
// error has all problems of the configuration.
func (p *program) load(c *cli.Command) (*config.Config, error) {
	loaded, err := p.readConfig(c)
	if err != nil {
		return nil, err
	}
	p.stderr.configure(loaded.Log, c.Name)
	return loaded, nil
}

// readConfig is load without an effect on messages.
func (p *program) readConfig(c *cli.Command) (*config.Config, error) {
	path, err := config.Find(c.String("config"))
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	loaded, err := config.Load(path, p.environ)
	return loaded, configError(err)
}

// configError returns an error of loading the configuration with its exit code.
func configError(err error) error {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		count := fmt.Sprintf("%d problems", len(problems))
		if len(problems) == 1 {
			count = "a problem"
		}
		return usageError("the configuration has %s:\n%w", count, err)
	}
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	return nil
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// system is everything that run and backfill open.
type system struct {
	config    *config.Config
	log       zerolog.Logger
	process   string
	store     *repo.Store
	apps      []*jobs.App
	clients   []apiClient
	users     userstable.Databases
	metrics   *prometheus.Registry
	counters  *jobs.Metrics // among the metrics
	receiving *receiving    // of hooks; nil if off
	tracing   *tracing.Tracing
	closers   []func()
	ownsQueue bool // whether the role may rebuild the queue's indexes
}

// connectTimeout limits the first contact with the database.
const connectTimeout = 15 * time.Second

// open connects to the database, checks its schema and makes the apps' clients. If
// trustClock, it accepts the database's clock however far it is ahead.
func open(ctx context.Context, c *config.Config, log zerolog.Logger, trustClock bool) (*system, error) {
	s := &system{config: c, log: log, process: processName(), metrics: prometheus.NewRegistry()}
	s.closers = append(s.closers, s.users.Close)
	s.counters = jobs.NewMetrics(s.metrics)
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.openTracing(ctx); err != nil {
		s.close()
		return nil, err
	}
	if err := s.openStore(ctx, trustClock); err != nil {
		s.close()
		return nil, err
	}
	for _, app := range c.Apps {
		if err := s.openApp(ctx, app); err != nil {
			s.close()
			return nil, fmt.Errorf("app %s: %w", app.Name, err)
		}
	}
	return s, nil
}

// databaseAdvice follows a failure to connect.
const databaseAdvice = "check [database] url (or SYNCER_DATABASE_URL), and that the server runs and is reachable from here"

func (s *system) openStore(ctx context.Context, trustClock bool) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	db := s.config.Database
	var err error
	s.store, err = repo.Open(ctx, pg.Config{
		URL: db.URL.Reveal(), Schema: db.Schema, MaxConns: db.MaxConns, PollOnly: db.PollOnly, Process: s.process, Tracer: s.tracing.Statements(),
		TrustClock: trustClock,
		// Earlier than its ranges are taken over, which must not be locked then.
		SilentFor: s.config.Sweep.RescueAfter / 2,
		// Much later: a table may be locked for a while.
		AnswerWithin: 2 * s.config.Sweep.RescueAfter,
	})
	if err != nil {
		return fmt.Errorf("database %s cannot be used: %w\n%s", db.URL, err, databaseAdvice)
	}
	s.closers = append(s.closers, s.store.Close)
	if err := s.store.CheckWritable(ctx); err != nil {
		return err
	}
	if err := s.store.CheckSchema(ctx, migrations.Latest()); err != nil {
		return err
	}
	if err := s.store.CheckSalt(ctx, repo.Salt(s.config.History.ErasureSalt.Reveal())); err != nil {
		return err
	}
	s.ownsQueue, err = s.store.CheckQueue(ctx)
	return err
}

// processName returns a name that no other process has or will have.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:6])
}

func (s *system) openApp(ctx context.Context, c config.App) error {
	app, err := s.store.EnsureApp(ctx, c.Name, c.Provider, c.Tenant())
	if err != nil {
		return err
	}
	log := s.log.With().Str("app", c.Name).Logger()
	var quotas []*repo.Quota
	http := imclient.HTTPConfig{Now: s.store.Now, Observer: s.counters.Calls(c.Name), Around: s.tracing.Requests()}
	client, err := newClient(c, log, http, func(kind imclient.Kind, rate int) *imclient.Gate {
		quota := s.store.Quota(app.ID, kind, float64(rate))
		quotas = append(quotas, quota)
		return imclient.NewGate(quota, s.store.Now)
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, client.Close)
	s.clients = append(s.clients, client)
	users, err := s.openUsers(ctx, c.Users)
	if err != nil {
		return err
	}
	s.apps = append(s.apps, &jobs.App{App: app, Presence: client, Accounts: client, Users: users, Quotas: quotas})
	return nil
}

func (s *system) openUsers(ctx context.Context, c config.Users) (*userstable.Table, error) {
	return s.users.Open(ctx, usersConfig(c, s.config.Database.URL))
}

// usersConfig returns where and how a users table is read; database is the default of its
// URL.
func usersConfig(c config.Users, database config.DatabaseURL) userstable.Config {
	table := []string{c.Table.Name}
	if c.Table.Schema != "" {
		table = []string{c.Table.Schema, c.Table.Name}
	}
	return userstable.Config{
		URL: cmp.Or(c.URL, database).Reveal(), Table: table, KeyColumn: string(c.KeyColumn), UserID: c.UserID, Where: c.Where,
	}
}

// collapseMin is how many users of a page, or of one call, must go offline at once for the
// page to be suspect. Fewer do so by chance in small apps, and cost a recheck each time.
const collapseMin = 50

// engine returns the engine for the runs of the given apps.
func (s *system) engine(apps []*jobs.App) (*jobs.Engine, error) {
	hintsPending := 0
	if s.config.Hooks.Listen != "" {
		hintsPending = s.config.Hooks.MaxPending
	}
	return jobs.New(s.store, apps, jobs.Config{
		RangeUsers: s.config.Sweep.RangeUsers, PageUsers: s.config.Sweep.PageUsers, Workers: s.config.Sweep.Workers,
		RescueAfter: s.config.Sweep.RescueAfter, Outage: s.config.Sweep.Outage,
		Partition: s.config.History.Partition, Retention: s.config.History.Retention,
		Archive:       s.archive(),
		Salt:          repo.Salt(s.config.History.ErasureSalt.Reveal()),
		ReportZone:    s.config.Report.Timezone,
		Reindex:       s.ownsQueue,
		CollapseRatio: s.config.Sweep.CollapseRatio, CollapseMin: collapseMin, CollapseDelay: s.config.Sweep.CollapseDelay,
		RemovalRatio: s.config.Sweep.RemovalRatio, RemovalMin: s.config.Sweep.RemovalMin,
		HintShare: s.config.Hooks.Share, HintsPending: hintsPending,
		Metrics: s.counters, Log: s.log, Tracer: s.tracing.Tracer(),
	})
}

// archive returns what jobs.Config.Archive wants.
func (s *system) archive() func(ctx context.Context, dropBefore time.Time) (time.Time, error) {
	if s.config.History.Archive == "" {
		return nil
	}
	a := archive.New(s.store, s.config.History.Archive, s.log)
	return func(ctx context.Context, dropBefore time.Time) (time.Time, error) {
		result, err := a.Run(ctx, archive.Options{DropBefore: dropBefore})
		if errors.Is(err, archive.ErrBusy) {
			return time.Time{}, nil
		}
		return result.Until, err
	}
}

func (s *system) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}
