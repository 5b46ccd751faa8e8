package main

import (
	"context"
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"syncer/imclient"
	"syncer/internal/build"
	"syncer/internal/config"
	"syncer/internal/pg"
	"syncer/internal/schedule"
	"syncer/internal/web"
	"syncer/repo"
)

func (p *program) webCommand() *cli.Command {
	return &cli.Command{
		Name:  "web",
		Usage: "serve the live page and the read API, and nothing else",
		Description: "Needs only [web], [database] and [report] of the configuration, and a role that may read (syncer grant-reader), " +
			"also on a replica. syncer run serves the same if [web] listen is set. If the configuration also has the apps and jobs, " +
			"the page shows their next ticks and call rates. SIGTERM or Ctrl-C ends it with 0.",
		Flags:  []cli.Flag{configFlag()},
		Action: p.serveWebAlone,
	}
}

func (p *program) serveWebAlone(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	path, err := config.Find(c.String("config"))
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	loaded, err := config.LoadViewing(path, p.environ)
	if err != nil {
		return configError(err)
	}
	p.stderr.configure(loaded.Log, c.Name)
	if loaded.Web.Listen == "" {
		return usageError(`[web] listen is not set: give the address of the page, such as listen = "127.0.0.1:9465"`)
	}
	full := loaded.Full
	if full == nil {
		full = &config.Config{}
	}
	full.Database, full.Log, full.Report, full.Web = loaded.Database, loaded.Log, loaded.Report, loaded.Web
	log := p.stderr.logger(full.Log, full.Warnings, p.stderr.w)
	store, server, err := newWeb(ctx, full, log, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	listener, err := listenWeb(full.Web.Listen, log)
	if err != nil {
		return err
	}
	manager := &service{log: log}
	manager.ready("serving pages at " + listener.Addr().String())
	defer manager.stopping()
	return server.Serve(ctx, listener)
}

// serveWeb serves pages and API until ctx ends, if they are configured. The channel
// receives the error of a server that failed.
func (s *system) serveWeb(ctx context.Context) (<-chan error, error) {
	failed := make(chan error, 1)
	if s.config.Web.Listen == "" {
		return failed, nil
	}
	store, server, err := newWeb(ctx, s.config, s.log, s.metrics)
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, store.Close)
	listener, err := listenWeb(s.config.Web.Listen, s.log)
	if err != nil {
		return nil, err
	}
	go func() {
		if err := server.Serve(ctx, listener); err != nil {
			failed <- err
		}
	}()
	return failed, nil
}

func listenWeb(address string, log zerolog.Logger) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for pages and API: %w\ncheck [web] listen (\"\" turns them off)", err)
	}
	log.Info().Stringer("address", listener.Addr()).Msg("pages and read API")
	return listener, nil
}

// webConns bounds the connections of pages and API.
const webConns = 4

// newWeb returns a server of pages and API with a pool of its own. metrics may be nil.
func newWeb(ctx context.Context, c *config.Config, log zerolog.Logger, metrics prometheus.Registerer) (*repo.Store, *web.Server, error) {
	db := c.Database
	if c.Web.DatabaseURL != "" {
		db.URL = c.Web.DatabaseURL
	}
	store, err := openTool(ctx, db, pg.Config{
		MaxConns: webConns, Process: "web", Location: c.Report.Timezone, ReadOnly: true, AnswerWithin: web.ReadTimeout,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("pages and API: %w", err)
	}
	settings := web.Config{
		DB: store.DB, Location: c.Report.Timezone, Token: c.Web.Token.Reveal(), Listen: c.Web.Listen, UserPages: c.Web.UserPages,
		Limits: map[web.API]float64{}, Meaning: codeMeaning, Version: build.Read().Version, Log: log,
	}
	if metrics != nil {
		settings.Metrics = web.NewMetrics(metrics)
	}
	for _, app := range c.Apps {
		for _, kind := range imclient.Kinds() {
			settings.Limits[web.API{App: app.Name, Kind: kind}] = float64(app.Connection().Rate(kind))
		}
	}
	for _, job := range c.Jobs {
		ticks, err := schedule.Parse(job.Schedule, job.Timezone)
		if err != nil {
			store.Close()
			return nil, nil, err
		}
		settings.Jobs = append(settings.Jobs, web.Job{Name: job.Name, Kind: job.Kind, App: job.App, Ticks: ticks})
	}
	return store, web.New(settings), nil
}
