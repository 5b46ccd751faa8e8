package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v3"

	"syncer/internal/admin"
	"syncer/internal/build"
	"syncer/internal/config"
	"syncer/internal/schedule"
	"syncer/jobs"
	"syncer/migrations"
)

func (p *program) runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "daemon: start the scheduled jobs and work on them",
		Description: "Any number of instances may run on one database: they share schedule, work and quota. " +
			"SIGTERM or Ctrl-C finishes the pages in flight (at most [sweep] stop_grace) and exits with 0; " +
			"another instance, or the next start, continues the rest. " +
			"SIGHUP reloads the configuration: jobs, call rates, the log level and the certificate of hooks change at once; " +
			"the log names settings that need a restart.",
		Flags:  []cli.Flag{configFlag()},
		Action: p.runDaemon,
	}
}

func (p *program) runDaemon(ctx context.Context, c *cli.Command) error {
	if err := noArgs(c); err != nil {
		return err
	}
	// Registered first: an unhandled SIGHUP ends the process.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	loaded, err := p.load(c)
	if err != nil {
		return err
	}
	// The global level, not the logger's, so that a reload can change it.
	setLevel(loaded.Log)
	s, err := open(ctx, loaded, p.stderr.logger(loaded.Log, loaded.Warnings, p.stderr.w).Level(zerolog.DebugLevel), false)
	if err != nil {
		return err
	}
	defer s.close()
	scheduled, err := s.scheduled(loaded.Jobs)
	if err != nil {
		return err
	}
	engine, err := s.engine(s.apps)
	if err != nil {
		return err
	}
	serving, err := s.serveAdmin(ctx, engine)
	if err != nil {
		return err
	}
	viewing, err := s.serveWeb(ctx)
	if err != nil {
		return err
	}
	if s.receiving, err = s.serveHooks(ctx, engine); err != nil {
		return err
	}
	defer s.receiving.stop()
	if err := engine.Start(ctx); err != nil {
		return err
	}
	engine.Schedule(scheduled)
	s.log.Info().Int("apps", len(s.apps)).Int("jobs", len(scheduled)).Str("process", s.store.Process()).Stringer("version", build.Read()).Msg("running")
	manager := &service{log: s.log}
	manager.ready(status(loaded))
	watched, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	go manager.keepWatchdog(watched, engine.Alive)
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case err = <-serving:
			running = false
		case err = <-viewing:
			running = false
		case err = <-s.receiving.failure():
			running = false
		case err = <-engine.Lost(): // the service manager starts the process again
			running = false
		case <-hangups:
			manager.reloading()
			loaded = s.reload(loaded, func() (*config.Config, error) { return p.readConfig(c) }, engine)
			manager.ready(status(loaded))
		}
	}
	manager.stopping()
	s.receiving.stop() // before the engine, which works on what it receives
	s.log.Info().Msg("stopping: finishing the pages in flight")
	if stopErr := stopEngine(engine, loaded.Sweep); stopErr != nil {
		s.log.Warn().Err(stopErr).Msg("did not stop in time; nothing that was written is lost")
	}
	s.log.Info().Msg("stopped")
	return err
}

// stopEngine stops the engine within stop_grace, which pages in flight may use.
func stopEngine(engine *jobs.Engine, c config.Sweep) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.StopGrace)
	defer cancel()
	return engine.Stop(ctx)
}

// status returns the daemon's status for the service manager.
func status(c *config.Config) string {
	return fmt.Sprintf("apps: %d, jobs: %d", len(c.Apps), len(c.Jobs))
}

// scheduled returns the engine's jobs for configured ones.
func (s *system) scheduled(configured []config.Job) ([]jobs.Job, error) {
	var scheduled []jobs.Job
	for _, c := range configured {
		ticks, err := schedule.Parse(c.Schedule, c.Timezone)
		if err != nil {
			return nil, err
		}
		job := jobs.Job{Name: c.Name, Kind: c.Kind, Schedule: ticks, CatchUp: c.CatchUp, MaxGap: c.MaxGap}
		for _, app := range s.apps {
			if c.App == "" || c.App == app.Name {
				job.AppIDs = append(job.AppIDs, app.ID)
			}
		}
		scheduled = append(scheduled, job)
	}
	return scheduled, nil
}

// serveAdmin serves health, readiness and metrics until ctx ends. The channel receives the
// error of a server that failed.
func (s *system) serveAdmin(ctx context.Context, engine *jobs.Engine) (<-chan error, error) {
	failed := make(chan error, 1)
	if s.config.HTTP.Listen == "" {
		return failed, nil
	}
	listener, err := net.Listen("tcp", s.config.HTTP.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for health, readiness and metrics: %w\ncheck [http] listen (\"\" turns it off)", err)
	}
	ready := func(ctx context.Context) error { return s.ready(ctx, engine) }
	s.metrics.MustRegister(&jobs.State{Engine: engine, Ready: ready})
	server := &admin.Server{
		Ready:   ready,
		Metrics: s.metrics,
		Token:   s.config.HTTP.Token.Reveal(),
		Listen:  s.config.HTTP.Listen,
		Pprof:   s.config.HTTP.Pprof,
		Log:     s.log,
	}
	go func() {
		if err := server.Serve(ctx, listener); err != nil {
			failed <- err
		}
	}()
	s.log.Info().Stringer("address", listener.Addr()).Msg("health, readiness and metrics")
	return failed, nil
}

// ready returns what prevents the daemon from working: the database, its schema, or itself.
func (s *system) ready(ctx context.Context, engine *jobs.Engine) error {
	if err := s.store.CheckSchema(ctx, migrations.Latest()); err != nil {
		return err
	}
	if err := s.store.CheckWritable(ctx); err != nil {
		return err
	}
	if !engine.Alive() {
		return fmt.Errorf("the daemon is starting or stuck: its housekeeping did not complete within %s", s.config.Sweep.RescueAfter)
	}
	return engine.Trouble()
}
